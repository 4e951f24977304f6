"""What blocks are called: tables by symbol or RTTI, recognisers, groups, and one type by itself."""

from __future__ import annotations

import pytest

from heapglass.analysis.demangle import demangle, of_what
from heapglass.analysis.types import find
from heapglass.errors import BadRequest
from heapglass.heap.target import Near
from heapglass.native import compiled, loops

from ..views.asked import document, lines
from .held import VARIABLES, HeldHeap

MACHINES = pytest.mark.parametrize(
    ("word", "order"), [(8, "little"), (4, "little"), (8, "big"), (4, "big")]
)
SYMBOL = "_ZTV6Square"


@pytest.fixture(params=["python", "native"], autouse=True)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of loops, whatever this Python uses by itself."""
    made = loops if request.param == "python" else compiled.load()
    assert made is not None
    monkeypatch.setattr(find, "make_kinds", made.make_kinds)
    monkeypatch.setattr("heapglass.analysis.leaks.make_graph", made.make_graph)


def types(made: HeldHeap) -> dict[str, tuple[str, int]]:
    found = document(made.target, "types")["types"]
    return {group["type"]: (group["how"], group["count"]) for group in found}


def with_table(made: HeldHeap, table: int, name: bytes) -> None:
    """Write a table of virtual functions and its RTTI into the variables."""
    word, typeinfo = made.layout.word, VARIABLES + 0x400
    made.set_word(table - 2 * word, 0)
    made.set_word(table - word, typeinfo)
    made.set_word(typeinfo + word, VARIABLES + 0x500)
    made.memory.write(VARIABLES + 0x500, name + b"\0")


@MACHINES
def test_a_class_is_told_by_the_name_in_its_rtti(word: int, order: str):
    made = HeldHeap(6, word, order)
    table = VARIABLES + 0x200
    with_table(made, table, b"N4geom6SquareE")
    for number in (1, 3):
        made.set_word(made.mem(number), table)
    assert types(made)["geom::Square"] == ("rtti", 2)
    blocks = document(made.target, "types geom::Square")["blocks"]
    assert [int(block["user"], 16) for block in blocks] == [made.mem(1), made.mem(3)]


def test_a_symbol_comes_before_rtti_and_names_what_is_no_table():
    made = HeldHeap(6)
    table = VARIABLES + 0x200
    with_table(made, table, b"6Circle")
    made.set_word(made.mem(0), table)
    made.set_word(made.mem(1), VARIABLES + 0x308)
    names = {table: Near(SYMBOL, 16, "/program"), VARIABLES + 0x308: Near("handlers", 8, "")}
    made.target.symbol_at = names.get
    found = types(made)
    assert found["Square"] == ("vtable", 1)
    assert found["begins with a pointer to handlers+0x8"] == ("symbol", 1)
    made.target.symbol_at = lambda _: None
    assert types(made)["Circle"] == ("rtti", 1)
    assert types(made)["begins with a pointer to program+0x308"] == ("file", 1)


@pytest.mark.parametrize("name", [b"\xff\xfe", b"6Squar", b"", b"no type", b"1" * 2000])
def test_what_is_no_name_of_a_type_is_not_shown_as_one(name: bytes):
    made = HeldHeap(3)
    with_table(made, VARIABLES + 0x200, name[:0xA00])
    made.set_word(made.mem(0), VARIABLES + 0x200)
    assert "begins with a pointer to program+0x200" in types(made)


def test_what_nothing_tells_comes_by_size():
    made = HeldHeap(8)
    for number in range(8):
        made.set_word(made.mem(number), 5)
    found = types(made)
    assert found == {f"{made.usable(number):#x} bytes": ("none", 2) for number in range(4)}
    text = "\n".join(lines(made.target, "types"))
    assert "of 0x0 (0 %) the type was told" in text


def test_an_unknown_type_says_what_there_is():
    made = HeldHeap(3)
    with pytest.raises(BadRequest, match="no block in use is of type 'Nothing'"):
        document(made.target, "types Nothing")
    with pytest.raises(BadRequest, match="only gdb knows types"):
        document(made.target, "types --as Node")


class Printer:
    """A type of sixty bytes, printed by its address."""

    def size(self, name: str) -> int:
        if name != "Node":
            raise BadRequest(f"no type {name!r}")
        return 0x38

    def text(self, name: str, address: int) -> str:
        return f"{{{name} at\n {address:#x}}}"


def test_blocks_are_printed_as_a_type_of_their_size():
    made = HeldHeap(8)
    for number in range(8):
        made.set_word(made.mem(number), 5)
    made.target.types = Printer()
    blocks = document(made.target, "types --as Node")["blocks"]
    right = [made.mem(number) for number in range(8) if made.usable(number) == 0x38]
    assert [block["value"] for block in blocks] == [f"{{Node at {mem:#x}}}" for mem in right]
    assert len(right) == 2
    with pytest.raises(BadRequest, match="no type 'Other'"):
        document(made.target, "types --as Other")


@MACHINES
def test_python_objects_are_known_by_their_types(word: int, order: str):
    made = HeldHeap(8, word, order)
    kind, other = VARIABLES + 0x100, VARIABLES + 0x200
    for at, name_at, name in ((kind, 0x500, b"type"), (other, 0x540, b"collections.OrderedDict")):
        made.set_word(at, 7)
        made.set_word(at + word, kind)
        made.set_word(at + 3 * word, VARIABLES + name_at)
        made.memory.write(VARIABLES + name_at, name + b"\0")
    made.set_word(made.mem(0) + word, other)
    made.set_word(made.mem(1) + 3 * word, other)  # behind a PyGC_Head
    made.set_word(made.mem(2) + word, VARIABLES + 0x208)
    made.target.addresses_of = lambda name: [kind] if name == "PyType_Type" else []
    assert types(made)["collections.OrderedDict"] == ("python", 2)


def test_without_mappings_the_blocks_are_told_all_the_same():
    made = HeldHeap(4)
    made.memory.write(made.mem(0), b"a text\0")
    made.target.memory.regions = list  # type: ignore[method-assign]
    found = document(made.target, "types")
    assert ("text", 1) in [(group["type"], group["count"]) for group in found["types"]]
    assert any("mappings are not known" in text for text in found["warnings"])


def test_more_tables_than_are_named_are_counted(monkeypatch: pytest.MonkeyPatch):
    made = HeldHeap(8)
    for number in range(8):
        made.set_word(made.mem(number), VARIABLES + 0x100 + 16 * number)
    monkeypatch.setattr(find, "MOST_NAMED", 3)
    assert types(made)["begins with a pointer into a file"] == ("file", 5)


def test_regions_that_cannot_be_written_come_first():
    """The last node of a list leads to a variable, which is no table."""
    made = HeldHeap(4)
    word = made.layout.word
    made.set_word(made.mem(0), made.mem(1))
    made.set_word(made.mem(0) + word, VARIABLES + 0x100)
    made.set_word(made.mem(1), VARIABLES + 0x100)
    made.set_word(made.mem(1) + word, made.mem(0))
    assert types(made)["list node"] == ("shape", 2)
    regions = [
        r._replace(perms="r--") if r.start == VARIABLES else r for r in made.target.memory.regions()
    ]
    made.target.memory.regions = lambda: regions  # type: ignore[method-assign]
    assert types(made)["list node"] == ("shape", 1)


def test_names_are_written_as_in_cxx():
    assert demangle("_ZTV6Square") == "vtable for Square"
    assert of_what("vtable for Square") == "Square"
    assert demangle("St6vectorIiSaIiEE") == "std::vector<int, std::allocator<int> >"
    for name in ("main", "", "_Z" + "N" * 5000, "_ZTV", "a\0b", "i", "6Squar"):
        assert demangle(name) == name


def test_without_the_library_names_stay_as_they_are(monkeypatch: pytest.MonkeyPatch):
    from heapglass.analysis import demangle as module

    monkeypatch.setattr(module, "_library", lambda: None)
    module.demangle.cache_clear()
    assert module.demangle("_ZTV6Square") == "_ZTV6Square"
    module.demangle.cache_clear()

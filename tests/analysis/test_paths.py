"""Why a block is alive and what lives by it; dominators against a plain way to find them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapglass.analysis import leaks, paths
from heapglass.analysis.dominators import immediate_dominators
from heapglass.errors import BadRequest
from heapglass.native import compiled, loops

from ..views.asked import document, lines
from .held import STACK, VARIABLES, HeldHeap
from .mangling import mangled_heap, store_mangled


@pytest.fixture(params=["python", "native"], autouse=True)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of loops, whatever this Python uses by itself."""
    made = loops if request.param == "python" else compiled.load()
    assert made is not None
    monkeypatch.setattr(leaks, "make_graph", made.make_graph)


@pytest.fixture(params=[(8, "little"), (4, "big")])
def made(request: pytest.FixtureRequest) -> HeldHeap:
    """A variable → 0 → 1 → 2 → 5, a stack → 3 → 2, 5 → 6 and 7, 7 → 6; 8 → 9 are leaked."""
    word, order = request.param
    heap = HeldHeap(12, word=word, order=order)
    heap.hold(VARIABLES + 8 * word, 0)
    heap.hold(heap.mem(0), 1)
    heap.hold(heap.mem(1) + 2 * word, 2)
    heap.hold(STACK + 0x900, 3)
    heap.hold(heap.mem(3) + word, 2, 4)  # its inside
    heap.hold(heap.mem(2), 5)
    heap.hold(heap.mem(5), 6)
    heap.hold(heap.mem(5) + word, 7)
    heap.hold(heap.mem(7), 6)
    heap.hold(heap.mem(8), 9)
    return heap


def test_the_way_from_a_root_is_a_shortest(made: HeldHeap):
    word = made.layout.word
    found = document(made.target, f"refs {made.mem(6):#x} --path")
    assert found["root"] == {
        "kind": "stack",
        "address": hex(STACK + 0x900),
        "name": "[stack]",
        "symbol": None,
        "thread": 7,
        "mangled": False,
    }
    numbers = [made.chunks.index(int(row["chunk"], 16)) for row in found["path"]]
    assert numbers == [3, 2, 5, 6]
    assert [row["offset"] for row in found["path"]] == [word, 0, 0, None]
    assert [row["usable"] for row in found["path"]] == [made.usable(n) for n in numbers]
    text = lines(made.target, f"refs {made.mem(6):#x} --path")
    assert any(line.startswith("from stack of thread 7, sp + 0x100") for line in text)


def test_a_variable_is_named_by_its_file(made: HeldHeap):
    found = document(made.target, f"refs {made.mem(1):#x} --path")
    assert (found["root"]["kind"], found["root"]["name"]) == ("global", "/program")
    assert len(found["path"]) == 2


def test_what_no_root_leads_to_has_no_way(made: HeldHeap):
    found = document(made.target, f"refs {made.mem(9):#x} --path")
    assert (found["root"], found["path"]) == (None, [])
    assert any("it is leaked" in line for line in lines(made.target, f"refs {made.mem(9)} --path"))


@pytest.mark.parametrize("word", [8, 4])
def test_mangled_pointers_are_the_way_where_there_is_no_other(word: int):
    made = mangled_heap(word)
    store_mangled(made, STACK + 0x900, made.mem(0) + 8)
    store_mangled(made, made.mem(0) + 2 * word, made.mem(1))
    made.hold(made.mem(1), 2)
    store_mangled(made, made.mem(4) + 2 * word, made.mem(5))  # 4 itself is leaked
    of = {n: document(made.target, f"refs {made.mem(n):#x} --path") for n in range(6)}
    ways = {
        n: [made.chunks.index(int(row["chunk"], 16)) for row in found["path"]]
        for n, found in of.items()
    }
    assert ways == {0: [0], 1: [1], 2: [1, 2], 3: [], 4: [], 5: []}
    roots = {n: of[n]["root"] and (of[n]["root"]["kind"], of[n]["root"]["mangled"]) for n in ways}
    assert roots == {
        0: ("stack", True),
        1: ("chunk", True),
        2: ("chunk", True),
        **dict.fromkeys((3, 4, 5)),
    }
    (row,) = of[0]["refs"]
    assert (row["kind"], row["mangled"], row["value"], row["into"]) == (
        *("stack", True),
        *(hex(made.mem(0) + 8), 8),
    )
    (row,) = of[5]["refs"]  # whoever it is that points there
    assert (row["chunk"], row["offset"], row["mangled"]) == (hex(made.chunks[4]), 2 * word, True)
    (row,) = of[2]["refs"]
    assert not row["mangled"]
    text = lines(made.target, f"refs {made.mem(0):#x}")
    assert any(line.endswith("stack of thread 7, sp + 0x100 (mangled)") for line in text)


@pytest.mark.parametrize(
    ("number", "tree"),
    [
        (0, [(0, 0), (1, 1)]),  # 2 is held by 3, too
        (1, [(0, 1)]),
        (2, [(0, 2), (1, 5), (2, 7), (2, 6)]),  # 6 is held by 5 and by 7: 5 is above both
        (8, [(0, 8), (1, 9)]),
        (10, [(0, 10)]),
    ],
)
def test_what_lives_by_a_block_alone(made: HeldHeap, number: int, tree: list[tuple[int, int]]):
    found = document(made.target, f"refs {made.mem(number):#x} --tree")
    rows = [(row["depth"], made.chunks.index(int(row["chunk"], 16))) for row in found["tree"]]
    assert sorted(rows) == sorted(tree)
    assert rows[0] == tree[0]
    below = {row[1] for row in tree}
    assert found["held"] == {
        "count": len(tree),
        "bytes": sum(made.usable(number) for number in below),
    }
    assert found["tree"][0]["bytes"] == found["held"]["bytes"]


def test_the_tree_ends_at_a_depth_and_sums_go_on(made: HeldHeap):
    found = document(made.target, f"refs {made.mem(2):#x} --tree --depth 1")["tree"]
    assert [row["depth"] for row in found] == [0, 1]
    assert found[1]["count"] == 3
    text = lines(made.target, f"refs {made.mem(2):#x} --tree")
    assert any(line.startswith(f"    {made.mem(7):#x}") for line in text)


def test_a_tree_that_would_be_too_large_is_counted(made: HeldHeap, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "MOST_IN_TREE", 2)
    found = document(made.target, f"refs {made.mem(2):#x} --tree")
    assert (found["held"]["count"], found["tree"]) == (4, None)


def test_a_free_chunk_has_neither(made: HeldHeap):
    made.link(1, [made.chunks[10]])
    for option in ("--path", "--tree"):
        with pytest.raises(BadRequest, match="is no block in use"):
            document(made.target, f"refs {made.mem(10):#x} {option}")


@given(st.data())
def test_dominators_are_those_that_every_way_goes_through(data: st.DataObject):
    count = data.draw(st.integers(1, 12))
    ends = st.lists(st.integers(0, count - 1), max_size=4)
    after = [data.draw(ends) for _ in range(count)]
    for node in range(1, count):  # all are reached
        after[data.draw(st.integers(0, node - 1))].append(node)

    order, above = immediate_dominators(after)

    def reached(without: int) -> set[int]:
        found, waiting = set[int](), [0] if without else []
        while waiting:
            node = waiting.pop()
            if node not in found and node != without:
                found.add(node)
                waiting += after[node]
        return found

    assert sorted(order) == list(range(count))
    strict = {n: {d for d in range(count) if d != n and n not in reached(d)} for n in range(count)}
    for node in range(1, count):
        nearest = max(strict[node], key=lambda one: len(strict[one]))
        assert above[node] == nearest


def test_a_long_list_is_no_matter():
    count = 20000
    after = [[n + 1, max(n - 1, 0)] if n + 1 < count else [n - 1] for n in range(count)]
    assert immediate_dominators(after)[1] == [0, *range(count - 1)]

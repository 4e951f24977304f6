"""Leaks: what is reached and what is not, on heaps made by hand, by both kinds of loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapglass.analysis import leakgroups, leaks
from heapglass.arguments import find_command, parse
from heapglass.commands import ask
from heapglass.errors import BadRequest
from heapglass.heap.target import Near
from heapglass.native import compiled, loops

from ..views.asked import document, lines
from .held import STACK, VARIABLES, HeldHeap
from .mangling import mangled_heap, store_mangled

MACHINES = pytest.mark.parametrize(
    ("word", "order"), [(8, "little"), (4, "little"), (8, "big"), (4, "big")]
)


def use(monkeypatch: pytest.MonkeyPatch, made: Any) -> None:
    """Use these loops."""
    monkeypatch.setattr(leaks, "make_graph", made.make_graph)
    monkeypatch.setattr(leakgroups, "make_graph", made.make_graph)
    monkeypatch.setattr(leakgroups, "make_kinds", made.make_kinds)


@pytest.fixture(params=["python", "native"], autouse=True)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of loops, whatever this Python uses by itself."""
    made = loops if request.param == "python" else compiled.load()
    assert made is not None
    use(monkeypatch, made)


def totals(made: HeldHeap, more: str = "") -> dict[str, tuple[int, int]]:
    found = document(made.target, f"leaks{more}")["totals"]
    return {name: (one["count"], one["bytes"]) for name, one in found.items()}


def leaked(made: HeldHeap, more: str = "") -> set[int]:
    """The numbers of the chunks that are heads or hang off one."""
    found = leaks.find_leaks(made.heap(), interior=not more)
    return {made.chunks.index(leaks.chunk_of(found.graph, row)) for row in found.leaked}


@MACHINES
def test_what_variables_stacks_and_registers_lead_to_is_no_leak(word: int, order: str):
    made = HeldHeap(word=word, order=order)
    made.hold(VARIABLES + 8 * word, 0)
    made.hold(STACK + 0x900, 1)
    made.hold(made.mem(1) + word, 2)  # a chain
    made.hold(made.mem(2), 3)
    known = made.target.threads[0]._replace(registers=(("rbx", made.mem(4)),))
    made.target.threads = [known]
    assert leaked(made) == {5, 6, 7, 8, 9, 10, 11}
    bytes_ = sum(made.usable(number) for number in range(5, 12))
    assert totals(made) == {
        "leaked": (7, bytes_),
        "unreferenced": (7, bytes_),
        "possibly": (0, 0),
    }


def test_what_lies_below_the_stack_pointer_holds_nothing():
    made = HeldHeap(4)
    made.hold(STACK + 0x7F0, 0)
    made.hold(STACK + 0x800, 1)
    assert leaked(made) == {0, 2, 3}


def test_the_allocator_s_own_pointers_and_free_chunks_hold_nothing():
    made = HeldHeap(6)
    made.hold(made.mem(1) + 0x20, 3)  # in what will be free
    made.link(1, [made.chunks[1]])  # bk and fd are in the arena, which lies in a variable of libc
    assert leaked(made) == {0, 2, 3, 4, 5}


@MACHINES
def test_a_pointer_counts_from_mem_to_the_last_usable_byte(word: int, order: str):
    made = HeldHeap(6, word=word, order=order)
    made.hold(VARIABLES, 0, -1)
    made.hold(VARIABLES + word, 1, made.usable(1) - 1)
    made.hold(VARIABLES + 2 * word, 2, made.usable(2))  # one past the end: chunk 3's size word
    made.hold(VARIABLES + 3 * word, 4)
    found = totals(made)
    assert leaked(made) == {0, 2, 3, 5}
    assert found["possibly"] == (1, made.usable(1))
    assert leaked(made, "start") == {0, 1, 2, 3, 5}
    assert totals(made, " --interior start")["possibly"] == (0, 0)


def test_the_last_word_of_a_block_is_the_next_chunk_s_prev_size_and_counts():
    made = HeldHeap(3)
    made.hold(VARIABLES, 0)
    made.hold(made.chunks[1], 1)  # the last usable word of block 0
    assert leaked(made) == {2}


def test_heads_hold_what_hangs_off_them_and_cycles_have_one():
    made = HeldHeap(12)
    made.hold(made.mem(0), 1)  # 0 → 1 → 2, and 3 → 2
    made.hold(made.mem(1), 2)
    made.hold(made.mem(3), 2)
    made.hold(made.mem(4), 5)  # 4 ⇄ 5 → 6
    made.hold(made.mem(5), 4)
    made.hold(made.mem(5) + 8, 6)
    made.hold(made.mem(7), 7)  # itself alone
    for number in range(8, 12):
        made.hold(VARIABLES + 8 * number, number)

    found = document(made.target, "leaks --all")
    heads = {int(row["user"], 16): row for row in found["heads"]}

    cycles = {made.chunks.index(mem - 16): row["cycle"] for mem, row in heads.items()}
    assert [cycles.pop(number) for number in (0, 3)] == [False, False]
    assert cycles.pop(7) is False  # no other block points to it
    assert [*cycles.values()] == [True]  # 4 or 5
    assert {*cycles} < {4, 5}
    assert heads[made.mem(0)]["count"] == 3
    assert heads[made.mem(3)]["count"] == 1  # 2 is counted with the first that leads to it
    assert sum(row["count"] for row in heads.values()) == found["totals"]["leaked"]["count"] == 8
    assert found["totals"]["unreferenced"]["count"] == 3


def test_groups_have_a_size_and_first_words_in_common():
    made = HeldHeap(8)
    for number in (0, 4):
        made.set_word(made.mem(number), VARIABLES + 0x10)  # a table in a file, say
        made.hold(made.mem(number) + 8, 1)
    found = document(made.target, "leaks")["groups"]
    first = next(group for group in found if group["words"][:1] == ["program+0x10"])
    assert (first["count"], first["usable"]) == (2, made.usable(0))
    assert first["words"] == ["program+0x10", "block"]


def test_groups_and_heads_say_the_type_as_far_as_it_is_told():
    made = HeldHeap(8)
    made.hold(VARIABLES, 7)
    made.target.symbol_at = {VARIABLES + 0x10: Near("_ZTV6Square", 16, "/program")}.get
    made.set_word(made.mem(0), VARIABLES + 0x10)
    made.memory.write(made.mem(1), b"a text")
    for one, other in ((2, 3), (3, 2)):  # next and prev, as a list has them
        made.hold(made.mem(one), other)
        made.hold(made.mem(one) + 8, other)
    made.set_word(made.mem(4), 0x1234)
    made.set_word(made.mem(7), VARIABLES + 0x20)
    found = document(made.target, "leaks --all")
    types = {int(group["example"], 16): (group["type"], group["how"]) for group in found["groups"]}
    assert types[made.mem(0)] == ("Square", "vtable")
    assert types[made.mem(1)] == ("text", "bytes")
    assert types[made.mem(2)] == types[made.mem(3)] == ("list node", "shape")
    assert types[made.mem(4)] == (None, None)
    heads = {int(head["user"], 16): head["type"] for head in found["heads"]}
    assert heads[made.mem(0)] == "Square"
    assert made.mem(7) not in {*types, *heads}


# --- mangled pointers -----------------------------------------------------------------------------


@pytest.mark.parametrize("word", [8, 4])
def test_mangled_pointers_hold_blocks_where_what_they_stand_in_is_reached(word: int):
    made = mangled_heap(word)
    store_mangled(made, STACK + 0x900, made.mem(0))
    store_mangled(made, made.mem(0) + 2 * word, made.mem(1) + 8)
    store_mangled(made, made.mem(1) + 2 * word, made.mem(2))
    store_mangled(made, made.mem(4) + 2 * word, made.mem(5))  # 4 itself is leaked
    found = document(made.target, "leaks")
    assert leaked(made) == {3, 4, 5, 6, 7}
    assert found["totals"]["possibly"]["count"] == 2  # 1, and 2 because of it
    assert found["mangled"] == "followed"
    assert any("control block of thread 7" in line for line in lines(made.target, "leaks"))


def test_without_the_key_it_is_said_that_mangled_pointers_are_not_followed():
    made = mangled_heap(8)
    store_mangled(made, STACK + 0x900, made.mem(0))
    made.target.threads = [made.target.threads[0]._replace(tp=None)]
    assert 0 in leaked(made)
    assert document(made.target, "leaks")["mangled"] == "not followed"


def test_with_32_bits_a_word_counts_only_before_an_address_in_code():
    made = mangled_heap(4)
    store_mangled(made, STACK + 0x900, made.mem(0))
    made.set_word(STACK + 0x904, 0x1234)
    assert 0 in leaked(made)


# --- rules ----------------------------------------------------------------------------------------


def ruled(made: HeldHeap, folder: Path, *rules: str) -> Any:
    """What `leaks` says with these rules."""
    (folder / "rules").write_text("\n".join(rules) + "\n")
    return document(made.target, f"leaks --all --fail --suppress {folder / 'rules'}")


def named() -> HeldHeap:
    """0, a Square, leads to 1 and that to 2; 3 is text; 4 leads into /program; 5 is anything."""
    made = HeldHeap(6)
    made.target.symbol_at = {
        VARIABLES + 0x10: Near("_ZTVN4geom6SquareE", 16, "/program"),
        VARIABLES + 0x20: Near("handlers", 0, "/program"),
    }.get
    made.set_word(made.mem(0), VARIABLES + 0x10)
    made.hold(made.mem(0) + 16, 1)
    made.hold(made.mem(1), 2)
    made.memory.write(made.mem(3), b"a text")
    made.set_word(made.mem(4), VARIABLES + 0x20)
    made.set_word(made.mem(5), 0x1234)
    return made


@pytest.mark.parametrize(
    ("rule", "taken"),
    [
        ("leak:Square", {0, 1, 2}),
        ("leak:square", set()),
        ("leak:^geom::Square$", {0, 1, 2}),
        ("leak:^Square", set()),
        ("leak:geom$", set()),
        ("leak:^geom*uare", {0, 1, 2}),
        ("leak:g*S**e", {0, 1, 2}),
        ("leak:^text$", {3}),
        ("leak:handlers", {4}),
        ("leak:program", {0, 1, 2, 4}),
        ("leak:geom.:Square", set()),
        ("leak:[a-z]", set()),
    ],
)
def test_a_rule_matches_a_part_of_a_name_as_in_leaksanitizer(
    rule: str, taken: set[int], tmp_path: Path
):
    made = named()
    found = ruled(made, tmp_path, "# what is known", "", f"  {rule}  ")
    usable = [made.usable(number) for number in range(6)]
    suppressed = {"count": len(taken), "bytes": sum(usable[number] for number in taken)}
    assert found["totals"]["suppressed"] == suppressed
    assert found["totals"]["leaked"]["count"] == 6 - len(taken)
    assert sum(group["count"] for group in found["groups"]) == 6 - len(taken)
    heads = {made.chunks.index(int(head["address"], 16)) for head in found["heads"]}
    assert heads == {0, 3, 4, 5} - taken
    assert found["suppressed"] == ([{**suppressed, "rule": rule}] if taken else [])


def test_fail_looks_at_what_no_rule_takes(tmp_path: Path):
    made = named()
    status = []
    for rules in ("leak:Square", "leak:Square\nleak:text\nleak:program\nleak:nothing"):
        (tmp_path / "rules").write_text(rules)
        made.hold(VARIABLES + 8, 5)
        request = parse(find_command("leaks"), ["--fail", "--suppress", str(tmp_path / "rules")])
        status.append(ask(find_command("leaks"), made.target, request).status)
    assert status == [1, 0]
    assert "suppressed" not in document(made.target, "leaks")["totals"]


def test_possibly_lost_blocks_are_suppressed_too(tmp_path: Path):
    made = named()
    made.hold(VARIABLES, 3, 8)
    assert document(made.target, "leaks")["totals"]["possibly"]["count"] == 1
    found = ruled(made, tmp_path, "leak:text")
    assert found["totals"]["possibly"]["count"] == 0
    assert found["totals"]["suppressed"]["count"] == 1


@pytest.mark.parametrize("line", ["race:x", "leak", "leak:", "leak:^*$", "Square"])
def test_a_line_that_is_no_rule_is_named(line: str, tmp_path: Path):
    with pytest.raises(BadRequest, match=r"rules, line 2: .* is no rule"):
        ruled(named(), tmp_path, "leak:x", line)


def test_a_file_of_rules_that_cannot_be_read_is_said(tmp_path: Path):
    with pytest.raises(BadRequest, match="No such file"):
        document(named().target, f"leaks --suppress {tmp_path / 'none'}")
    with pytest.raises(BadRequest, match="no rules"):
        ruled(named(), tmp_path, "#" * (2 << 20))


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("", "secret\\x1b[2J\\xff01234"),
        ("none", None),
        ("full", "secret\\x1b[2J\\xff0123456789end"),
    ],
)
def test_content_is_shown_as_far_as_it_may_be_and_escaped(option: str, shown: str | None):
    made = HeldHeap(1)
    made.memory.write(made.mem(0), b"secret\x1b[2J\xff0123456789end")
    more = f" --content {option}" if option else ""
    (group,) = document(made.target, f"leaks{more}")["groups"]
    assert group["content"] == shown
    assert "\x1b" not in "".join(lines(made.target, f"leaks{more}"))
    assert ("secret" in "".join(lines(made.target, f"leaks{more}"))) == (option != "none")


def test_a_damaged_size_costs_no_leak_elsewhere_and_what_it_covers_is_a_root():
    made = HeldHeap(90)
    made.set_word(made.chunks[40] + 8, 0x4141414141414141)
    made.hold(made.mem(40), 60)  # in the stretch that nothing is known of
    for number in range(90):
        if number not in (40, 60, 70):
            made.hold(VARIABLES + 8 * number, number)
    assert leaked(made) == {70}


@given(st.data())
def test_both_loops_agree_on_any_bytes(data: st.DataObject):
    word, order = data.draw(st.sampled_from([(8, "little"), (4, "big")]))
    made = HeldHeap(8, word=word, order=order)
    places = [*range(made.chunks[0], made.top, word), *range(VARIABLES, VARIABLES + 64, word)]
    values = st.one_of(
        st.sampled_from([0, 0x21, 0x41, 0x52, 1 << 31, (1 << 8 * word) - 1]),
        st.integers(made.chunks[0] - 8, made.top + 32),
    )
    for at, value in data.draw(st.lists(st.tuples(st.sampled_from(places), values), max_size=40)):
        made.set_word(at, value)
    answers = []
    for these in (loops, compiled.load()):
        assert these is not None
        use(pytest.MonkeyPatch(), these)
        found = leaks.find_leaks(made.heap())
        heads = [
            (leaks.chunk_of(found.graph, head.row), head.cycle, head.held) for head in found.heads
        ]
        answers.append((found.leaked.tolist(), found.possibly.tolist(), found.totals, heads))
    assert answers[0] == answers[1]

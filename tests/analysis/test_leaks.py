"""Leaks: what is reached and what is not, on heaps made by hand, by both kinds of loops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapglass.analysis import leaks
from heapglass.native import compiled, loops

from ..views.asked import document, lines
from .held import STACK, VARIABLES, HeldHeap

MACHINES = pytest.mark.parametrize(
    ("word", "order"), [(8, "little"), (4, "little"), (8, "big"), (4, "big")]
)


@pytest.fixture(params=["python", "native"], autouse=True)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of loops, whatever this Python uses by itself."""
    made = loops if request.param == "python" else compiled.load()
    assert made is not None
    monkeypatch.setattr(leaks, "make_graph", made.make_graph)


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
        leaks.make_graph = these.make_graph  # type: ignore[attr-defined]
        found = leaks.find_leaks(made.heap())
        heads = [
            (leaks.chunk_of(found.graph, head.row), head.cycle, head.held) for head in found.heads
        ]
        answers.append((found.leaked.tolist(), found.possibly.tolist(), found.totals, heads))
    assert answers[0] == answers[1]

"""A destroyed size costs one stretch: the walk finds its footing again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapglass.heap.columns import CHAIN, CORRUPT, Columns, Walker
from heapglass.heap.footing import walk_through
from heapglass.heap.words import Words

from .made import BASE, PAGES, MadeHeap

MACHINES = pytest.mark.parametrize(("word", "order"), [(8, "little"), (4, "big")])
SIZES = [0x41, 0x91, 0x31, 0x61] * 30


def states(made: MadeHeap) -> dict[int, str | None]:
    return {chunk.address: chunk.state for chunk in made.heap().every_chunk()}


def fill(made: MadeHeap, value: int) -> None:
    """Write *value* over every block, as a program's data."""
    ends = [*made.chunks[1:], made.top]
    for chunk, end in zip(made.chunks, ends):
        for at in range(chunk + made.layout.header, end, made.layout.word):
            made.set_word(at, value)


def test_the_walk_of_a_sound_heap_has_no_gaps():
    made = MadeHeap(SIZES)
    assert all(not segment.columns.gaps for segment in made.heap().segments)
    assert [*states(made)] == [*made.chunks, made.top]


@MACHINES
@pytest.mark.parametrize("size", [0, 1, 0x41414141, 0xFFFFFFF1, 0x2008])
@pytest.mark.parametrize("data", [0, 0x41414141, 0x23, 0x12345671])
def test_a_size_that_cannot_be_costs_its_chunk(word: int, order: str, size: int, data: int):
    made = MadeHeap(SIZES, word=word, order=order)
    fill(made, data)
    hit = made.chunks[41]
    made.set_word(hit + word, size)

    found, heap = states(made), made.heap()

    assert found.pop(hit) == "corrupt"
    assert {*made.chunks, made.top} - {hit} <= {*found}
    # What is more than was there are chunks that the data of the damaged one might be.
    assert all(hit < chunk < made.chunks[42] for chunk in {*found} - {*made.chunks, made.top})
    (gap,) = heap.segments[0].columns.gaps
    assert gap.start == hit
    assert gap.by_chain
    assert any(f"{hit:#x}" in said and "lie behind each other" in said for said in heap.problems)


@MACHINES
def test_a_size_that_leads_into_the_data_of_another_chunk_is_found_out(word: int, order: str):
    made = MadeHeap(SIZES, word=word, order=order)
    fill(made, 0)
    hit, lost = made.chunks[41], made.chunks[42:44]
    made.set_word(hit + word, made.chunks[43] + 0x20 - hit | 1)  # was 0x90: over the next two

    found, heap = states(made), made.heap()

    assert found[hit] == "corrupt"
    assert [*found] == [*made.chunks, made.top]
    assert found[lost[0]] == "used"
    (gap,) = heap.segments[0].columns.gaps
    assert (gap.start, gap.end) == (hit, lost[0])
    assert "leads to" in gap.reason


def test_each_of_many_destroyed_sizes_costs_its_own_stretch():
    made = MadeHeap([0x41] * 400)
    hits = made.chunks[5::90]
    for hit in hits:
        made.set_word(hit + 8, 0x4242424242424242)

    found = states(made)

    assert {chunk for chunk, state in found.items() if state == "corrupt"} == {*hits}
    assert [*found] == [*made.chunks, made.top]


def test_a_thread_s_chunks_may_have_the_arena_bit_and_the_main_arena_s_may_not():
    made = MadeHeap([0x45] * 200)
    words = Words(made.memory, made.layout)
    made.set_word(made.chunks[100] + 8, 0)
    for main, lost in ((False, 0), (True, 99)):
        columns = Columns()
        walker = Walker(words, made.start, BASE + PAGES)
        walk_through(walker, columns, made.start, made.top, [], main=main)
        assert len(columns) == 200 - lost
        assert columns.states[100] == CORRUPT


def test_a_chain_whose_free_chunk_has_another_size_at_its_foot_is_none():
    made = MadeHeap([0x41] * 100)
    made.set_word(made.chunks[10] + 8, 0)
    made.set_size(made.chunks[12], 0x40)  # free before it, and no prev_size says 0x40

    found = made.heap().segments[0].columns

    assert found.gaps[0].start == made.chunks[10]
    assert found.gaps[0].end == made.chunks[12]


def test_few_chunks_that_lead_nowhere_are_no_chain():
    made = MadeHeap([0x41] * (CHAIN + 8))
    made.set_word(made.chunks[3] + 8, 0)
    made.set_word(made.chunks[-1] + 8, 0x13)  # no chain reaches top

    found = made.heap().segments[0].columns

    assert [gap.start for gap in found.gaps] == [made.chunks[3], made.chunks[-1]]
    made.set_word(made.chunks[10] + 8, 0)  # too few are left behind it, and they end nowhere
    found = made.heap().segments[0].columns
    assert [gap[:2] for gap in found.gaps] == [(made.chunks[3], made.top)]


@given(st.lists(st.sampled_from([0, 1, 0x20, 0x21, 0x25, 0x31, 0x91, 0x1001, 1 << 40]), min_size=1))
def test_any_bytes_are_walked_to_the_end_and_rows_go_up(values: list[int]):
    made = MadeHeap([0x1001, 0x1001])
    for number, value in enumerate(values):
        made.set_word(made.start + 8 * number + 8, value)

    for segment in made.heap().segments:
        rows = segment.columns.addresses.tolist()
        assert rows == sorted({*rows})
        assert all(gap.start < gap.end for gap in segment.columns.gaps)

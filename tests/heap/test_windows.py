"""A heap that is larger than there is room for is worked through in windows, with one answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapglass.analysis.check import check_heap
from heapglass.analysis.search import find_pointers
from heapglass.heap import words
from heapglass.heap.heap import Heap
from heapglass.memory import Memory

from .made import BASE, PAGES, MadeHeap

SIZES = [0x41, 0x91, 0x31, 0x401, 0x61] * 20
WINDOW = 0x100


class Narrow:
    """Memory with room for a few windows, which knows the largest piece that it was asked for."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.read, self.regions = memory.read, memory.regions
        self.largest = 0

    def view(self, start: int, end: int) -> memoryview:
        """Return a piece."""
        self.largest = max(self.largest, end - start)
        return self._memory.view(start, end)

    def at_once(self) -> int:
        """Return how many bytes there is room for."""
        return 4 * WINDOW


@pytest.fixture(autouse=True, scope="module")
def least_window() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "LEAST_WINDOW", WINDOW)
        yield


def told(heap: Heap, outlined: bool) -> list[object]:
    """Return all that a walk, a search and the checks say of a heap."""
    said: list[object] = []
    for segment in heap.outlined if outlined else heap.segments:
        columns = segment.columns
        said += [segment.start, segment.first, segment.end, segment.top, columns.gaps]
        if not outlined:
            said += [columns.addresses, columns.sizes, columns.states]
    hits = list(find_pointers(heap, BASE, BASE + PAGES))
    return [*said, heap.problems, hits, [] if outlined else check_heap(heap).findings]


def both(made: MadeHeap) -> int:
    """Compare a heap in windows with the whole; return the largest piece that was asked for."""
    narrow = Narrow(made.memory)
    for outlined in (True, False):
        whole = told(made.heap(), outlined)
        in_windows = told(Heap(replace(made.target, memory=narrow, warnings=[])), outlined)
        assert in_windows == whole
    return narrow.largest


@pytest.mark.parametrize(("word", "order"), [(8, "little"), (4, "little"), (4, "big")])
def test_no_more_than_a_window_is_read_of_a_sound_heap(word: int, order: str):
    made = MadeHeap(SIZES, word=word, order=order)
    made.link(2, [made.chunks[40], made.chunks[46]])
    made.set_word(made.chunks[7] + 4 * word, made.chunks[12])
    assert WINDOW <= both(made) < 2 * WINDOW


def test_the_foot_of_a_free_chunk_may_be_in_another_window():
    made = MadeHeap(SIZES)
    large = [chunk for chunk in made.chunks if made.word(chunk + 8) == 0x401]
    made.link(2, [large[3], large[7]])
    made.set_word(large[3] + 0x400, 0x3F0)
    assert both(made) < 2 * WINDOW
    assert any(finding.rule == "prev-size" for finding in check_heap(made.heap()).findings)


def test_fenceposts_may_be_at_the_end_of_a_window():
    made = MadeHeap([0x81, 0x71, 0x11, 0x11, *SIZES])
    assert made.chunks[2] + 16 == BASE + WINDOW
    both(made)
    assert [segment.end for segment in made.heap().segments] == [made.chunks[4], BASE + PAGES]


def test_a_filled_block_may_end_at_the_end_of_a_window():
    made = MadeHeap([0x81, 0x81, 0x41, 0x41, 0x41, 0x41, *SIZES])
    assert made.chunks[2] == BASE + WINDOW
    for offset in (-8, 0, 8):
        made.set_word(made.chunks[2] + offset, 0x101)
    both(made)
    assert [finding.address for finding in check_heap(made.heap()).findings] == [made.chunks[2]]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.integers(0, PAGES // 8 - 1),
            st.sampled_from([0, 1, 0x10, 0x20, 0x21, 0x25, 0x31, 0x90, 0x1001, 1 << 40, BASE + 64]),
        )
    ),
    st.lists(st.integers(0, 99), max_size=4, unique=True),
)
def test_any_bytes(values: list[tuple[int, int]], linked: Sequence[int]):
    made = MadeHeap(SIZES)
    made.link(2, [made.chunks[number] for number in linked])
    for number, value in values:
        made.set_word(BASE + 8 * number, value)
    both(made)

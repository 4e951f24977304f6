"""An outline of few rows answers what the columns of all rows answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapglass.heap import columns, heap
from heapglass.heap.heap import Heap
from heapglass.heap.target import HeapThread

from .made import ARENA, PAGES, MadeHeap

SIZES = [0x41, 0x91, 0x31, 0x61] * 30
BLIND = [HeapThread(7, tcache_state="unknown", arena=ARENA, arena_known=True)]


def compare(made: MadeHeap) -> Heap:
    """Ask both of every word, and for what they say is wrong; return the one with the outline."""
    whole, few = made.heap(), made.heap()
    assert whole.segments
    for address in range(made.start - 32, made.start + PAGES, 8):
        place = whole.find(address)
        assert few.holding(address) == (None if place is None else whole.chunk_at(*place))
    assert few.problems == whole.problems
    assert "segments" not in few.__dict__
    kinds = [(s.start, s.first, s.end, s.top, s.columns.gaps) for s in whole.segments]
    assert kinds == [(s.start, s.first, s.end, s.top, s.columns.gaps) for s in few.outlined]
    return few


@pytest.fixture(params=[0x80, 1 << 16])
def stretch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How far landmarks are apart."""
    for module in (columns, heap):
        monkeypatch.setattr(module, "STRETCH", request.param)
    return int(request.param)


@pytest.mark.parametrize(("word", "order"), [(8, "little"), (4, "big")])
@pytest.mark.parametrize("threads", [None, BLIND])
def test_a_sound_heap(word: int, order: str, threads: list[HeapThread] | None, stretch: int):
    made = MadeHeap(SIZES, word=word, order=order, threads=threads)
    made.link(2, [made.chunks[40], made.chunks[44]])

    few = compare(made)

    assert (len(few.outlined[0].columns) < len(SIZES) // 2) == (stretch > 0x80)
    assert made.heap().holding(made.chunks[90] + 0x18).address == made.chunks[90]  # type: ignore[union-attr]


def test_rows_are_those_of_all_where_these_are_known():
    made = MadeHeap(SIZES)
    heap = made.heap()
    assert heap.outlined is not heap.segments
    assert heap.outlined is heap.segments
    assert len(heap.outlined[0].columns) == len(SIZES) + 1


@pytest.mark.parametrize("size", [0, 1, 0x41414141, 0xFFFFFFF1, 0x2008, 0x81])
def test_damage(size: int, stretch: int):
    made = MadeHeap(SIZES)
    made.set_word(made.chunks[41] + 8, size)
    made.set_word(made.chunks[90] + 8, size)
    assert compare(made).problems or size == 0x81


def test_lists_that_lead_to_no_chunk_or_to_one_in_use(stretch: int):
    made = MadeHeap(SIZES)
    inside, used = made.chunks[41] + 0x30, made.chunks[80]
    made.set_word(inside + 8, 0x21)
    made.link(2, [made.chunks[20], inside, used])
    made.set_size(made.chunks[81], made.word(made.chunks[81] + 8) | 1)
    made.set_size(made.chunks[101], made.word(made.chunks[101] + 8) & ~1)  # free, in no bin
    problems = "\n".join(compare(made).problems)
    assert "not where a chunk begins" in problems
    assert "in use by the next chunk's P" in problems
    assert "in no bin" in problems


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 800),
            st.sampled_from([0, 1, 0x10, 0x20, 0x21, 0x25, 0x31, 0x90, 0x1001, 1 << 40]),
        )
    ),
    st.lists(st.integers(0, 119), max_size=4, unique=True),
    st.booleans(),
)
def test_any_bytes(words: list[tuple[int, int]], linked: list[int], blind: bool):
    made = MadeHeap(SIZES, threads=BLIND if blind else None)
    made.link(2, [made.chunks[number] for number in linked])
    for number, value in words:
        made.set_word(made.start + 8 * number, value)
    compare(made)

"""Ranges that claim more than there is, and words that stand askew."""

from __future__ import annotations

import pytest

from heapglass.analysis.search import find_bytes
from heapglass.heap.columns import Columns, Walker
from heapglass.heap.footing import walk_through
from heapglass.heap.words import Words
from heapglass.memory import ByteMemory, Region

from .made import BASE, PAGES, MadeHeap

HUGE = 1 << 62


def sparse(*pieces: tuple[int, bytes], sizes: int = HUGE) -> Words:
    """Memory whose regions go on far behind what can be read."""
    regions = [Region(start, start + sizes) for start, _ in pieces]
    return Words(ByteMemory(dict(pieces), regions), MadeHeap([]).layout)


def test_blocks_go_from_what_can_be_read_to_the_next_region():
    words = sparse((0x1000, b"a" * 8192), (1 << 63, b"b" * 8192))

    found = [(base, bytes(view)) for base, view in words.blocks(0, 1 << 64, 1 << 14, 8)]

    assert [(base, data[:1]) for base, data in found] == [(0x1000, b"a"), (1 << 63, b"b")]


def test_a_search_ends_though_the_heap_says_to_be_endless(monkeypatch: pytest.MonkeyPatch):
    made = MadeHeap([0x21, 0x21])
    heap = made.heap()
    monkeypatch.setattr("heapglass.analysis.search._ranges", lambda _: [(BASE, BASE + HUGE)])

    size_word = (0x21).to_bytes(8, "little")
    assert [hit.address for hit in find_bytes(heap, size_word, 8)] == [BASE + 8, BASE + 0x28]


def test_the_next_header_is_found_over_zeros_and_gaps():
    data = bytearray(1 << 20)
    data[0x80008:0x80010] = (0x31).to_bytes(8, "little")
    far = bytes(8) + (0x41).to_bytes(8, "little") + bytes(4080)
    words = sparse((BASE, bytes(data)), (BASE + (1 << 40), far), sizes=1 << 30)
    walker = Walker(words, BASE, BASE + (1 << 41))

    first = walker.next_header(BASE, BASE + (1 << 41))
    second = walker.next_header(first + 16, BASE + (1 << 41))

    assert (first, second) == (BASE + 0x80000, BASE + (1 << 40))
    assert walker.next_header(second + 16, BASE + (1 << 41)) == BASE + (1 << 41)
    assert walker.next_header(BASE, BASE + 0x1000) == BASE + 0x1000


def test_a_segment_that_starts_askew_is_walked_by_whole_words():
    size_words = (0x21).to_bytes(8, "little") + bytes(24)
    words = sparse((BASE + 5, bytes(3 + 8) + size_words * 4), sizes=0x100)
    walker = Walker(words, BASE, BASE + 0x100)
    columns = Columns()

    stop = walk_through(walker, columns, BASE, BASE + 0x100, [BASE + 8])

    assert stop.address >= BASE + 8
    assert all(address % 8 == 0 for address in columns.addresses)


@pytest.mark.parametrize("askew", [1, 3, 5, 7])
def test_a_list_that_leads_askew_gives_no_anchor(askew: int):
    made = MadeHeap([0x111, 0x31, 0x111, 0x31])
    made.link(1, [made.chunks[0], made.chunks[2]])
    made.set_word(made.chunks[0] + 16, made.chunks[2] + askew)
    made.set_size(made.chunks[1], PAGES * 2 | 1)

    heap = made.heap()

    assert len(list(heap.every_chunk())) > 1
    assert all(anchor % 8 == 0 for anchor in heap.anchors)

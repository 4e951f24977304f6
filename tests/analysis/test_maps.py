"""The segments in cells, and the pages that a little in use keeps."""

from __future__ import annotations

import pytest

from heapglass.analysis import maps
from heapglass.analysis.maps import draw
from heapglass.heap.heap import Heap

from ..heap.made import MadeHeap

PAGE = 0x1000
LITTLE, MUCH, OVER = 0x201, 0xD01, 0x1211


def made() -> MadeHeap:
    """Blocks in use with free ones between; two of them go over a page."""
    heap = MadeHeap([LITTLE, MUCH, 0x100] * 4 + [OVER, 0x901, OVER - 1, 0x801])
    free = [*heap.chunks[1:12:3], heap.chunks[13]]
    for chunk in free:
        size = MUCH if chunk != free[-1] else 0x901
        heap.set_word(chunk + (size & ~7), size & ~7)
    heap.link(1, free)
    return heap


def by_hand(heap: Heap) -> int:
    """Pages of little use, from the bytes of each, one by one."""
    found = 0
    for segment in heap.segments:
        used: dict[int, int] = {}
        idle: dict[int, int] = {}
        columns = segment.columns
        for start, size, state in zip(columns.addresses, columns.sizes, columns.states):
            table = {maps.USED: used, maps.FREE: idle, maps.TCACHE: idle, maps.FAST: idle}.get(
                state
            )
            for at in range(start, start + (size & ~7), 16):
                if table is not None:
                    table[at // PAGE] = table.get(at // PAGE, 0) + 16
        found += sum(
            1 for page, size in used.items() if size < PAGE // 4 and idle.get(page, 0) >= PAGE // 2
        )
    return found


@pytest.mark.parametrize("pages", [1, 2, 3, 7, 1 << 16])
def test_pinned_pages_do_not_depend_on_how_many_are_looked_at_at_once(
    pages: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(maps, "PAGES_AT_ONCE", pages)
    heap = Heap(made().target)
    (strip,) = draw(heap, 64)
    assert strip.pinned_pages == by_hand(heap) > 3

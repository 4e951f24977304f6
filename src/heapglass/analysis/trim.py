"""What malloc_trim (0) would give back: whole pages of free chunks, and the end of the top."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..glibc.layout import SIZE_BITS
from ..heap.columns import FAST, FREE, TOP
from ..heap.heap import Heap
from ..heap.segments import Segment
from ..native import find_runs


class Stretch(NamedTuple):
    """Bytes that would go back to the system."""

    start: int
    end: int
    from_top: bool  # by brk; else the pages stay mapped, and are given back by madvise

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


def trimmed(heap: Heap) -> Iterator[Stretch]:
    """Yield what malloc_trim (0) would give back now, by segment.

    glibc's mtrim, since 2.8 for all arenas: fastbins are merged first; of each free chunk larger
    than a page and its header the whole pages behind a struct malloc_chunk; then systrim cuts the
    main heap's top, less MINSIZE and a byte, to whole pages, if the break is still where top ends.
    """
    for segment in heap.segments:
        yield from _of_segment(heap, segment)


def _of_segment(heap: Heap, segment: Segment) -> Iterator[Stretch]:
    columns, page, word = segment.columns, heap.page_size, heap.words.size
    head = 6 * word  # struct malloc_chunk
    runs, _ = find_runs(columns.addresses, columns.sizes, columns.states, (FREE, FAST), page + head)
    top = segment.top
    for first, last in runs:
        start = columns.addresses[first]
        end = columns.addresses[last] + (columns.sizes[last] & ~SIZE_BITS)
        if end == segment.top and FAST in columns.states[first : last + 1]:
            top = start  # merging the fastbins makes it a part of the top
            continue
        if end - start > page - 1 + head:
            low = start + head + page - 1 & -page
            if end - low > page - 1:
                yield Stretch(low, low + (end - low & -page), False)
    if top is not None:
        yield from _of_top(heap, segment, top)


def _of_top(heap: Heap, segment: Segment, top: int) -> Iterator[Stretch]:
    columns, page = segment.columns, heap.page_size
    main = heap.arenas[0]
    if segment.arena != main.address or segment.kind != "brk" or not len(columns):
        return
    if columns.states[-1] != TOP:
        return
    end = columns.addresses[-1] + (columns.sizes[-1] & ~SIZE_BITS)
    spare = end - top - heap.layout.min_chunk - 1
    huge = heap.params.get("thp_pagesize") or page  # since 2.35, where glibc.malloc.hugetlb asks
    extra = spare & -huge if spare > 0 else 0
    if extra and end == _break(heap, end):
        yield Stretch(end - extra, end, True)


def _break(heap: Heap, end: int) -> int:
    """Return where the break is, as far as the mappings tell: where the one that top is in ends."""
    for region in heap.target.memory.regions():
        if region.start < end <= region.end:
            return region.end
    return end

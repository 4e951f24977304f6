"""The segments to scale: what fills each piece of them, and what malloc_trim would give back."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from ..glibc.layout import SIZE_BITS
from ..heap.columns import CORRUPT, FAST, FENCEPOST, FREE, MMAPPED, TCACHE, TOP, UNKNOWN, USED
from ..heap.heap import Heap
from ..heap.segments import Segment
from ..native import Cells, add_cells
from .trim import Stretch, trimmed

IN_USE, CACHED, SPARE, IN_TOP, NOT_KNOWN = CLASSES = range(5)
CLASS_NAMES = ("used", "cached", "free", "top", "unknown")
_CLASS_OF = {
    USED: IN_USE,
    FREE: SPARE,
    TCACHE: CACHED,
    FAST: CACHED,
    TOP: IN_TOP,
    MMAPPED: IN_USE,
    FENCEPOST: NOT_KNOWN,
    CORRUPT: NOT_KNOWN,
    UNKNOWN: NOT_KNOWN,
}
_CLASSES = [_CLASS_OF[state] for state in range(len(_CLASS_OF))]
LEAST_UNIT = 64  # bytes of a cell
PAGES_AT_ONCE = 1 << 16
LAST = (1 << 64) - 1


@dataclass(frozen=True)
class Cell:
    """A piece of a segment."""

    start: int
    bytes: tuple[int, ...]  # by class
    trim: int  # bytes of it that malloc_trim would give back

    @property
    def pinned(self) -> bool:
        """Whether a little that is in use keeps the rest of it from the system."""
        rest = sum(self.bytes) - self.bytes[IN_USE]
        return 0 < self.bytes[IN_USE] < rest


@dataclass(frozen=True)
class Strip:
    """A segment in cells."""

    segment: Segment
    unit: int  # bytes of a cell
    cells: tuple[Cell, ...]
    trim: tuple[Stretch, ...]
    pinned_pages: int  # pages that are held by less than a quarter of a page in use

    @property
    def trim_bytes(self) -> int:
        """Bytes that malloc_trim would give back."""
        return sum(stretch.size for stretch in self.trim)


def draw(heap: Heap, most: int, arena: int | None = None) -> Iterator[Strip]:
    """Yield each segment in at most so many cells, each a power of two of bytes."""
    stretches = list(trimmed(heap))
    for segment in heap.segments:
        if arena is not None and segment.arena != arena:
            continue
        inside = tuple(s for s in stretches if segment.start <= s.start < segment.end)
        unit = LEAST_UNIT
        while segment.size > unit * most:
            unit *= 2
        base = segment.start & -unit if unit >= heap.page_size else segment.start
        number = -(-(segment.end - base) // unit)
        sums = _sums(segment, Cells(base, unit, number))
        trims = _trims(inside, Cells(base, unit, number))
        cells = tuple(
            Cell(base + at * unit, tuple(one), trim)
            for at, (one, trim) in enumerate(zip(sums, trims))
        )
        yield Strip(segment, unit, cells, inside, _pinned_pages(heap, segment))


def _sums(segment: Segment, cells: Cells) -> Iterator[list[int]]:
    columns, kinds = segment.columns, len(CLASS_NAMES)
    flat = add_cells(columns.addresses, columns.sizes, columns.states, cells, _CLASSES)
    for at in range(0, len(flat), kinds):
        yield flat[at : at + kinds].tolist()


def _trims(stretches: tuple[Stretch, ...], cells: Cells) -> list[int]:
    """Return how many bytes of each cell malloc_trim would give back."""
    found = [0] * cells.number
    for stretch in stretches:
        first = (stretch.start - cells.base) // cells.unit
        past = -(-(stretch.end - cells.base) // cells.unit)
        for at in range(max(first, 0), min(past, cells.number)):
            start = cells.base + at * cells.unit
            found[at] += min(stretch.end, start + cells.unit) - max(stretch.start, start)
    return found


def _pinned_pages(heap: Heap, segment: Segment) -> int:
    """Count the pages that less than a quarter in use keeps: the rest is free or cached."""
    page, found = heap.page_size, 0
    for flat in _pages(segment, page):
        kinds = len(CLASS_NAMES)
        used, cached, spare = (flat[kind::kinds] for kind in (IN_USE, CACHED, SPARE))
        found += sum(
            1 for u, c, s in zip(used, cached, spare) if 0 < u < page // 4 and c + s >= page // 2
        )
    return found


def _pages(segment: Segment, page: int) -> Iterator[array[int]]:
    """Yield the bytes by class of pages, some at a time.

    A chunk may claim any size: of one that goes on behind a window, the next begins with its end.
    """
    columns, row, start = segment.columns, 0, 0
    while row < len(columns):
        start = max(start, columns.addresses[row] & -page)
        past = bisect_left(columns.addresses, start + PAGES_AT_ONCE * page, row)
        end = min(columns.addresses[past - 1] + (columns.sizes[past - 1] & ~SIZE_BITS), LAST)
        number = min(-(-(end - start) // page), PAGES_AT_ONCE)
        rows = slice(row, past)
        yield add_cells(
            *(columns.addresses[rows], columns.sizes[rows], columns.states[rows]),
            *(Cells(start, page, number), _CLASSES),
        )
        row = past if end <= start + number * page else past - 1
        start = end & -page

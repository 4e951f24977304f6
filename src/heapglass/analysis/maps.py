"""The segments to scale: what fills each piece of them, and what malloc_trim would give back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
LEAST_UNIT = 64  # bytes of a cell


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
        cells = tuple(
            Cell(base + at * unit, tuple(one), _overlap(inside, base + at * unit, unit))
            for at, one in enumerate(sums)
        )
        yield Strip(segment, unit, cells, inside, _pinned_pages(heap, segment))


def _sums(segment: Segment, cells: Cells) -> Iterator[list[int]]:
    columns, kinds = segment.columns, len(CLASS_NAMES)
    classes = [_CLASS_OF[state] for state in range(len(_CLASS_OF))]
    flat = add_cells(columns.addresses, columns.sizes, columns.states, cells, classes)
    for at in range(0, len(flat), kinds):
        yield flat[at : at + kinds].tolist()


def _overlap(stretches: tuple[Stretch, ...], start: int, size: int) -> int:
    found = 0
    for stretch in stretches:
        found += max(min(stretch.end, start + size) - max(stretch.start, start), 0)
    return found


def _pinned_pages(heap: Heap, segment: Segment) -> int:
    """Count the pages that less than a quarter in use keeps: the rest is free or cached."""
    page = heap.page_size
    first = segment.start & -page
    number = -(-(segment.end - first) // page)
    columns = segment.columns
    classes = [_CLASS_OF[state] for state in range(len(_CLASS_OF))]
    cells = Cells(first, page, number)
    flat = add_cells(columns.addresses, columns.sizes, columns.states, cells, classes)
    kinds = len(CLASS_NAMES)
    used, cached, spare = (flat[kind::kinds] for kind in (IN_USE, CACHED, SPARE))
    return sum(
        1 for u, c, s in zip(used, cached, spare) if 0 < u < page // 4 and c + s >= page // 2
    )

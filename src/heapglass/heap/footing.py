"""A walk over what makes no sense: one destroyed size costs one stretch, not the heap."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from ..glibc.layout import IS_MMAPPED, NON_MAIN_ARENA, SIZE_BITS
from .columns import CORRUPT, Columns, Gap, Stop, Walker


def walk_through(
    walker: Walker,
    columns: Columns,
    start: int,
    end: int,
    anchors: Sequence[int],
    main: bool = True,
) -> Stop:
    """Walk from *start* to *end*; over what makes no sense go on where chunks are plain again.

    *anchors*: ascending addresses that lists (or top) prove to be chunks. *main*: whether it is the
    main arena's, whose chunks never have NON_MAIN_ARENA. The chunk that broke the walk is a row of
    its own, and the range that was jumped over is in `columns.gaps`.
    """
    wrong = IS_MMAPPED | (NON_MAIN_ARENA if main else 0)
    address = start
    while True:
        rows = len(columns)
        stop = walker.walk(columns, address, end)
        if stop.kind in ("end", "fencepost"):
            return stop
        number = bisect_right(anchors, stop.address)
        proven = min(anchors[number] if number < len(anchors) else end, end)
        if stop.address in anchors[max(number - 1, 0) : number]:
            proven = walker.behind_free(stop.address, proven) or proven
            found = None
        else:
            stop, found = _footing(walker, columns, rows, stop, proven, wrong)
        address = proven if found is None else found
        _add_corrupt(walker, columns, stop, address, found is not None)
        if address >= end:
            return stop


def _footing(
    walker: Walker, columns: Columns, rows: int, stop: Stop, proven: int, wrong: int
) -> tuple[Stop, int | None]:
    """Return the chunk whose size is not to be believed, and where a chain of chunks begins.

    It is the one before *stop* if chunks that begin in what it claims lead past *stop*; rows before
    *rows* are of an earlier walk.
    """
    if len(columns) > rows and stop.kind == "corrupt":
        last = columns.addresses[-1]
        size = columns.sizes[-1] & ~SIZE_BITS
        inside = last + walker.words.layout.min_chunk
        found = walker.find_chain(inside, stop.address, stop.address + 1, proven, wrong)
        if found is not None:
            columns.drop_last()
            reason = f"size {size:#x} leads to {stop.address:#x}, where no chunk is"
            return Stop(last, "corrupt", reason), found
    behind = stop.address + walker.words.layout.min_chunk
    return stop, walker.find_chain(behind, proven, behind, proven, wrong)


def _add_corrupt(walker: Walker, columns: Columns, stop: Stop, end: int, by_chain: bool) -> None:
    columns.gaps.append(Gap(stop.address, end, stop.reason, by_chain))
    size = walker.size_field(stop.address)
    if size is None:
        return
    columns.append(stop.address, size)
    columns.states.extend(b"\0" * (len(columns) - 1 - len(columns.states)))
    columns.states.append(CORRUPT)

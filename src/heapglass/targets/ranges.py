"""The memory map of a core: its PT_LOADs and NT_FILE, checked and put together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from mmap import mmap
from typing import NamedTuple

from ..memory import Region
from .elf import PT_LOAD, Segment
from .notes import MappedFile
from .pieces import Piece

MOST_SHARED = 2  # times the file's size, that the segments may have together: few share bytes


class Range(NamedTuple):
    """A PT_LOAD, checked against its neighbours and the file."""

    start: int
    end: int
    perms: str
    offset: int  # in the core
    dumped: int  # bytes that the core had when it was whole
    have: int  # bytes that it has


def read_ranges(
    segments: Iterable[Segment], size: int, word: int, warnings: list[str]
) -> list[Range]:
    """Return the PT_LOADs, ascending; overlaps and what is outside of the machine are cut."""
    ranges: list[Range] = []
    highest, here, most = 1 << 8 * word, 0, MOST_SHARED * size
    odd = missing = lost = 0
    loads = [s for s in segments if s.type == PT_LOAD and s.memsz]
    for load in sorted(loads, key=lambda segment: segment.vaddr):
        start, end = max(load.vaddr, here), min(load.vaddr + load.memsz, highest)
        odd += start != load.vaddr or end != load.vaddr + load.memsz or load.filesz > load.memsz
        if start >= end:
            continue
        skip = start - load.vaddr
        dumped = max(0, min(load.filesz - skip, end - start))
        have = max(0, min(dumped, size - load.offset - skip, most))
        most -= have
        missing, lost = missing + dumped - have, lost + (have < dumped)
        ranges.append(Range(start, end, load.perms, load.offset + skip, dumped, have))
        here = end
    if odd:
        warnings.append(f"{odd} segments of the core overlap or make no sense; they were cut")
    if missing:
        warnings.append(
            f"the core is cut off: {missing} bytes of {lost} segments are not in the file; they "
            "are missing, not zero"
        )
    return ranges


def dumped_pieces(ranges: Iterable[Range], data: mmap) -> Iterator[Piece]:
    """Yield what the core has; neighbours in memory that are neighbours in the file are one."""
    held: Piece | None = None
    for one in ranges:
        if not one.have:
            continue
        if held is not None and (held.end, held.at + held.end - held.start) == (
            one.start,
            one.offset,
        ):
            held = held._replace(end=one.start + one.have)
            continue
        if held is not None:
            yield held
        held = Piece(one.start, one.start + one.have, data, one.offset)
    if held is not None:
        yield held


def read_regions(
    ranges: Sequence[Range], mapped: Sequence[MappedFile], vdso: int | None
) -> list[Region]:
    """Return the mappings: PT_LOADs, split where NT_FILE has other borders, and the rest of it.

    What has no PT_LOAD has no permissions either: they are an empty string. gdb's gcore leaves
    unmodified pages of files out like that.
    """
    files: list[MappedFile] = []
    for file in mapped:
        here = max(file.start, files[-1].end if files else 0)
        if here < file.end:
            files.append(file._replace(start=here, offset=file.offset + here - file.start))
    file_starts = [file.start for file in files]
    range_starts = [one.start for one in ranges]
    found: list[Region] = []
    for one in ranges:
        first = max(0, bisect_right(file_starts, one.start) - 1)
        after = bisect_left(file_starts, one.end)
        found += _split(one, files[first:after], vdso or 0)
    for file in files:
        first = max(0, bisect_right(range_starts, file.start) - 1)
        after = bisect_left(range_starts, file.end)
        found += _uncovered(file, ranges[first:after])
    return sorted(found)


def _split(one: Range, files: Iterable[MappedFile], vdso: int) -> Iterator[Region]:
    """Yield the regions of a PT_LOAD."""
    here = one.start
    for file in files:
        if file.end <= here:
            continue
        if file.start > here:
            yield Region(here, file.start, one.perms)
            here = file.start
        yield _part(file, here, min(file.end, one.end), one.perms)
        here = min(file.end, one.end)
    if here < one.end:
        yield Region(here, one.end, one.perms, "[vdso]" if here <= vdso < one.end else "")


def _uncovered(file: MappedFile, ranges: Iterable[Range]) -> Iterator[Region]:
    """Yield the parts of a mapping that no PT_LOAD has; what they allow is not known."""
    here = file.start
    for one in ranges:
        if one.start > here:
            yield _part(file, here, one.start, "")
        here = max(here, one.end)
    if here < file.end:
        yield _part(file, here, file.end, "")


def _part(file: MappedFile, start: int, end: int, perms: str) -> Region:
    return Region(start, end, perms, file.path, file.offset + start - file.start)

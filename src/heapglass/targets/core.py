"""ELF cores: what was dumped, and the mapped files behind what was left out."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from mmap import ACCESS_READ, mmap
from typing import NamedTuple

from ..errors import BadTarget
from ..memory import Region
from ..source import Module, Symbol, Thread
from .elf import (
    MOST_NOTES,
    PT_LOAD,
    PT_NOTE,
    BadElf,
    Header,
    Note,
    Segment,
    read_header,
    read_notes,
    read_segments,
)
from .files import FileFinder, close_map
from .linkmap import linked_names
from .modules import ModuleFinder
from .notes import AT_ENTRY, CoreNotes, MappedFile, read_core_notes
from .options import OpenOptions
from .pieces import Backing, Piece, PieceMemory
from .symbols import SymbolFinder

AT_SYSINFO_EHDR = 33
NOT_DUMPED = "the core left it out"
CUT_OFF = "the core is cut off before it"


class CoreSource:
    """A core file as a `Source`. Close it, or use it as a context manager."""

    kind = "core"

    def __init__(self, descriptor: int, name: str, options: OpenOptions) -> None:
        """Read the tables of a core; the file may be closed afterwards.

        :raises BadTarget: if it is not a core, or its tables are damaged.
        """
        self.name = name
        self.warnings: list[str] = []
        self._data = _map(descriptor, name)
        try:
            self._read(options)
        except BadElf as error:
            raise BadTarget(name, str(error), "a core that is complete is needed") from error

    def _read(self, options: OpenOptions) -> None:
        header = read_header(self._data)
        if header.type != "ET_CORE":
            raise BadTarget(self.name, *_not_a_core(header))
        self.machine = header.machine
        segments = read_segments(self._data, header)
        self._notes = self._read_notes(segments, header)
        self.pid = self._notes.pid
        ranges = _ranges(segments, len(self._data), header.machine.word, self.warnings)
        if not ranges:
            raise BadTarget(self.name, "it has no memory: no PT_LOAD in it", "make a full core")
        regions = _regions(ranges, self._notes.files, self._notes.auxv)
        self._files = FileFinder(options)
        dumped = list(_dumped(ranges, self._data))
        own = PieceMemory(dumped, regions)  # surely the target's: no file stands in for anything
        self._finder = ModuleFinder(
            own,
            regions,
            self._files,
            self._notes.auxv.get(AT_ENTRY),
            names=lambda: linked_names(own, self.machine, self._notes.auxv),
            warnings=self.warnings,
        )
        missing = self._missing(ranges, regions)
        self.memory = PieceMemory(chain(dumped, missing), regions)
        self._symbols = SymbolFinder(self._finder, self._files, self.memory)

    def _read_notes(self, segments: Iterable[Segment], header: Header) -> CoreNotes:
        def notes() -> Iterator[Note]:
            for segment in segments:
                if segment.type == PT_NOTE:
                    desc = view[segment.offset : segment.offset + segment.filesz]
                    yield from read_notes(desc, header.prefix)

        view = memoryview(self._data)
        found = read_core_notes(islice(notes(), MOST_NOTES), header.machine)
        self.warnings += found.warnings
        if not found.threads:
            self.warnings.append("the core names no thread (NT_PRSTATUS): it is cut or damaged")
        return found

    def _missing(self, ranges: Sequence[_Range], regions: Sequence[Region]) -> Iterator[Piece]:
        """Yield the pieces that the core does not have, each with where else it may be."""
        starts = [region.start for region in regions]
        for one in ranges:
            here = one.start + one.dumped
            if one.have < one.dumped:  # written by the program: a file is no substitute
                yield Piece(one.start + one.have, here, None, why=CUT_OFF)
            number = max(0, bisect_right(starts, here) - 1)
            while here < one.end and number < len(regions):
                region = regions[number]
                if here < region.end:
                    yield self._left_out(here, min(one.end, region.end), region)
                    here = region.end
                number += 1

    def _left_out(self, start: int, end: int, region: Region) -> Piece:
        if region.anonymous:
            return Piece(start, end, None, why=NOT_DUMPED)
        if "w" in region.perms:
            why = f"{NOT_DUMPED}, and the program may have changed what {region.path} has there"
            return Piece(start, end, None, why=why)
        at = region.offset + start - region.start
        return Piece(start, end, None, at, opener=lambda: self._backing(region.path))

    def _backing(self, path: str) -> Backing:
        """Return a mapped file's bytes, if it is surely the one that was mapped."""
        file = self._finder.file_of(path)
        if file is None:
            places = (place for place in self._files.candidates(path) if os.path.isfile(place))
            file = next(places, "")
        data = self._files.open(file) if file else None
        if data is None:
            return Backing(None, f"{NOT_DUMPED}, and {path} is not at hand; see --sysroot")
        return Backing(data)

    def threads(self) -> Sequence[Thread]:
        """Return the threads, ascending by id."""
        return self._notes.threads

    def auxv(self) -> dict[int, int]:
        """Return the auxiliary vector."""
        return self._notes.auxv

    def modules(self) -> Sequence[Module]:
        """Return the loaded ELF files; the first call adds to `warnings`."""
        return self._finder.modules()

    def symbols(self, name: str) -> Sequence[Symbol]:
        """Return every definition of *name*; see `SymbolFinder.symbols`."""
        return self._symbols.symbols(name)

    def file_bytes(self, module: Module, pattern: bytes, limit: int) -> bytes | None:
        """Return bytes of a module's file, or of its memory, from *pattern* on."""
        return self._symbols.file_bytes(module, pattern, limit)

    def close(self) -> None:
        """Let the core and all files go. What still has a view keeps its bytes."""
        self._files.close()
        close_map(self._data)

    def __enter__(self) -> CoreSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Range(NamedTuple):
    """A PT_LOAD, checked against its neighbours and the file."""

    start: int
    end: int
    perms: str
    offset: int  # in the core
    dumped: int  # bytes that the core had when it was whole
    have: int  # bytes that it has


def _map(descriptor: int, name: str) -> mmap:
    try:
        if os.fstat(descriptor).st_size == 0:
            raise BadTarget(name, "it is empty", "was there space for the core? see core(5)")
        return mmap(descriptor, 0, access=ACCESS_READ)
    except (OSError, ValueError) as error:
        raise BadTarget(name, f"it cannot be mapped: {error}") from error


def _not_a_core(header: Header) -> tuple[str, str]:
    kinds = {
        "ET_EXEC": "an executable",
        "ET_DYN": "an executable or shared library",
        "ET_REL": "an object file",
    }
    kind = kinds.get(header.type, f"an ELF file of type {header.type}")
    return f"it is {kind}, not a core", "name a core file, and the program with --exe FILE"


def _ranges(segments: Iterable[Segment], size: int, word: int, warnings: list[str]) -> list[_Range]:
    """Return the PT_LOADs, ascending; overlaps and what is outside of the machine are cut."""
    ranges: list[_Range] = []
    highest, here = 1 << 8 * word, 0
    odd = missing = lost = 0
    loads = [s for s in segments if s.type == PT_LOAD and s.memsz]
    for load in sorted(loads, key=lambda segment: segment.vaddr):
        start, end = max(load.vaddr, here), min(load.vaddr + load.memsz, highest)
        odd += start != load.vaddr or end != load.vaddr + load.memsz or load.filesz > load.memsz
        if start >= end:
            continue
        skip = start - load.vaddr
        dumped = max(0, min(load.filesz - skip, end - start))
        have = max(0, min(dumped, size - load.offset - skip))
        missing, lost = missing + dumped - have, lost + (have < dumped)
        ranges.append(_Range(start, end, load.perms, load.offset + skip, dumped, have))
        here = end
    if odd:
        warnings.append(f"{odd} segments of the core overlap or make no sense; they were cut")
    if missing:
        warnings.append(
            f"the core is cut off: {missing} bytes of {lost} segments are not in the file; they "
            "are missing, not zero"
        )
    return ranges


def _dumped(ranges: Iterable[_Range], data: mmap) -> Iterator[Piece]:
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


def _regions(
    ranges: Sequence[_Range], mapped: Sequence[MappedFile], auxv: dict[int, int]
) -> list[Region]:
    """Return the mappings: PT_LOADs, split where NT_FILE has other borders, and the rest of it."""
    files: list[MappedFile] = []
    for file in mapped:
        here = max(file.start, files[-1].end if files else 0)
        if here < file.end:
            files.append(file._replace(start=here, offset=file.offset + here - file.start))
    file_starts = [file.start for file in files]
    range_starts = [one.start for one in ranges]
    vdso = auxv.get(AT_SYSINFO_EHDR, 0)
    found: list[Region] = []
    for one in ranges:
        first = max(0, bisect_right(file_starts, one.start) - 1)
        after = bisect_left(file_starts, one.end)
        found += _split(one, files[first:after], vdso)
    for file in files:
        first = max(0, bisect_right(range_starts, file.start) - 1)
        after = bisect_left(range_starts, file.end)
        found += _uncovered(file, ranges[first:after])
    return sorted(found)


def _split(one: _Range, files: Iterable[MappedFile], vdso: int) -> Iterator[Region]:
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


def _uncovered(file: MappedFile, ranges: Iterable[_Range]) -> Iterator[Region]:
    """Yield the parts of a mapping that no PT_LOAD has; what they allow is not known."""
    here = file.start
    for one in ranges:
        if one.start > here:
            yield _part(file, here, one.start, "rw-")
        here = max(here, one.end)
    if here < file.end:
        yield _part(file, here, file.end, "rw-")


def _part(file: MappedFile, start: int, end: int, perms: str) -> Region:
    return Region(start, end, perms, file.path, file.offset + start - file.start)

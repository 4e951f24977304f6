"""ELF cores: what was dumped, and the mapped files behind what was left out."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from mmap import ACCESS_READ, mmap

from ..errors import BadTarget
from ..memory import Region
from ..source import Module, Part, Symbol, Thread
from .elf import (
    MOST_NOTES,
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
from .notes import AT_ENTRY, CoreNotes, read_core_notes
from .options import OpenOptions
from .pieces import Backing, Piece, PieceMemory
from .ranges import Range, dumped_pieces, read_ranges, read_regions
from .symbolfinder import SymbolFinder

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
        ranges = read_ranges(segments, len(self._data), header.machine.word, self.warnings)
        if not ranges:
            raise BadTarget(self.name, "it has no memory: no PT_LOAD in it", "make a full core")
        regions = read_regions(ranges, self._notes.files, self._notes.auxv.get(AT_SYSINFO_EHDR))
        self._files = FileFinder(options)
        dumped = list(dumped_pieces(ranges, self._data))
        own = PieceMemory(dumped, regions)  # surely the target's: no file stands in for anything
        self._finder = ModuleFinder(
            own,
            regions,
            self._files,
            self._notes.auxv.get(AT_ENTRY),
            names=lambda: linked_names(own, self.machine, self._notes.auxv),
            warnings=self.warnings,
        )
        known = [r if r.perms else r._replace(perms=self._finder.perms_of(r)) for r in regions]
        unnamed = [new for old, new in zip(regions, known) if not old.perms]
        missing = chain(
            self._missing(ranges, known), (self._left_out(r.start, r.end, r) for r in unnamed)
        )
        self.memory = PieceMemory(chain(dumped, missing), known)
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

    def _missing(self, ranges: Sequence[Range], regions: Sequence[Region]) -> Iterator[Piece]:
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

    def parts(self, module: Module) -> Sequence[Part]:
        """Return a module's parts; empty if its program headers are not at hand."""
        return self._finder.parts(module)

    def symbols(self, name: str) -> Sequence[Symbol]:
        """Return every definition of *name*; see `SymbolFinder.symbols`."""
        return self._symbols.symbols(name)

    def symbol_at(self, address: int) -> Symbol | None:
        """Return the symbol that an address lies in; None if none is known."""
        return self._symbols.at(address)

    def frame_at(self, thread: int, address: int) -> str:  # noqa: ARG002
        """Return nothing: only gdb unwinds stacks."""
        return ""

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

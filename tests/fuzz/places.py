"""Where the structures of a fixture stand in its file, by kind: what the mutations aim at."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from heapglass.heap.heap import Heap
from heapglass.locate import locate
from heapglass.targets import OpenOptions, open_target
from heapglass.targets.elf import PT_LOAD, PT_NOTE, Segment, read_header, read_segments

from .recipe import DEBUG, NO_FOLDER, base_bytes

NT_386_TLS = 0x200


class Field(NamedTuple):
    """A number in the file."""

    at: int
    size: int


@dataclass(frozen=True)
class Places:
    """A base with the places of its structures."""

    base: str
    size: int
    word: int
    order: str
    fields: Mapping[str, tuple[Field, ...]]
    borders: tuple[int, ...]  # file offsets where one structure ends and another starts
    addresses: tuple[int, ...]  # that mean something in the heap
    chunks: tuple[
        tuple[int, int], ...
    ]  # address and file offset of every chunk, or of what else there is
    loads: tuple[Segment, ...]
    debug_file: str  # below fixtures/debug

    def offset(self, address: int) -> int | None:
        """Return where an address is in the file."""
        starts = [load.vaddr for load in self.loads]
        number = bisect_right(starts, address) - 1
        if number < 0 or address >= self.loads[number].vaddr + self.loads[number].filesz:
            return None
        return self.loads[number].offset + address - self.loads[number].vaddr


@lru_cache(maxsize=64)
def places_of(base: str) -> Places:
    """Return the places of a core among the fixtures."""
    data = base_bytes(base)
    header = read_header(data)
    segments = read_segments(data, header)
    loads = tuple(sorted((s for s in segments if s.type == PT_LOAD), key=lambda s: s.vaddr))
    word = header.machine.word
    bare = Places(base, len(data), word, header.machine.order, {}, (), (), (), loads, "")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "core"
        path.write_bytes(data)
        options = OpenOptions(sysroot=NO_FOLDER, debug_dirs=(str(DEBUG),))
        with open_target(str(path), options) as source:
            heap = Heap(locate(source))
            fields, addresses, chunks = _heap_fields(heap, bare)
            debug = [m.debug_file for m in source.modules() if m.debug_file]
    fields["elf"] = tuple(_numbers(0, 64 if word == 8 else 52, (1, 2, 4, 8)))
    fields["phdr"] = tuple(_phdr_fields(header.phoff, header.phentsize, len(segments), word))
    notes = next(s for s in segments if s.type == PT_NOTE)
    fields["note"], note_borders = _note_fields(data, notes, header.prefix)
    borders = {0, 16, header.phoff, *note_borders, len(data)}
    borders |= {header.phoff + n * header.phentsize for n in range(len(segments) + 1)}
    borders |= {edge for load in loads for edge in (load.offset, load.offset + load.filesz)}
    name = str(Path(debug[0]).relative_to(DEBUG)) if debug else ""
    return Places(
        base,
        len(data),
        word,
        header.machine.order,
        {kind: found for kind, found in fields.items() if found},
        tuple(sorted(border for border in borders if border <= len(data))),
        addresses,
        chunks,
        loads,
        name,
    )


def _numbers(start: int, end: int, sizes: Iterable[int]) -> Iterator[Field]:
    for size in sizes:
        yield from (Field(at, size) for at in range(start, end - size + 1, size))


def _phdr_fields(phoff: int, entsize: int, count: int, word: int) -> Iterator[Field]:
    for number in range(count):
        start = phoff + number * entsize
        yield from _numbers(start, start + entsize, (word,))


def _note_fields(data: bytes, segment: Segment, prefix: str) -> tuple[tuple[Field, ...], list[int]]:
    """Return the heads of all notes, and words of their descriptions, the larger ones thinned."""
    at, end = segment.offset, segment.offset + segment.filesz
    fields, borders = [], [segment.offset]
    while at + 12 <= end:
        name, size, _kind = struct.unpack_from(prefix + "III", data, at)
        start = at + 12 + (name + 3) // 4 * 4
        fields += [Field(at, 4), Field(at + 4, 4), Field(at + 8, 4)] * 4
        fields += list(_numbers(start, start + min(size, 400), (4, 8)))
        borders += [at + 12, start]
        at = start + (size + 3) // 4 * 4
        borders.append(at)
    return tuple(fields), borders


def _heap_fields(
    heap: Heap, bare: Places
) -> tuple[dict[str, tuple[Field, ...]], tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Return the words of the allocator's structures, and addresses that mean something."""
    layout, word = heap.layout, bare.word
    found: dict[str, list[Field]] = {}
    addresses: set[int] = set()

    def add(kind: str, address: int, size: int, step: int = word) -> None:
        at = bare.offset(address)
        if at is not None:
            found.setdefault(kind, []).extend(_numbers(at, at + size, (step,)))
            addresses.add(address)

    chunks = [chunk.address for chunk in heap.every_chunk()]
    for chunk in chunks:
        add("header", chunk, 2 * word)
        add("links", chunk + 2 * word, 4 * word)
    for listed in heap.marks:
        add("free", listed, 6 * word)
    for arena in heap.arenas:
        add("arena", arena.address, layout.state.size)
        add("arena_tail", arena.address + layout.state.offset("next"), 5 * word)
        add("top", arena.top, 2 * word)
    for segment in heap.heap_segments:
        add("heap_info", segment.start & -heap.heap_max, layout.structs["heap_info"].size)
    for thread in heap.target.threads:
        if thread.tcache:
            add("tcache", thread.tcache, layout.tcache.size)
            add("tcache", thread.tcache, layout.tcache.size, 2)
        if thread.tp:
            add("tls", thread.tp - 16 * word, 48 * word)
    if heap.target.mp:
        add("mp", heap.target.mp.address, layout.structs["malloc_par"].size)
        add("mp", heap.target.mp.address, layout.structs["malloc_par"].size, 4)
    placed = [(chunk, bare.offset(chunk)) for chunk in chunks or sorted(addresses)]
    return (
        {kind: tuple(fields) for kind, fields in found.items()},
        tuple(sorted(addresses)),
        tuple((chunk, at) for chunk, at in placed if at is not None),
    )

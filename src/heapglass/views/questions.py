"""`whatis`, `find`, `link`, `size`: questions about one address, value or size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ..analysis.search import Hit, find_bytes, find_pointers
from ..errors import BadRequest, UnsupportedGlibc
from ..glibc import safelink
from ..glibc.layout import Layout, layout_for, word_of
from ..glibc.releases import NEWEST, Version, parse_version
from ..glibc.structs import Struct
from ..heap.heap import Heap
from ..heap.target import Target
from ..table import (
    Absent,
    Address,
    Answer,
    Column,
    Data,
    Fact,
    Facts,
    Kind,
    Lines,
    Part,
    Table,
    Tag,
)
from .cells import address, chunk_data, finish, row_limit, state_cell, thread_text

TEXT_LIMIT = 1000


# --- whatis ---------------------------------------------------------------------------------------


def whatis(target: Target, request: Any) -> Answer:
    """Tell all that is known of an address."""
    heap = Heap(target)
    asked = request.address
    facts = [Fact("address", "address", Address(asked), Kind.ADDRESS)]
    facts += _mapping(heap, asked)
    facts += _variables(heap, asked)
    facts += _thread(heap, asked)
    parts: list[Part] = []
    if target.main_arena is None:
        heap.problems += target.missing
        parts.append(Data("chunk", None))
    else:
        found, data = _in_heap(heap, asked)
        facts += found
        parts.append(Data("chunk", data))
    if len(facts) == 1:
        heap.problems.append(f"{asked:#x} is in no mapping, arena or chunk that is known")
    return finish(heap, "whatis", [Facts("", facts), *parts])


def _mapping(heap: Heap, asked: int) -> Iterator[Fact]:
    for region in heap.target.memory.regions():
        if region.start <= asked < region.end:
            what = region.path or "anonymous"
            yield Fact(
                "mapping",
                "mapping",
                f"{region.start:#x}-{region.end:#x}",
                note=f"{region.perms} {what}, offset {asked - region.start:#x}",
            )


def _variables(heap: Heap, asked: int) -> Iterator[Fact]:
    """Say if the address is in main_arena, mp_ or another arena's struct."""
    target, structs = heap.target, heap.layout.structs
    places = [("mp_", target.mp.address, structs["malloc_par"])] if target.mp else []
    if target.main_arena is not None:
        for arena in heap.arenas:
            name = "main_arena" if arena.main else f"arena {arena.address:#x}"
            places.append((name, arena.address, structs["malloc_state"]))
    for name, start, struct in places:
        if start <= asked < start + struct.size:
            where = asked - start
            yield Fact("variable", "variable", f"{name}+{where:#x}", note=_field(struct, where))


def _field(struct: Struct, offset: int) -> str:
    """Name the field of a struct that an offset is in."""
    for name, field in struct.fields.items():
        if field.offset <= offset < field.offset + field.size * field.length:
            if field.length == 1:
                return f"({name})"
            return f"({name}[{(offset - field.offset) // field.size}])"
    return ""


def _thread(heap: Heap, asked: int) -> Iterator[Fact]:
    """Say if the address is in the mapping of a thread's stack or thread control block."""
    for region in heap.target.memory.regions():
        if not region.start <= asked < region.end:
            continue
        for thread in heap.target.threads:
            if thread.tp is not None and region.start <= thread.tp < region.end:
                away = asked - thread.tp
                sign = "-" if away < 0 else "+"
                yield Fact(
                    "thread",
                    "thread",
                    thread.id,
                    note=f"{_gdb(thread.number)}(thread pointer {sign} {abs(away):#x})",
                )


def _gdb(number: int | None) -> str:
    return "" if number is None else f"(gdb {number}) "


def _in_heap(heap: Heap, asked: int) -> tuple[list[Fact], dict[str, Any] | None]:
    """Say which segment, chunk and bin the address is in."""
    facts: list[Fact] = []
    for segment in heap.outlined:
        if asked in segment:
            facts.append(
                Fact(
                    "segment",
                    "heap",
                    f"{segment.start:#x}-{segment.end:#x}",
                    note=f"({segment.kind} of arena {segment.arena:#x})",
                )
            )
            if asked < segment.first:
                facts.append(Fact("part", "part", "before the first chunk: heap_info, arena"))
    chunk = heap.holding(asked)
    if chunk is None and (mapped := heap.find_mmapped(asked)) is not None:
        chunk = heap.mmapped_as_chunk(mapped)
    if chunk is None:
        return facts, None
    offset = asked - chunk.address - heap.layout.header
    inside = f"mem + {offset:#x}" if offset >= 0 else f"the header, mem - {-offset:#x}"
    facts += [
        Fact("", "chunk", Address(chunk.address), Kind.ADDRESS, f"size {chunk.size:#x}; {inside}"),
        Fact("offset", "offset in mem", offset, Kind.COUNT),
        Fact("state", "state", state_cell(chunk.state)),
    ]
    if chunk.owner:
        facts.append(Fact("owner", "owner", chunk.owner))
    if chunk.listed is not None:
        listed = chunk.listed
        place_ = listed.chunks.index(chunk.address)
        note = f"(entry {place_ + 1} of {len(listed.chunks)}"
        whose = f", thread {thread_text(heap, listed.thread)}" if listed.thread else ""
        note += f"{whose})"
        facts += [Fact("bin", "bin", listed.label, note=note), Fact("position", "", place_)]
    return facts, chunk_data(heap, chunk)


# --- find -----------------------------------------------------------------------------------------

_HIT_COLUMNS = (
    Column("address", "found at", Kind.ADDRESS),
    Column("chunk", "chunk", Kind.ADDRESS),
    Column("user", "mem", Kind.ADDRESS, in_text=False),
    Column("size", "size", Kind.SIZE),
    Column("state", "state"),
    Column("offset", "offset in mem", Kind.COUNT),
    Column("value", "value", Kind.ADDRESS),
)


def find(target: Target, request: Any) -> Answer:
    """Show where a value, a string or a pointer stands, by chunk."""
    heap = Heap(target)
    heap.target.require_main_arena()
    limit = row_limit(request, TEXT_LIMIT)
    hits = _hits(heap, request)
    counted = _Counted(hits, limit)
    rows = (_hit_row(heap, hit, value) for hit, value in counted.rows())
    parts: list[Part] = [
        Table("hits", _HIT_COLUMNS, rows, empty="nowhere in the heaps"),
        Lines(counted.closing()),
    ]
    return finish(heap, "find", parts)


class _Counted:
    """Counts hits while they pass, and cuts them at a limit."""

    def __init__(self, hits: Iterator[tuple[Hit, int | None]], limit: int | None) -> None:
        self._hits = hits
        self._limit = limit
        self._count = 0

    def rows(self) -> Iterator[tuple[Hit, int | None]]:
        """Yield the hits up to the limit."""
        for hit in self._hits:
            if self._limit is not None and self._count >= self._limit:
                self._count += 1
                return
            self._count += 1
            yield hit

    def closing(self) -> Iterator[list[Tag]]:
        """Yield the line that says how many there were."""
        if self._limit is not None and self._count > self._limit:
            yield [Tag(f"… more than {self._limit} (--all, or --limit N)")]
        elif self._count:
            yield [Tag(f"{self._count} found")]


def _hits(heap: Heap, request: Any) -> Iterator[tuple[Hit, int | None]]:
    """Return the hits of whatever was asked for; exactly one of the ways must be named."""
    ways = [request.value is not None, request.string is not None, request.hex is not None]
    ways.append(request.into is not None)
    if sum(ways) != 1:
        raise BadRequest(
            "find takes one of VALUE, --string TEXT, --hex BYTES, --into ADDR", "help heap find"
        )
    if request.into is not None:
        low, high = _extent(heap, request.into)
        return iter(find_pointers(heap, low, high))
    if request.value is not None:
        return _values(heap, request)
    pattern = _pattern(request)
    return ((hit, None) for hit in find_bytes(heap, pattern, 1))


def _values(heap: Heap, request: Any) -> Iterator[tuple[Hit, int | None]]:
    size = request.size if request.size is not None else heap.words.size
    if size not in (1, 2, 4, 8):
        raise BadRequest(f"--size {size}: a value has 1, 2, 4 or 8 bytes")
    value = request.value & ((1 << 8 * size) - 1)
    pattern = value.to_bytes(size, heap.words.order)
    aligned = 1 if request.unaligned else size
    return ((hit, value) for hit in find_bytes(heap, pattern, aligned))


def _pattern(request: Any) -> bytes:
    if request.string is not None:
        pattern = str(request.string).encode("utf-8", "surrogateescape")
    else:
        try:
            pattern = bytes.fromhex(request.hex)
        except ValueError as error:
            raise BadRequest(
                f"--hex {request.hex!r}: not hexadecimal", "--hex 'de ad be ef'"
            ) from error
    if not pattern:
        raise BadRequest("nothing to look for: the pattern is empty")
    return pattern


def _extent(heap: Heap, asked: int) -> tuple[int, int]:
    """Return the mem of the chunk that an address lies in, else the address alone."""
    chunk = heap.holding(asked)
    if chunk is not None:
        return chunk.address + heap.layout.header, chunk.address + chunk.size + heap.layout.word
    mapped = heap.find_mmapped(asked)
    if mapped is not None:
        return mapped.address + heap.layout.header, mapped.end
    return asked, asked + 1


def _hit_row(heap: Heap, hit: Hit, value: int | None) -> tuple[Any, ...]:
    chunk = hit.chunk
    none = Absent.NONE
    return (
        Address(hit.address),
        address(chunk.address if chunk else None),
        address(chunk.address + heap.layout.header if chunk else None),
        chunk.size if chunk else none,
        state_cell(chunk.state) if chunk else none,
        hit.offset if chunk else none,
        none if value is None else Address(value),
    )


# --- link -----------------------------------------------------------------------------------------


def link(target: Target, request: Any) -> Answer:
    """Reveal a protected word, or make one."""
    heap = Heap(target)
    facts: list[Fact] = []
    if request.make is not None:
        facts += _made(request)
    elif request.word is not None:
        facts += _revealed(request.word, request.address, heap)
    elif request.address is not None:
        stored = heap.words.word(request.address)
        facts += _revealed(stored, request.address, heap)
    else:
        raise BadRequest("link needs an address or --word", "heap link ADDR; heap link --word WORD")
    if not heap.layout.has("safe_linking"):
        heap.problems.append(
            f"glibc {heap.layout.release} stores these links as they are; "
            "safe-linking came with 2.32"
        )
    return finish(heap, "link", [Facts("", facts)])


def _made(request: Any) -> list[Fact]:
    if request.address is None:
        raise BadRequest(
            "--make needs the address where the word will stand", "heap link ADDR --make PTR"
        )
    stored = safelink.protect(request.address, request.make)
    return [
        Fact("position", "stands at", Address(request.address), Kind.ADDRESS),
        Fact("pointer", "pointer", Address(request.make), Kind.ADDRESS),
        Fact("stored", "stored as", Address(stored), Kind.ADDRESS),
    ]


def _revealed(stored: int, position: int | None, heap: Heap) -> list[Fact]:
    if position is None:
        pointer, note = safelink.recover(stored), "(if it points into its own page)"
        where: Any = Absent.UNKNOWN
    else:
        pointer, note = safelink.reveal(position, stored), ""
        where = Address(position)
    if pointer % heap.layout.alignment:
        note = f"{note} (not aligned: malloc would abort)".strip()
    return [
        Fact("position", "stands at", where, Kind.ADDRESS),
        Fact("stored", "stored as", Address(stored), Kind.ADDRESS),
        Fact("pointer", "pointer", Address(pointer), Kind.ADDRESS, note),
    ]


# --- size -----------------------------------------------------------------------------------------


def size(target: Target | None, request: Any) -> Answer:
    """Show a request's chunk size, usable bytes, and every bin it can be in."""
    layout = _layout(target, request)
    wanted = request.request
    if wanted < 0 or wanted > layout.max_request() - layout.alignment - layout.header:
        raise BadRequest(f"a request of {wanted} bytes is refused by malloc (ENOMEM)")
    chunk = layout.request2size(wanted)
    usable = layout.usable(chunk)
    low, high = _requests(layout, chunk)
    facts = [
        Fact("request", "request", wanted, Kind.COUNT, "bytes"),
        Fact("size", "chunk size", chunk, Kind.SIZE, f"({chunk} bytes)"),
        Fact("usable", "usable", usable, Kind.SIZE, f"({usable} bytes)"),
        Fact("", "same chunk for", f"{low} to {high} bytes"),
    ]
    mmap = layout.constants["DEFAULT_MMAP_THRESHOLD"]
    notes = []
    if chunk >= mmap:
        notes.append([Tag(f"at or above the default mmap threshold ({mmap:#x}): mmapped")])
    parts: list[Part] = [
        Facts("", facts),
        Data("requests", {"smallest": low, "largest": high}),
        Table(
            "bins",
            _BIN_COLUMNS,
            list(_bins(layout, chunk)),
            "bins that it can be in, with default tunables",
        ),
        Lines(notes),
    ]
    described = {"abi": layout.abi, "glibc": layout.release, "pid": target.pid if target else None}
    return Answer("size", parts, [], described)


_BIN_COLUMNS = (
    Column("kind", "kind", in_text=False),
    Column("index", "index", Kind.COUNT),
    Column("bin", "bin"),
    Column("min_size", "min size", Kind.SIZE),
    Column("max_size", "max size", Kind.SIZE),
)


def _requests(layout: Layout, chunk: int) -> tuple[int, int]:
    """Return the smallest and largest request that get a chunk of this size."""
    high = chunk - layout.word
    low = 0 if chunk == layout.min_chunk else chunk - layout.alignment - layout.word + 1
    return low, high


def _bins(layout: Layout, chunk: int) -> Iterator[tuple[str, int, str, int | None, int | None]]:
    """Yield the bins of a chunk size, in the order in which free tries them."""
    index = layout.tcache_index(chunk) if layout.has("tcache") else None
    if index is not None and chunk <= layout.tcache_default_max:
        sizes = layout.tcache_range(index)
        if sizes is not None:
            yield "tcache", index, f"tcache[{sizes[0]:#x}]", *sizes
    if layout.has("fastbins") and chunk <= layout.default_max_fast:
        yield "fast", layout.fastbin_index(chunk), f"fast[{chunk:#x}]", chunk, chunk
    number = layout.bin_index(chunk)
    small = number < 64
    if not (small and layout.has("free_small_to_bin")):
        yield "unsorted", 1, "unsorted", None, None
    ends = layout.bin_range(number)
    if ends is not None:
        kind = "small" if small else "large"
        yield kind, number, f"{kind}[{ends[0]:#x}]", *ends


def _layout(target: Target | None, request: Any) -> Layout:
    """Return the layout that was named, else the target's, else this machine's glibc on x86_64."""
    if request.glibc is None and request.abi is None and target is not None:
        return target.layout
    if request.glibc is not None:
        version = parse_version(request.glibc)
    else:
        version = target.layout.version if target else _own_release()
    abi = request.abi or (target.layout.abi if target else "x86_64")
    return layout_for(version, word_of(abi), abi=abi)


def _own_release() -> Version:
    """Return the release of this machine's C library, the newest of the tables if there is none."""
    try:
        return parse_version(os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (UnsupportedGlibc, ValueError, OSError):
        return NEWEST

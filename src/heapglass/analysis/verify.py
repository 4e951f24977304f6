"""The model beside the memory: a trace played and compared, or both readings of one memory.

Compared are the allocator's own words: headers, the feet of free chunks, lists and their order, the
rings of sizes, arenas, tcaches, mp_. What the program wrote into its blocks is its own, and what
stands in a cached block beside its link (the key) is random.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

from ..errors import BadRequest, MemoryFault
from ..heap.columns import STATE_NAMES
from ..heap.heap import Heap
from ..heap.lists import FreeList
from ..heap.target import HeapThread, Place, Target
from ..model.overlay import Overlay
from ..model.replay import Replay, replay
from ..model.trace import read_trace
from .malloc_info import malloc_info
from .stats import mallinfo

MOST = 1000  # differences that are told
HEADER_WORDS = 4
ARENA_FIELDS = ("top", "last_remainder", "flags", "system_mem", "max_system_mem", "binmap")
PARAMS = ("sbrk_base", "n_mmaps", "mmapped_mem", "max_mmapped_mem", "mmap_threshold",
          "trim_threshold", "no_dyn_threshold")  # fmt: skip


class Side(NamedTuple):
    """What one side has at a place."""

    said: str  # in words: a chunk's size, state and place in its list; a number; a list
    words: tuple[int, ...] = ()  # from the chunk's header on


class Difference(NamedTuple):
    """A place where the two are not alike."""

    what: str  # "call", "arena", "chunk", "foot", "nextsize", "bin", "mp_", "malloc_info", …
    where: str  # in words
    address: int | None
    model: Side
    memory: Side


@dataclass
class Comparison:
    """What was compared, and what differs: the first ones, `MOST` at most."""

    compared: dict[str, int] = field(default_factory=dict)  # how many of what
    differences: list[Difference] = field(default_factory=list)

    def count(self, what: str, number: int) -> None:
        """Note that so many were compared."""
        self.compared[what] = self.compared.get(what, 0) + number

    def differ(self, found: Iterable[Difference]) -> None:
        """Add differences, as far as there is room."""
        for one in found:
            if len(self.differences) >= MOST:
                return
            self.differences.append(one)


# --- a trace --------------------------------------------------------------------------------------


def verify_trace(path: str, heap: Heap) -> Comparison:
    """Play a trace of this process, and compare what the model then has with the memory.

    :raises BadTarget: if it is no trace.
    :raises BadRequest: if it is not one of this process from its beginning.
    """
    trace = read_trace(path)
    head = trace.header
    base = heap.params.get("sbrk_base") or 0
    if not head.fresh:
        raise BadRequest(f"{path}: it begins on a heap in use, which the model cannot play")
    layout = heap.layout
    if (head.glibc, head.abi) != (layout.release, layout.abi):
        raise BadRequest(
            f"{path}: it is of glibc {head.glibc} {head.abi}, not {layout.release} {layout.abi}"
        )
    for what, mine, here in (
        ("main_arena is at", head.main_arena, heap.arenas[0].address),
        ("heap begins at", 0 if head.main_arena else head.heap_base, base & -heap.page_size),
    ):
        if mine and here and mine & -heap.page_size != here & -heap.page_size:
            raise BadRequest(
                f"{path}: its {what} {mine:#x}, here it is {here:#x}",
                "a trace of this very process is needed",
            )
    played = replay(trace)
    found = Comparison()
    found.count("calls", played.calls)
    if played.mismatches:
        line, expected, got = played.mismatches[0]
        where = f"line {line} of the trace"
        found.differ([Difference("call", where, None, Side(got), Side(expected))])
        return found
    compare(heap_of(played), heap, found)
    return found


def heap_of(played: Replay) -> Heap:
    """Return the reader on the memory that a trace has left in the model."""
    allocator = played.allocator
    machine, where = allocator.machine, allocator.places
    threads = []
    for number, thread in sorted(played.threads.items()):
        pointer = machine.load(thread.tls + where.tls.tcache) if machine.has("tcache") else 0
        dummies = (where.dummy, where.dummy + machine.SZ) if machine.has("tcache_dummy") else ()
        tcache = None if not pointer or pointer in dummies else pointer
        arena = machine.load(thread.tls + where.tls.thread_arena)
        state = "active" if tcache else "none"
        threads.append(HeapThread(number, None, None, tcache, "user", state, arena or None, True))
    names = {name: Place(address, "user") for name, address in where.symbols().items()}
    return Heap(
        Target(
            *(allocator.memory, allocator.layout),
            Place(where.main_arena, "user"),
            Place(where.mp, "user"),
            threads,
            names,
            page_size=allocator.kernel.page_size,
            kind="trace",
        )
    )


def compare(model: Heap, heap: Heap, found: Comparison) -> None:
    """Compare two heaps, each read by the reader."""
    found.differ(_arenas(model, heap, found))
    found.differ(_chunks(model, heap, found))
    found.differ(_mmapped(model, heap, found))
    found.differ(_lists(model, heap, found))
    found.differ(_links(model, heap, found))
    found.differ(_params(model, heap, found))


def _arenas(model: Heap, heap: Heap, found: Comparison) -> Iterator[Difference]:
    found.count("arenas", len(model.arenas))
    for mine, theirs in zip_longest(model.arenas, heap.arenas):
        if mine is None or theirs is None:
            one = mine or theirs
            sides = [Side("an arena"), Side("none")]
            yield Difference("arena", "", one.address, *(sides if mine else sides[::-1]))
            continue
        if not mine.main and mine.address != theirs.address:
            yield Difference(
                "arena",
                "the next arena of the ring",
                theirs.address,
                Side(f"{mine.address:#x}"),
                Side(f"{theirs.address:#x}"),
            )
            return
        for name in ARENA_FIELDS:
            pair = getattr(mine, name), getattr(theirs, name)
            if name == "top" and not (mine.has_top(model.layout) or theirs.has_top(heap.layout)):
                continue
            if pair[0] != pair[1]:
                yield Difference(
                    "arena", name, theirs.address, *(Side(_number(value)) for value in pair)
                )


def _number(value: int | tuple[int, ...]) -> str:
    return " ".join(map(hex, value)) if isinstance(value, tuple) else f"{value:#x}"


# --- chunks ---------------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """All chunks of a heap, ascending."""

    addresses: array[int]
    sizes: array[int]
    states: bytearray


def _rows(heap: Heap) -> _Rows:
    rows = _Rows(array("Q"), array("Q"), bytearray())
    for segment in heap.segments:
        rows.addresses.extend(segment.columns.addresses)
        rows.sizes.extend(segment.columns.sizes)
        rows.states.extend(segment.columns.states)
    return rows


def _chunks(model: Heap, heap: Heap, found: Comparison) -> Iterator[Difference]:
    mine, theirs = _rows(model), _rows(heap)
    found.count("chunks", len(mine.addresses))
    if mine == theirs:
        return
    unknown = STATE_NAMES.index(None)
    here = there = 0
    while here < len(mine.addresses) or there < len(theirs.addresses):
        left = mine.addresses[here] if here < len(mine.addresses) else None
        right = theirs.addresses[there] if there < len(theirs.addresses) else None
        address = min(one for one in (left, right) if one is not None)
        alike = left == right
        if alike:
            states = mine.states[here], theirs.states[there]
            alike = mine.sizes[here] == theirs.sizes[there] and (
                states[0] == states[1] or unknown in states
            )
        if not alike:
            yield Difference(
                "chunk", "", address, _side(model, address, left), _side(heap, address, right)
            )
        here += left == address
        there += right == address


def _side(heap: Heap, address: int, there: int | None) -> Side:
    """Return what a heap has at the address of a chunk."""
    words = _words(heap, address, HEADER_WORDS)
    if there != address:
        place = heap.find(address)
        inside = f"inside {heap.chunk_at(*place).address:#x}" if place else "no chunk"
        return Side(inside, words)
    place = heap.find(address)
    assert place is not None
    chunk = heap.chunk_at(*place)
    listed = chunk.listed
    said = f"{chunk.size_field:#x} {chunk.state or 'unknown'}"
    if listed is not None:
        number = listed.chunks.index(address) + 1
        said += f", {number} of {len(listed.chunks)} in {listed.label}"
    return Side(said, words)


def _words(heap: Heap, address: int, count: int) -> tuple[int, ...]:
    try:
        return heap.words.words(address, count)
    except MemoryFault:
        return ()


def _mmapped(model: Heap, heap: Heap, found: Comparison) -> Iterator[Difference]:
    mine, theirs = ({c.address: c.size_field for c in one.mmapped} for one in (model, heap))
    found.count("mmapped chunks", len(mine))
    for address in sorted({*mine, *theirs}):
        pair = mine.get(address), theirs.get(address)
        if pair[0] != pair[1]:
            sides = (Side("none" if size is None else f"{size:#x} mmapped") for size in pair)
            yield Difference("chunk", "mmapped", address, *sides)


# --- lists ----------------------------------------------------------------------------------------

Key = tuple[str, int, int]  # kind; the arena (0: main), or the tcache; index


def _by_key(heap: Heap) -> dict[Key, FreeList]:
    main = heap.arenas[0].address
    caches = {cache.thread.id: cache.thread.tcache or 0 for cache in heap.tcaches}
    lists = {}
    for one in heap.lists:
        owner = caches[one.thread] if one.thread is not None else one.arena or 0
        lists[one.kind, 0 if owner == main else owner, one.index] = one
    return lists


def _lists(model: Heap, heap: Heap, found: Comparison) -> Iterator[Difference]:
    mine, theirs = _by_key(model), _by_key(heap)
    found.count("bins", len({*mine, *theirs}))
    blind = any(thread.tcache_state == "unknown" for thread in heap.target.threads)
    for key in sorted({*mine, *theirs}):
        left, right = mine.get(key), theirs.get(key)
        chunks = [one.chunks if one else [] for one in (left, right)]
        if chunks[0] == chunks[1] or (key[0] == "tcache" and right is None and blind):
            continue
        label = (left or right).label  # type: ignore[union-attr]
        owner = (
            f"{'tcache' if key[0] == 'tcache' else 'arena'} {key[1] or heap.arenas[0].address:#x}"
        )
        at = next(n for n, (a, b) in enumerate(zip_longest(*chunks)) if a != b)
        address = next(one[at] for one in (chunks[1], chunks[0]) if at < len(one))
        sides = (Side(_entry(one, at)) for one in chunks)
        yield Difference("bin", f"{label} of {owner}, entry {at + 1}", address, *sides)


def _entry(chunks: list[int], at: int) -> str:
    return (
        f"{chunks[at]:#x} (of {len(chunks)})" if at < len(chunks) else f"the end of {len(chunks)}"
    )


def _links(model: Heap, heap: Heap, found: Comparison) -> Iterator[Difference]:
    """Compare the words of binned chunks that lists do not show: feet, and rings of sizes."""
    word = heap.words.size
    for one in heap.lists:
        if one.kind in ("tcache", "fast"):
            continue
        for chunk in one.chunks:
            size = (_words(heap, chunk + word, 1) or (0,))[0] & ~7
            feet = [_words(side, chunk + size, 1) for side in (model, heap)]
            found.count("feet of free chunks", 1)
            if feet[0] != feet[1]:
                yield Difference("foot", "prev_size behind", chunk, *map(_as_side, feet))
            if one.kind == "large":
                rings = [_words(side, chunk + 4 * word, 2) for side in (model, heap)]
                found.count("links of sizes", 2)
                if rings[0] != rings[1]:
                    yield Difference(
                        "nextsize", "fd_nextsize, bk_nextsize", chunk, *map(_as_side, rings)
                    )


def _as_side(words: tuple[int, ...]) -> Side:
    return Side(_number(words) if words else "cannot be read", words)


def _params(model: Heap, heap: Heap, found: Comparison) -> Iterator[Difference]:
    for name in PARAMS:
        mine, theirs = model.params.get(name), heap.params.get(name)
        if mine is None or theirs is None:
            continue
        found.count("fields of mp_", 1)
        if mine != theirs:
            yield Difference("mp_", name, None, Side(f"{mine:#x}"), Side(f"{theirs:#x}"))


# --- one memory, read twice -----------------------------------------------------------------------


def cross_check(heap: Heap, overlay: Overlay) -> Comparison:
    """Compare what the model concludes from a memory with what the reader does."""
    found = Comparison()
    found.differ(_ring(heap, overlay, found))
    found.differ(_same_lists(heap, overlay, found))
    found.differ(_same_text(heap, overlay, found))
    found.differ(_same_figures(heap, overlay, found))
    return found


def _ring(heap: Heap, overlay: Overlay, found: Comparison) -> Iterator[Difference]:
    mine, theirs = list(overlay.machine.arenas()), [arena.address for arena in heap.arenas]
    found.count("arenas", len(mine))
    if mine != theirs:
        yield Difference(
            "arena", "the ring", None, Side(_number(tuple(mine))), Side(_number(tuple(theirs)))
        )


def _same_lists(heap: Heap, overlay: Overlay, found: Comparison) -> Iterator[Difference]:
    machine = overlay.machine
    caches = {cache.thread.id: cache.thread.tcache or 0 for cache in heap.tcaches}
    for one in heap.lists:
        if one.fault:
            continue  # the reader has gone on from the other end, which malloc would not
        found.count("bins", 1)
        owner = caches[one.thread] if one.thread is not None else one.arena or 0
        if one.kind == "tcache":
            mine = _cached(overlay, owner, one.index, len(one.chunks))
        elif one.kind == "fast":
            mine = list(machine._fast(owner, one.index, "malloc(): memory corruption (fast)"))
        else:
            mine = list(machine._listed(machine.bin_at(owner, one.index), machine.FD))
        found.count("chunks in bins", len(mine))
        if mine != one.chunks:
            at = next(n for n, (a, b) in enumerate(zip_longest(mine, one.chunks)) if a != b)
            sides = (Side(_entry(chunks, at)) for chunks in (mine, one.chunks))
            yield Difference("bin", f"{one.label} of {owner:#x}, entry {at + 1}", None, *sides)


def _cached(overlay: Overlay, tcache: int, index: int, most: int) -> list[int]:
    """Follow a bin of a tcache as malloc does; one entry more than *most* at most."""
    machine, cache = overlay.machine, overlay.machine.tcache
    link = machine.load(tcache + cache.o_entries + index * machine.SZ)  # type: ignore[attr-defined]
    chunks: list[int] = []
    while link and len(chunks) <= most:
        chunks.append(link - machine.HDR)
        link = cache.link(link, machine.load(link))  # type: ignore[attr-defined]
    return chunks


def _same_text(heap: Heap, overlay: Overlay, found: Comparison) -> Iterator[Difference]:
    mine, theirs = overlay.malloc_info().splitlines(), malloc_info(heap).splitlines()
    found.count("lines of malloc_info", len(mine))
    for number, (left, right) in enumerate(zip_longest(mine, theirs, fillvalue=""), 1):
        if left != right:
            yield Difference(
                "malloc_info", f"line {number}", None, Side(left.strip()), Side(right.strip())
            )
            return


def _same_figures(heap: Heap, overlay: Overlay, found: Comparison) -> Iterator[Difference]:
    mine, theirs = overlay.mallinfo2()._asdict(), mallinfo(heap)._asdict()
    for name in (name for name in mine if name in theirs):
        found.count("figures of mallinfo2", 1)
        if mine[name] != theirs[name]:
            yield Difference("mallinfo", name, None, Side(str(mine[name])), Side(str(theirs[name])))

"""Totals and histograms, made on the columns; what is wasted, and what could be given back."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..glibc.layout import SIZE_BITS
from ..heap.columns import CORRUPT, FAST, FREE, STATE_NAMES, TCACHE, TOP
from ..heap.heap import Heap
from ..heap.segments import Segment
from ..native import count_pairs, find_runs
from .trim import trimmed

Totals = dict["str | None", "tuple[int, int]"]  # state (None: unknown) to count and bytes
Histogram = Mapping[tuple["str | None", int], int]  # (state, size) to count


def histogram_of(segments: Iterable[Segment]) -> Counter[tuple[str | None, int]]:
    """Return how many chunks there are of each (state, size)."""
    merged: Counter[tuple[str | None, int]] = Counter()
    for segment in segments:
        found = count_pairs(segment.columns.sizes, segment.columns.states)
        for (state, size_field), count in found.items():
            merged[STATE_NAMES[state], believed_size(state, size_field)] += count
    return merged


def believed_size(state: int, size_field: int) -> int:
    """Return a chunk's size for sums: that of a corrupt one is not to be believed, and is 0."""
    return 0 if state == CORRUPT else size_field & ~SIZE_BITS


def totals_of(histogram: Histogram) -> Totals:
    """Return count and bytes by state."""
    totals: dict[str | None, list[int]] = defaultdict(lambda: [0, 0])
    for (state, size), count in histogram.items():
        totals[state][0] += count
        totals[state][1] += count * size
    return {state: (count, size) for state, (count, size) in totals.items()}


class OfArena(NamedTuple):
    """What fills the heaps of an arena."""

    address: int
    system_mem: int
    totals: Totals
    trim: int  # bytes that malloc_trim would give back


class OfThread(NamedTuple):
    """What a thread's tcache keeps."""

    thread: int
    arena: int | None
    chunks: int
    bytes: int | None  # None: a size in it cannot be read


class MallInfo(NamedTuple):
    """What mallinfo2 would say (int_mallinfo, malloc.c): what a tcache keeps counts as in use."""

    arena: int  # from the system, by brk and for heaps
    ordblks: int  # chunks in bins, and the tops
    smblks: int  # chunks in fastbins
    hblks: int  # mmapped chunks
    hblkhd: int  # bytes of their mappings
    fsmblks: int  # bytes in fastbins
    uordblks: int
    fordblks: int
    keepcost: int  # the main arena's top


@dataclass(frozen=True)
class Stats:
    """What fills the heaps."""

    histogram: Counter[tuple[str | None, int]]  # mmapped chunks too
    totals: Totals
    system_mem: int  # of all arenas
    mmapped_mem: int  # mappings of mmapped chunks
    largest_free: int  # of chunks in bins
    free_in_bins: int  # bytes
    top: int  # bytes of all tops
    largest_run: tuple[int, int]  # bytes and first chunk: free and cached ones behind each other
    under_top: int  # bytes, free or cached, in the main heap below its top
    held_by: int | None  # the last chunk below that top that is not free; None: there is none
    trim: int  # bytes that malloc_trim (0) would give back
    overhead: int  # bytes of the headers of chunks in use
    rounding: int  # bytes, at most, by which blocks in use are larger than was asked for
    arenas: tuple[OfArena, ...]
    threads: tuple[OfThread, ...]

    @property
    def fragmentation(self) -> float | None:
        """Percent of the binned bytes that are not in the largest free chunk; None without any."""
        if not self.free_in_bins:
            return None
        return 100.0 * (1 - self.largest_free / self.free_in_bins)


def heap_stats(heap: Heap) -> Stats:
    """Count everything."""
    by_arena = {arena.address: histogram_of(_of(heap, arena.address)) for arena in heap.arenas}
    histogram: Counter[tuple[str | None, int]] = Counter()
    for found in by_arena.values():
        histogram.update(found)
    for chunk in heap.mmapped:
        histogram[heap.mmapped_as_chunk(chunk).state, chunk.size] += 1
    totals = totals_of(histogram)
    arenas = tuple(_arenas(heap, by_arena))
    main = totals_of(by_arena[heap.arenas[0].address])
    overhead, rounding = _of_requests(heap, histogram)
    return Stats(
        histogram=histogram,
        totals=totals,
        system_mem=sum(arena.system_mem for arena in heap.arenas),
        mmapped_mem=sum(chunk.length for chunk in heap.mmapped),
        largest_free=max((size for state, size in histogram if state == "free"), default=0),
        free_in_bins=totals.get("free", (0, 0))[1],
        top=totals.get("top", (0, 0))[1],
        largest_run=_largest_run(heap),
        under_top=sum(main.get(state, (0, 0))[1] for state in ("free", "tcache", "fast")),
        held_by=_last_in_use(heap),
        trim=sum(arena.trim for arena in arenas),
        overhead=overhead,
        rounding=rounding,
        arenas=arenas,
        threads=tuple(_threads(heap)),
    )


def _of(heap: Heap, arena: int) -> list[Segment]:
    return [segment for segment in heap.segments if segment.arena == arena]


def _arenas(
    heap: Heap, histograms: Mapping[int, Counter[tuple[str | None, int]]]
) -> Iterable[OfArena]:
    given: Counter[int] = Counter()
    for stretch in trimmed(heap):
        segment = next(s for s in heap.segments if s.start <= stretch.start < s.end)
        given[segment.arena] += stretch.size
    for arena in heap.arenas:
        totals = totals_of(histograms[arena.address])
        yield OfArena(arena.address, arena.system_mem, totals, given[arena.address])


def _threads(heap: Heap) -> Iterable[OfThread]:
    for cache in heap.tcaches:
        chunks = [chunk for found in cache.lists for chunk in found.chunks]
        sizes = [_size(heap, chunk) for chunk in chunks]
        total = None if None in sizes else sum(size for size in sizes if size is not None)
        yield OfThread(cache.thread.id, cache.thread.arena, len(chunks), total)


def _size(heap: Heap, chunk: int) -> int | None:
    place = heap.find(chunk)
    if place is not None:
        segment, row = place
        return believed_size(segment.columns.states[row], segment.columns.sizes[row])
    mapped = heap.find_mmapped(chunk)
    return mapped.size if mapped is not None else None


def _largest_run(heap: Heap) -> tuple[int, int]:
    """Return bytes and first chunk of the longest stretch in which nothing is in use."""
    best = 0, 0
    for segment in heap.segments:
        columns = segment.columns
        asked = columns.addresses, columns.sizes, columns.states, (FREE, FAST, TCACHE)
        _, (size, row) = find_runs(*asked, (1 << 64) - 1)
        if size > best[0]:
            best = size, columns.addresses[row]
    return best


def _last_in_use(heap: Heap) -> int | None:
    """Return the chunk that keeps the main heap's top from growing down; None: there is none."""
    for segment in reversed(_of(heap, heap.arenas[0].address)):
        states = segment.columns.states
        if states and states[-1] == TOP:
            row = len(states) - 1
            while row >= 0 and states[row] in (TOP, FREE, FAST):
                row -= 1
            return segment.columns.addresses[row] if row >= 0 else None
    return None


def _of_requests(heap: Heap, histogram: Histogram) -> tuple[int, int]:
    """Return the bytes of headers, and by how much requests were rounded up at most."""
    layout, overhead, rounding = heap.layout, 0, 0
    for (state, size), count in histogram.items():
        if state not in ("used", "mmapped"):
            continue
        usable = layout.usable(size, state == "mmapped")
        overhead += count * (size - usable)
        if state == "mmapped":
            rounding += count * (heap.page_size - 1)
        else:
            least = size <= layout.min_chunk
            rounding += count * (usable if least else layout.alignment - 1)
    return overhead, rounding


def mallinfo(heap: Heap) -> MallInfo:
    """Return what mallinfo2 would count now."""
    fast = [found for lists in heap.bins.values() for found in lists if found.kind == "fast"]
    binned = [found for lists in heap.bins.values() for found in lists if found.kind != "fast"]
    sizes = {
        kind: sum(_size(heap, chunk) or 0 for found in lists for chunk in found.chunks)
        for kind, lists in (("fast", fast), ("binned", binned))
    }
    tops = [_size(heap, arena.top) or 0 for arena in heap.arenas if arena.has_top(heap.layout)]
    idle = sizes["fast"] + sizes["binned"] + sum(tops)
    system = sum(arena.system_mem for arena in heap.arenas)
    return MallInfo(
        arena=system,
        ordblks=sum(len(found.chunks) for found in binned) + len(heap.arenas),
        smblks=sum(len(found.chunks) for found in fast),
        hblks=heap.params.get("n_mmaps") or 0,
        hblkhd=heap.params.get("mmapped_mem") or 0,
        fsmblks=sizes["fast"],
        uordblks=system - idle,
        fordblks=idle,
        keepcost=tops[0] if tops else 0,
    )

"""Totals and histograms, made on the columns."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..glibc.layout import SIZE_BITS
from ..heap.columns import CORRUPT, STATE_NAMES
from ..heap.heap import Heap
from ..heap.segments import Segment
from ..native import count_pairs

Totals = dict["str | None", "tuple[int, int]"]  # state (None: unknown) to count and bytes


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


def totals_of(histogram: Mapping[tuple[str | None, int], int]) -> Totals:
    """Return count and bytes by state."""
    totals: dict[str | None, list[int]] = defaultdict(lambda: [0, 0])
    for (state, size), count in histogram.items():
        totals[state][0] += count
        totals[state][1] += count * size
    return {state: (count, size) for state, (count, size) in totals.items()}


@dataclass(frozen=True)
class Stats:
    """What fills the heaps."""

    histogram: Counter[tuple[str | None, int]]  # (state, size) to count, mmapped chunks too
    totals: Totals
    system_mem: int  # of all arenas
    mmapped_mem: int  # mappings of mmapped chunks
    largest_free: int  # of chunks in bins
    free_in_bins: int  # bytes
    top: int  # bytes of all tops

    @property
    def fragmentation(self) -> float | None:
        """Percent of the binned bytes that are not in the largest free chunk; None without any."""
        if not self.free_in_bins:
            return None
        return 100.0 * (1 - self.largest_free / self.free_in_bins)


def heap_stats(heap: Heap) -> Stats:
    """Count everything."""
    histogram = histogram_of(heap.segments)
    for chunk in heap.mmapped:
        histogram[heap.mmapped_as_chunk(chunk).state, chunk.size] += 1
    totals = totals_of(histogram)
    return Stats(
        histogram=histogram,
        totals=totals,
        system_mem=sum(arena.system_mem for arena in heap.arenas),
        mmapped_mem=sum(chunk.length for chunk in heap.mmapped),
        largest_free=max((size for state, size in histogram if state == "free"), default=0),
        free_in_bins=totals.get("free", (0, 0))[1],
        top=totals.get("top", (0, 0))[1],
    )

"""Chunks that lie in another chunk, whose size was made larger."""

from __future__ import annotations

from .places import Places

MOST_STEPS = 1 << 12  # of a chain of chunks in a chunk
MOST_INSIDE = 1 << 16  # bytes of a chunk in which a chain may begin


def chain_ends(places: Places, chunk: int, outer: int) -> bool:
    """Whether chunks lie behind each other from inside a chunk to its very end."""
    size = places.size(outer) or 0
    end, steps = outer + size, 0
    while chunk < end and steps < MOST_STEPS:
        step = places.size(chunk)
        if not step or step < places.layout.min_chunk or step % places.layout.alignment:
            return False
        chunk, steps = chunk + step, steps + 1
    return chunk == end


def chain_inside(places: Places, outer: int) -> int | None:
    """Return where in a chunk others begin that lie behind each other to its very end."""
    size, least = places.size(outer) or 0, places.layout.min_chunk
    last = min(size, MOST_INSIDE)
    for chunk in range(outer + least, outer + last - least + 1, places.layout.alignment):
        if chain_ends(places, chunk, outer):
            return chunk
    return None

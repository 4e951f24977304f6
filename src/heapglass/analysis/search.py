"""Where a value, a string or a pointer stands, by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..heap.heap import Chunk, Heap

BLOCK = 64 << 20


class Hit(NamedTuple):
    """A place where the pattern stands."""

    address: int
    chunk: Chunk | None  # the chunk that it is in; None: between chunks
    offset: int  # from the chunk's mem; negative in its header


def find_bytes(heap: Heap, pattern: bytes, aligned: int) -> Iterator[Hit]:
    """Yield every place in the heaps where *pattern* stands at a multiple of *aligned* bytes."""
    for start, end in _ranges(heap):
        for address in _in_range(heap, start, end, pattern, aligned):
            yield _hit(heap, address)


def find_pointers(heap: Heap, low: int, high: int) -> Iterator[tuple[Hit, int]]:
    """Yield every aligned word of the heaps whose value is in [low, high), with that value."""
    word = heap.words.size
    for start, end in _ranges(heap):
        for base, view in heap.words.spans(start, end):
            column = heap.words.cast(view)
            for number in [n for n, value in enumerate(column) if low <= value < high]:
                yield _hit(heap, base + number * word), int(column[number])


def _ranges(heap: Heap) -> list[tuple[int, int]]:
    own = [(segment.start, segment.end) for segment in heap.segments]
    return sorted(own + [(chunk.start, chunk.end) for chunk in heap.mmapped])


def _in_range(heap: Heap, start: int, end: int, pattern: bytes, aligned: int) -> Iterator[int]:
    """Search in blocks that overlap by the pattern's length, so that no hit is cut."""
    for base, view in heap.words.blocks(start, end, BLOCK, len(pattern) - 1):
        data = bytes(view)
        at = data.find(pattern)
        while at >= 0:
            if (base + at) % aligned == 0:
                yield base + at
            at = data.find(pattern, at + 1)


def _hit(heap: Heap, address: int) -> Hit:
    place = heap.find(address)
    header = heap.layout.header
    if place is not None:
        chunk = heap.chunk_at(*place)
        return Hit(address, chunk, address - chunk.address - header)
    mapped = heap.find_mmapped(address)
    if mapped is not None:
        return Hit(address, heap.mmapped_as_chunk(mapped), address - mapped.address - header)
    return Hit(address, None, 0)

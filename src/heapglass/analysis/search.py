"""Where a value, a string or a pointer stands, by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..heap.heap import Chunk, Heap
from ..memory import Sparse
from ..native import Buffer, words_between

BLOCK = 64 << 20
EVERY_BIT = (1 << 64) - 1


class Hit(NamedTuple):
    """A place where the pattern stands."""

    address: int
    chunk: Chunk | None  # the chunk that it is in; None: between chunks
    offset: int  # from the chunk's mem; negative in its header


def find_bytes(heap: Heap, pattern: bytes, aligned: int) -> Iterator[Hit]:
    """Yield every place in the heaps where *pattern* stands at a multiple of *aligned* bytes."""
    for start, end in _ranges(heap):
        for low, high in _worth(heap, start, end, len(pattern) - 1 if any(pattern) else None):
            for address in _in_range(heap, low, high, pattern, aligned):
                yield hit_at(heap, address)


def find_pointers(heap: Heap, low: int, high: int) -> Iterator[tuple[Hit, int]]:
    """Yield every aligned word of the heaps whose value is in [low, high), with that value."""
    word = heap.words.size
    for buffer in heap_buffers(heap, low <= 0):
        for address in words_between(buffer, low, high, heap.layout.address_mask):
            yield hit_at(heap, address), int(buffer.words[(address - buffer.base) // word])


def heap_buffers(heap: Heap, zeros: bool) -> Iterator[Buffer]:
    """Yield what of the heaps can be read, from multiples of the word on; *zeros*: those, too."""
    word, ranges = heap.words.size, _ranges(heap)
    for number, (start, end) in enumerate(ranges):
        heap.target.report("searching", number, len(ranges))
        for first, last in _worth(heap, start, end, None if zeros else word):
            for base, view in heap.words.blocks(first + -(first - start) % word, last):
                yield heap.words.buffer(base, view)


def _ranges(heap: Heap) -> list[tuple[int, int]]:
    own = [(segment.start, segment.end) for segment in heap.outlined]
    return sorted(own + [(chunk.start, chunk.end) for chunk in heap.mmapped])


def _worth(heap: Heap, start: int, end: int, around: int | None) -> Iterator[tuple[int, int]]:
    """Yield what of a range has to be searched: all, but for zeros that the memory knows of.

    What is found may reach *around* bytes into the zeros beside it. None: zeros are looked for.
    """
    memory = heap.target.memory
    if around is None or not isinstance(memory, Sparse):
        yield start, end
        return
    held: tuple[int, int] | None = None
    for low, high in memory.possibly_set(start, end):
        wider = max(low - around, start), min(high + around, end)
        if held is not None and wider[0] <= held[1]:
            held = held[0], wider[1]
            continue
        if held is not None:
            yield held
        held = wider
    if held is not None:
        yield held


def _in_range(heap: Heap, start: int, end: int, pattern: bytes, aligned: int) -> Iterator[int]:
    """Search in blocks that overlap by the pattern's length, so that no hit is cut."""
    word = heap.words.size
    if len(pattern) == word == aligned and start % word == 0:
        value = int.from_bytes(pattern, heap.words.order)
        for base, view in heap.words.blocks(start, end, BLOCK):
            buffer = heap.words.buffer(base, view)
            yield from words_between(buffer, value, value + 1, EVERY_BIT)
        return
    for base, view in heap.words.blocks(start, end, BLOCK, len(pattern) - 1):
        data = bytes(view)
        at = data.find(pattern)
        while at >= 0:
            if (base + at) % aligned == 0:
                yield base + at
            at = data.find(pattern, at + 1)


def hit_at(heap: Heap, address: int) -> Hit:
    """Return a place in a heap with the chunk that it is in."""
    chunk, header = heap.holding(address), heap.layout.header
    if chunk is not None:
        return Hit(address, chunk, address - chunk.address - header)
    mapped = heap.find_mmapped(address)
    if mapped is not None:
        return Hit(address, heap.mmapped_as_chunk(mapped), address - mapped.address - header)
    return Hit(address, None, 0)

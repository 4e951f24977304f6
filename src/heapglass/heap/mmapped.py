"""Chunks with a mapping of their own: found from the mappings, checked against mp_'s totals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import MemoryFault
from ..glibc.layout import IS_MMAPPED, SIZE_BITS
from .words import Words

BLOCK = 64 << 20  # bytes that are looked at in one piece


@dataclass(frozen=True)
class MmappedChunk:
    """A chunk that mmap gave: its header, and the mapping that belongs to it."""

    address: int
    size_field: int
    prev_size: int  # as stored: the offset in the mapping, since 2.43 with the huge-page bit
    start: int  # the mapping
    length: int

    @property
    def size(self) -> int:
        """The chunk's size, flags off."""
        return self.size_field & ~SIZE_BITS

    @property
    def end(self) -> int:
        """Behind the mapping."""
        return self.start + self.length


def read_mmapped(words: Words, chunk: int, page_size: int) -> MmappedChunk | None:
    """Return the mmapped chunk at *chunk*, None if what stands there cannot be one.

    M alone is set; the chunk's offset leads to the start of a page, and its size to the end of
    one. The layout changed in 2.43 (614cfd0f8a): the size leaves a header out.
    """
    try:
        prev_size, size_field = words.words(chunk, 2)
    except MemoryFault:
        return None
    return decode(words, chunk, prev_size, size_field, page_size)


def decode(
    words: Words, chunk: int, prev_size: int, size_field: int, page_size: int
) -> MmappedChunk | None:
    """Return the mmapped chunk that these two words make, None if they make none."""
    if size_field & SIZE_BITS != IS_MMAPPED:
        return None
    layout = words.layout
    offset = prev_size & ~1 if layout.has("mmap_hugetlb_bit") else prev_size
    length = offset + (size_field & ~SIZE_BITS)
    if layout.has("mmap_header_apart"):
        length += layout.header
    start = chunk - offset
    if start < 0 or start % page_size or length % page_size or length < page_size:
        return None
    return MmappedChunk(chunk, size_field, prev_size, start, length)


class MmappedFinder:
    """Looks for mmapped chunks in the anonymous memory that no heap takes up."""

    def __init__(
        self,
        words: Words,
        ranges: Sequence[tuple[int, int]],
        taken: Sequence[tuple[int, int]],
        page_size: int,
    ) -> None:
        self._words = words
        self._page = page_size
        self._ranges = [part for whole in ranges for part in _without(whole, taken)]

    def find(self, count: int | None, total: int | None) -> list[MmappedChunk]:
        """Return the mmapped chunks, ascending.

        *count* and *total* are mp_'s n_mmaps and mmapped_mem, None if not known: the search goes
        from the likely places to all of them and ends when they are accounted for.
        """
        if count == 0:
            return []
        found: dict[int, MmappedChunk] = {}
        for search in (self._chains, self._pages, self._moved):
            for chunk in search(found):
                found[chunk.start] = chunk
            if count is not None and self.accounted(found.values(), count, total):
                break
        return [found[start] for start in sorted(found)]

    def accounted(
        self, found: Iterable[MmappedChunk], count: int | None, total: int | None
    ) -> bool:
        """Whether the chunks are as many, and their mappings as large, as mp_ says."""
        lengths = [chunk.length for chunk in found]
        if count is not None and len(lengths) != count:
            return False
        drift = 0 if total is None else total - sum(lengths)
        # Since 2.43 (614cfd0f8a) each mremap adds a header too much to mmapped_mem.
        layout = self._words.layout
        excused = layout.has("mmap_header_apart") and drift % layout.header == 0
        return not drift or (excused and 0 < drift < self._page)

    def _chains(self, _found: Mapping[int, MmappedChunk]) -> list[MmappedChunk]:
        """Return the chunks that fill a range from its start, one behind the other."""
        chunks = []
        for start, end in self._ranges:
            position = start
            while position < end:
                chunk = self._from(position, end)
                if chunk is None:
                    break
                chunks.append(chunk)
                position = chunk.end
        return chunks

    def _from(self, start: int, end: int) -> MmappedChunk | None:
        """Return the chunk whose mapping starts at *start*.

        memalign moves the header up and leaves the old one behind; so a header that stands where
        memalign would put it, and leads back to *start*, is the one that counts.
        """
        first = read_mmapped(self._words, start + self._words.layout.mmap_offset, self._page)
        if first is None or first.start != start or first.end > end:
            return None
        header, mem = self._words.layout.header, first.address + self._words.layout.header
        alignment = 2 * self._words.layout.alignment
        while alignment < end - start:
            aligned = (mem + alignment - 1) & -alignment
            for at in (aligned, aligned + alignment):
                if mem < at < end:
                    moved = read_mmapped(self._words, at - header, self._page)
                    if moved is not None and moved.start == start and moved.end <= end:
                        return moved
            alignment *= 2
        return first

    def _pages(self, found: Mapping[int, MmappedChunk]) -> list[MmappedChunk]:
        """Return the chunks whose mapping starts at any page."""
        offset = self._words.layout.mmap_offset
        chunks: list[MmappedChunk] = []
        behind = 0
        for start, end in self._left(found):
            for chunk, _, _ in self._headers(start, end, offset):
                made = self._from(chunk - offset, end) if chunk >= behind else None
                if made is not None:
                    chunks.append(made)
                    behind = made.end
        return chunks

    def _moved(self, _found: Mapping[int, MmappedChunk]) -> list[MmappedChunk]:
        """Return the chunks that memalign moved and mremap then took elsewhere.

        mem is still at a power of two in its page, or at its start (munmap_chunk checks that since
        2.29). Such a header counts more than an old one at the mapping's start.
        """
        header, offset = self._words.layout.header, self._page // 2
        offsets = [-header]
        while offset > header:
            if offset - header != self._words.layout.mmap_offset:  # there nothing was moved
                offsets.append(offset - header)
            offset //= 2
        chunks = []
        for start, end in self._ranges:
            for at in offsets:
                for chunk, prev_size, size in self._headers(start, end, at):
                    made = decode(self._words, chunk, prev_size, size, self._page)
                    if made and start <= made.start < chunk and made.end <= end:
                        chunks.append(made)
        return chunks

    def _left(self, found: Mapping[int, MmappedChunk]) -> Iterator[tuple[int, int]]:
        taken = [(found[start].start, found[start].end) for start in sorted(found)]
        for whole in self._ranges:
            yield from _without(whole, taken)

    def _headers(self, start: int, end: int, offset: int) -> Iterator[tuple[int, int, int]]:
        """Yield (chunk, prev_size, size word) for each page, of those with M alone set."""
        word = self._words.size
        stride = self._page // word
        first = start + offset % self._page
        for base, view in self._words.blocks(first, end, BLOCK):
            skip = (first - base) % self._page // word
            numbers = self._words.cast(view)
            sizes = numbers[skip + 1 :: stride].tolist()
            for number, size in enumerate(sizes):
                if size & SIZE_BITS == IS_MMAPPED and size > SIZE_BITS:
                    at = skip + number * stride
                    yield base + at * word, int(numbers[at]), size


def _without(whole: tuple[int, int], taken: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield what is left of a range; *taken* is ascending."""
    start, end = whole
    for low, high in taken:
        if high <= start or low >= end:
            continue
        if low > start:
            yield start, low
        start = max(start, high)
    if start < end:
        yield start, end

"""Chunks with a mapping of their own: found from the mappings, checked against mp_'s totals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

    def find(self, count: int | None) -> list[MmappedChunk]:
        """Return the mmapped chunks, ascending.

        *count* is mp_'s n_mmaps, None if not known: the search goes from the likely places to
        all of them and ends when so many are found.
        """
        if count == 0:
            return []
        found: dict[int, MmappedChunk] = {}
        for search in (self._chains, self._pages, self._aligned):
            for chunk in list(search(found)):
                found[chunk.start] = chunk
            if count is not None and len(found) >= count:
                break
        return [found[start] for start in sorted(found)]

    def _chains(self, _found: dict[int, MmappedChunk]) -> Iterator[MmappedChunk]:
        """Yield the chunks that fill a range from its start, one behind the other."""
        for start, end in self._ranges:
            position = start
            while position < end:
                chunk = read_mmapped(
                    self._words, position + self._words.layout.mmap_offset, self._page
                )
                if chunk is None or chunk.start != position or chunk.end > end:
                    break
                yield chunk
                position = chunk.end

    def _pages(self, found: dict[int, MmappedChunk]) -> Iterator[MmappedChunk]:
        """Yield the chunks at the start of any page."""
        yield from self._at(self._words.layout.mmap_offset, found)

    def _aligned(self, found: dict[int, MmappedChunk]) -> Iterator[MmappedChunk]:
        """Yield the chunks that memalign moved: mem is at a power of two in its page, or at 0."""
        header, offset = self._words.layout.header, self._page // 2
        offsets = [-header]
        while offset > header:
            offsets.append(offset - header)
            offset //= 2
        for at in offsets:
            for chunk in list(self._at(at, found)):
                found[chunk.start] = chunk
                yield chunk

    def _at(self, offset: int, found: dict[int, MmappedChunk]) -> Iterator[MmappedChunk]:
        """Yield the chunks at *offset* from the start of a page, outside of what was found."""
        known = sorted(found.values(), key=lambda chunk: chunk.start)
        taken = [(chunk.start, chunk.end) for chunk in known]
        for whole in self._ranges:
            for start, end in _without(whole, taken):
                yield from self._in(start, end, offset)

    def _in(self, start: int, end: int, offset: int) -> Iterator[MmappedChunk]:
        behind = start
        for chunk, prev_size, size_field in self._headers(start, end, offset):
            if chunk < behind:
                continue
            made = decode(self._words, chunk, prev_size, size_field, self._page)
            if made is not None and made.start >= behind and made.end <= end:
                behind = made.end
                yield made

    def _headers(self, start: int, end: int, offset: int) -> Iterator[tuple[int, int, int]]:
        """Yield (chunk, prev_size, size word) for each page, of those with M alone set."""
        word = self._words.size
        stride = self._page // word
        first = start + offset % self._page
        for low in range(first, end, BLOCK):
            for base, view in self._words.spans(low, min(low + BLOCK, end)):
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

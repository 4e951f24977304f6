"""Looking around in a heap: words that may be missing, neighbours, who has an address."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from functools import cached_property

from ...errors import MemoryFault
from ...glibc.layout import SIZE_BITS
from ...heap.columns import CORRUPT, FAST, FREE, TCACHE, USED
from ...heap.heap import Heap
from ...heap.segments import Segment

LISTED = (FREE, TCACHE, FAST, CORRUPT)


class Places:
    """A heap with what the rules ask of it; reads single words, never fails."""

    def __init__(self, heap: Heap) -> None:
        self.heap = heap
        self.layout = heap.layout
        self.word = heap.layout.word
        self.header = heap.layout.header

    def load(self, address: int) -> int | None:
        """Return the word at an address; None if it cannot be read."""
        try:
            return self.heap.words.word(address & self.layout.max_address)
        except MemoryFault:
            return None

    def bytes(self, start: int, end: int) -> bytes:
        """Return the bytes of a small range; empty if one of them cannot be read."""
        if not 0 <= start < end <= self.layout.max_address:
            return b""
        try:
            return self.heap.target.memory.read(start, end - start)
        except MemoryFault:
            return b""

    def size_word(self, chunk: int) -> int | None:
        """Return a chunk's size word."""
        return self.load(chunk + self.word)

    def size(self, chunk: int) -> int | None:
        """Return a chunk's size, flags off."""
        word = self.size_word(chunk)
        return None if word is None else word & ~SIZE_BITS

    def segment_of(self, address: int) -> Segment | None:
        """Return the segment that an address lies in."""
        return self.heap.segment_of(address)

    def row(self, chunk: int) -> tuple[Segment, int] | None:
        """Return where the chunk with this very address is in the columns."""
        segment = self.segment_of(chunk)
        at = None if segment is None else segment.columns.row_at(chunk)
        return None if segment is None or at is None else (segment, at)

    def in_gap(self, address: int) -> bool:
        """Whether an address lies in a stretch in which no chunk is known."""
        segment = self.segment_of(address)
        gaps = () if segment is None else segment.columns.gaps
        return any(gap.start <= address < gap.end for gap in gaps)

    def holding(self, address: int) -> tuple[Segment, int] | None:
        """Return the row of the chunk that an address lies in, also where the walk lost its way."""
        segment = self.segment_of(address)
        if segment is None:
            return None
        at = bisect_right(segment.columns.addresses, address) - 1
        return (segment, at) if at >= 0 else None

    def state(self, chunk: int) -> int | None:
        """Return a chunk's state as in the columns; None if it is no chunk of the walk."""
        found = self.row(chunk)
        return None if found is None else found[0].columns.states[found[1]]

    def below(self, chunk: int) -> int | None:
        """Return the last chunk of the walk below an address, in the same segment."""
        segment = self.segment_of(chunk)
        if segment is None:
            return None
        at = bisect_left(segment.columns.addresses, chunk) - 1
        return segment.columns.addresses[at] if at >= 0 else None

    def above(self, chunk: int) -> int | None:
        """Return the next chunk of the walk above an address, in the same segment."""
        segment = self.segment_of(chunk)
        if segment is None:
            return None
        at = bisect_right(segment.columns.addresses, chunk)
        return segment.columns.addresses[at] if at < len(segment.columns) else None

    def is_used(self, chunk: int | None) -> bool:
        """Whether the program has a chunk, as far as is known."""
        return chunk is not None and self.state(chunk) == USED

    @cached_property
    def tops(self) -> Mapping[int, int]:
        """Top to arena."""
        return {a.top: a.address for a in self.heap.arenas if a.has_top(self.layout)}

"""A heap as it was: every chunk in columns, the bins, and what the blocks held.

Contents are kept whole, as the target's memory while it is there, or as one checksum a block.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..errors import MemoryFault
from ..glibc.layout import SIZE_BITS, Layout
from ..heap.columns import MMAPPED, USED
from ..heap.heap import Heap
from ..memory import ByteMemory, Memory

FEW = 64 << 20  # bytes of heaps whose contents are kept without being asked for
PIECE = 16 << 20  # bytes that are read at once
PAGE = 1 << 12  # the smallest; what cannot be read is missing in whole pages
SEVEN = SIZE_BITS


@dataclass
class Snapshot:
    """All chunks, ascending, mmapped ones too: row i is `addresses[i]`, `sizes[i]`, `states[i]`."""

    name: str  # for people
    glibc: str
    abi: str
    word: int
    header: int
    pid: int | None = None
    addresses: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("Q"))  # size words, with flags
    states: bytearray = field(default_factory=bytearray)  # as in heap.columns
    bins: dict[int, str] = field(default_factory=dict)  # chunk to bin
    own: set[int] = field(default_factory=set)  # the allocator's own chunks: the tcaches
    spans: list[tuple[int, int]] = field(default_factory=list)  # what heaps and mappings take up
    sums: array[int] | None = None  # a checksum of each block in use, 0: not known
    memory: Memory | None = None  # what the blocks held
    problems: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.addresses)

    def block(self, row: int) -> tuple[int, int]:
        """Return where the memory of a block in use begins and ends."""
        start, size = self.addresses[row], self.sizes[row] & ~SIZE_BITS
        mmapped = self.states[row] == MMAPPED
        return start + self.header, start + size + (0 if mmapped else self.word)

    def needed_sums(self) -> array[int]:
        """Return the checksums; they are made of the memory if need be."""
        if self.sums is None:
            self.sums = _sums(self)
        return self.sums


def take(heap: Heap, contents: bool | None = None, live: bool = False) -> Snapshot:
    """Return a heap as it is now.

    *contents*: keep them whole, or checksums only; None: whole if they are few. *live*: the
    target's own memory stands for them, as long as it is there.
    """
    layout, target = heap.layout, heap.target
    made = Snapshot(
        target.name or target.kind,
        layout.release,
        layout.abi,
        layout.word,
        layout.header,
        target.pid,
    )
    _fill(made, heap)
    made.bins = {chunk: found.label for chunk, found in heap.marks.items()}
    made.own = set(heap.owners)
    made.problems = heap.problems
    made.memory = target.memory
    if live:
        return made
    size = sum(end - start for start, end in made.spans)
    if contents or (contents is None and size <= FEW):
        made.memory = _copy(made)
    else:
        made.sums = _sums(made)
        made.memory = None
    return made


def layout_fits(one: Snapshot, layout: Layout) -> bool:
    """Whether a snapshot is of such a machine."""
    return (one.abi, one.word, one.header) == (layout.abi, layout.word, layout.header)


def _fill(made: Snapshot, heap: Heap) -> None:
    """Put all chunks into columns, in the order of their addresses."""
    mmapped = list(heap.mmapped)
    for segment in heap.segments:
        while mmapped and mmapped[0].address < segment.start:
            _add_mmapped(made, mmapped.pop(0))
        made.addresses.extend(segment.columns.addresses)
        made.sizes.extend(segment.columns.sizes)
        made.states.extend(segment.columns.states)
        made.spans.append((segment.start, segment.end))
    for chunk in mmapped:
        _add_mmapped(made, chunk)


def _add_mmapped(made: Snapshot, chunk: object) -> None:
    made.addresses.append(chunk.address)  # type: ignore[attr-defined]
    made.sizes.append(chunk.size_field)  # type: ignore[attr-defined]
    made.states.append(MMAPPED)
    made.spans.append((chunk.start, chunk.end))  # type: ignore[attr-defined]


def pieces(memory: Memory, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
    """Yield what of a range can be read, in pieces; what cannot is left out by the page."""
    waiting = [(low, min(low + PIECE, end)) for low in range(start, end, PIECE)][::-1]
    while waiting:
        low, high = waiting.pop()
        try:
            yield low, memory.view(low, high)
        except MemoryFault:
            middle = (low + high) // 2 & -PAGE
            if low < middle < high:
                waiting += [(middle, high), (low, middle)]


def joined(held: Mapping[int, bytes]) -> dict[int, bytes]:
    """Return pieces by address, those that touch as one.

    :raises ValueError: if two of them overlap.
    """
    parts: list[tuple[int, list[bytes]]] = []
    end = -1
    for start in sorted(held):
        if start < end:
            raise ValueError(start)
        if start == end:
            parts[-1][1].append(held[start])
        else:
            parts.append((start, [held[start]]))
        end = start + len(held[start])
    return {start: b"".join(data) for start, data in parts}


def _copy(made: Snapshot) -> ByteMemory:
    """Return a copy of the memory of all heaps."""
    assert made.memory is not None
    held: dict[int, bytes] = {}
    for start, end in made.spans:
        parts = list(pieces(made.memory, start, end))
        if sum(len(view) for _, view in parts) == end - start:
            held[start] = b"".join(view for _, view in parts)
            continue
        held.update(joined({low: bytes(view) for low, view in parts}))
        made.problems.append(f"{start:#x}-{end:#x}: not all of it can be read")
    return ByteMemory(held)


def _sums(made: Snapshot) -> array[int]:
    """Return a checksum of each block in use; 0 where there is none, or it cannot be read."""
    memory, sums = made.memory, array("I", bytes(4 * len(made)))
    if memory is None:
        return sums
    view, low, high = memoryview(b""), 0, 0
    header, word, checksum = made.header, made.word, zlib.crc32
    starts = [start for start, _ in made.spans]
    for row, state in enumerate(made.states):
        if state not in (USED, MMAPPED):
            continue
        start, size = made.addresses[row], made.sizes[row] & ~SEVEN
        first = start + header
        last = start + size + (word if state == USED else 0)
        if not (low <= first and last <= high):
            view, low, high = _window(made, memory, starts, first, last)
        if low <= first and last <= high:
            sums[row] = checksum(view[first - low : last - low])
    return sums


def _window(
    made: Snapshot, memory: Memory, starts: list[int], first: int, last: int
) -> tuple[memoryview, int, int]:
    """Return a piece of memory from *first* on, as large as is good, at least to *last*."""
    number = bisect_right(starts, first) - 1
    span_end = made.spans[number][1] if number >= 0 else last
    for high in (max(min(first + PIECE, span_end), last), last):
        try:
            return memory.view(first, high), first, high
        except MemoryFault:
            continue
    return memoryview(b""), 0, 0

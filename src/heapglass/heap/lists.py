"""Lists of free chunks: fast, unsorted, small and large bins of an arena.

A list has no limit but its proven end. Where it stops making sense is said in `fault`, and what
can be reached from its other side is still in it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import MemoryFault
from ..glibc import safelink
from ..glibc.layout import SIZE_BITS, Layout
from .arena import Arena
from .words import Words

KINDS = ("tcache", "fast", "unsorted", "small", "large")


@dataclass
class FreeList:
    """A list of free chunks, as far as it could be followed."""

    kind: str  # one of KINDS
    index: int  # glibc's: bin_at's for unsorted, small, large; from 0 for tcache and fast
    min_size: int | None  # chunk sizes that belong here; None: any
    max_size: int | None
    arena: int | None = None
    thread: int | None = None
    chunks: list[int] = field(default_factory=list)  # headers, in malloc's order
    fault: str | None = None  # where and why the list makes no sense
    lost: bool = False  # whether chunks may be in it that could not be reached
    stored_count: int | None = None  # tcache: what the counter says

    @property
    def label(self) -> str:
        """The name of the bin in output: `tcache[0x20]`, `unsorted`, `large[0x400]`."""
        return self.kind if self.min_size is None else f"{self.kind}[{self.min_size:#x}]"

    def holds(self, size: int) -> bool:
        """Whether a chunk of this size belongs into the list."""
        if self.min_size is not None and size < self.min_size:
            return False
        return self.max_size is None or size <= self.max_size

    def complain(self, fault: str) -> None:
        """Keep the first fault: later ones follow from it."""
        if self.fault is None:
            self.fault = fault


def fast_lists(words: Words, arena: Arena) -> list[FreeList]:
    """Read every fastbin of an arena; none where the release has none.

    Every second index is unused on ILP32 with 16-byte alignment and is left out if it is empty.
    """
    lists = [
        read_fast(words, arena.address, index, head) for index, head in enumerate(arena.fastbins)
    ]
    return [found for found in lists if found is not None]


def read_fast(words: Words, arena: int, index: int, head: int) -> FreeList | None:
    """Read one fastbin from its head; None for an empty one that no size falls into."""
    layout = words.layout
    size = layout.fastbin_size(index)
    if (size < layout.min_chunk or size % layout.alignment) and not head:
        return None
    found = FreeList("fast", index, size, size, arena=arena)
    follow_single(words, found, head, layout.header, chunk_is_link=True)
    return found


def follow_single(
    words: Words, found: FreeList, head: int, header: int, chunk_is_link: bool
) -> None:
    """Follow a singly linked list (fast, tcache) from *head* and fill *found*.

    *chunk_is_link*: the links are chunk addresses (fastbins), else mem addresses (tcache). The
    link stands at mem, protected where the release has safe-linking; the head is plain.
    """
    protected = words.layout.has("safe_linking")
    mask = words.layout.alignment - 1
    shift = header if chunk_is_link else 0  # from a link to mem
    seen: set[int] = set()
    link = head
    while link:
        mem = link + shift
        chunk = mem - header
        if mem & mask or chunk < 0:
            return _break(
                found, f"{link:#x} is not aligned, so it is no {'chunk' if shift else 'mem'}"
            )
        if chunk in seen:
            return _break(found, f"loop: {chunk:#x} comes again after {len(found.chunks)} chunks")
        try:
            size, stored = words.words(mem - words.size, 2)
        except MemoryFault:
            return _break(found, f"{chunk:#x} cannot be read")
        seen.add(chunk)
        found.chunks.append(chunk)
        if not found.holds(size & ~SIZE_BITS):
            found.complain(f"{chunk:#x} has size {size & ~SIZE_BITS:#x}, wrong for {found.label}")
        link = safelink.reveal(mem, stored) if protected else stored
    return None


def _break(found: FreeList, fault: str) -> None:
    found.complain(fault)
    found.lost = True


def bin_lists(words: Words, arena: Arena) -> list[FreeList]:
    """Read the unsorted bin and every small and large bin of an arena."""
    if not arena.initialised:
        return []
    lists = [
        read_bin(words, arena.address, index, arena.bins[2 * index - 2 : 2 * index])
        for index in range(1, len(arena.bins) // 2 + 1)
    ]
    return [found for found in lists if found is not None]


def read_bin(words: Words, arena: int, index: int, head: Sequence[int]) -> FreeList | None:
    """Read one bin from its own fd and bk; None for an empty one that no size falls into."""
    layout = words.layout
    kind = "unsorted" if index == 1 else "small" if index < 64 else "large"
    sizes = (None, None) if index == 1 else layout.bin_range(index)
    bin_ = layout.bin_at(arena, index)
    empty = tuple(head) == (bin_, bin_)
    if sizes is None:
        if empty:
            return None
        sizes = (None, None)  # a bin that no size falls into, and yet something is in it
    found = FreeList(kind, index, sizes[0], sizes[1], arena=arena)
    if not empty:
        order = "<" if layout.order == "little" else ">"
        header = struct.Struct(order + ("4Q" if layout.word == 8 else "4I"))
        _DoubleWalk(words, found, bin_, header).run(*head)
    return found


class _DoubleWalk:
    """One walk along fd, and where that breaks, one along bk from the other end."""

    def __init__(self, words: Words, found: FreeList, bin_: int, header: struct.Struct) -> None:
        self._read = words.memory.read
        self._layout: Layout = words.layout
        self._found = found
        self._bin = bin_
        self._header = header

    def run(self, fd: int, bk: int) -> None:
        """Fill the list, from the bin's own fd and bk."""
        seen: set[int] = set()
        chunks, fault, last = self._side(fd, seen, forward=True)
        self._found.chunks = chunks
        if fault is None:
            if bk != last:
                self._found.complain(f"the bin's bk is {bk:#x}, but the last chunk is {last:#x}")
            return
        self._found.complain(fault)
        behind, other, _ = self._side(bk, seen, forward=False)
        chunks.extend(reversed(behind))
        # Met in the middle: the chunk where the way back ended is one that was reached before.
        self._found.lost = other is None or not other.startswith("loop")

    def _side(self, link: int, seen: set[int], forward: bool) -> tuple[list[int], str | None, int]:
        chunks: list[int] = []
        before, mask, holds = self._bin, self._layout.alignment - 1, self._found.holds
        header, bin_, mem = self._layout.header, self._bin, self._layout.header
        unpack, size = self._header.unpack, self._header.size
        complain: Callable[[str], None] = self._found.complain
        while link != bin_:
            if (link + mem) & mask:
                return chunks, f"{before:#x} links to {link:#x}, which is not aligned", before
            if link in seen:
                return chunks, f"loop: {before:#x} links back to {link:#x}", before
            try:
                _, word, fd, bk = unpack(self._read(link, size))
            except MemoryFault:
                return chunks, f"{before:#x} links to {link:#x}, which cannot be read", before
            back, onward = (bk, fd) if forward else (fd, bk)
            if back != before and forward:
                complain(f"bk of {link:#x} is {back:#x}, not {before:#x}")
            seen.add(link)
            chunks.append(link)
            if not holds(word & ~SIZE_BITS) or word & ~SIZE_BITS <= header:
                complain(
                    f"{link:#x} has size {word & ~SIZE_BITS:#x}, wrong for {self._found.label}"
                )
            before, link = link, onward
        return chunks, None, before

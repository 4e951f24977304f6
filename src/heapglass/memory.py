"""Sources of bytes: the one way in which anything else touches a target. Read only.

A `Memory` reads exactly or raises `MemoryFault`; it never pads and never returns less.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from .errors import MemoryFault


class Region(NamedTuple):
    """A range of addresses of the target, as the kernel or the core describes it."""

    start: int
    end: int
    perms: str = "rw-"  # "rwx" with dashes; what is unknown is taken as "rw-"
    path: str = ""  # file that is mapped, "[heap]"-like names of the kernel, or empty: anonymous
    offset: int = 0  # in that file, bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def anonymous(self) -> bool:
        """Whether no file is behind it ("[heap]", "[stack]" and "[anon: …]" are anonymous).

        Linux calls memory made of huge pages by MAP_HUGETLB "/anon_hugepage (deleted)".
        """
        return not self.path or self.path.startswith(("[", "/anon_hugepage"))


class Memory(Protocol):
    """A read-only address space."""

    def read(self, address: int, size: int) -> bytes:
        """Return exactly *size* bytes, starting at *address*.

        :raises MemoryFault: if any of them is missing. Never short, never padded.
        """
        ...

    def regions(self) -> Sequence[Region]:
        """Return what is mapped, ascending, not overlapping; empty if that is not known."""
        ...

    def view(self, start: int, end: int) -> memoryview:
        """Return the bytes from *start* to *end* as one read-only buffer, for bulk work.

        No copy where the source can do without, one copy otherwise.

        :raises MemoryFault: if any of them is missing.
        """
        ...


@runtime_checkable
class Sparse(Protocol):
    """Memory that knows where it has nothing but zeros: far larger, maybe, than it can be read."""

    def possibly_set(self, start: int, end: int) -> Sequence[tuple[int, int]]:
        """Return the parts of a range that may hold anything but zeros, ascending."""
        ...


@runtime_checkable
class Limited(Protocol):
    """Memory whose views are copies, for which there is only so much room."""

    def at_once(self) -> int:
        """Return how many bytes of a range are better not copied at once, but in windows."""
        ...


class ByteMemory:
    """Memory made of pieces of bytes: for tests, recordings and the model.

    *pieces* maps a start address to its bytes; pieces must not overlap.
    """

    def __init__(self, pieces: dict[int, bytes], regions: Sequence[Region] | None = None) -> None:
        self._starts = sorted(pieces)
        self._pieces = [bytearray(pieces[start]) for start in self._starts]
        self._regions = regions

    def _piece(self, address: int, size: int) -> tuple[int, bytearray]:
        number = bisect_right(self._starts, address) - 1
        if number < 0 or size < 0:
            raise MemoryFault(address, size)
        offset, piece = address - self._starts[number], self._pieces[number]
        if offset + size > len(piece):
            raise MemoryFault(address, size)
        return offset, piece

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*; see `Memory.read`."""
        offset, piece = self._piece(address, size)
        return bytes(piece[offset : offset + size])

    def regions(self) -> Sequence[Region]:
        """Return the pieces, or the regions given at the start."""
        if self._regions is not None:
            return self._regions
        return [Region(s, s + len(p)) for s, p in zip(self._starts, self._pieces)]

    def view(self, start: int, end: int) -> memoryview:
        """Return a buffer over a piece, without a copy."""
        offset, piece = self._piece(start, end - start)
        return memoryview(piece).toreadonly()[offset : offset + end - start]

    def write(self, address: int, data: bytes) -> None:
        """Overwrite bytes. Only this class has it: what it holds is ours, not a target's.

        :raises MemoryFault: if any of the bytes is outside of the pieces.
        """
        offset, piece = self._piece(address, len(data))
        piece[offset : offset + len(data)] = data


class CachedMemory:
    """Memory that fetches whole blocks from a slow source, such as gdb.

    Drop it when the target goes on: it never looks again at a block.
    """

    def __init__(self, source: Memory, block_size: int = 1 << 14, blocks: int = 1 << 13) -> None:
        self._source = source
        self._block_size = block_size
        self._most = blocks
        self._blocks: dict[int, bytes | None] = {}

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*; see `Memory.read`."""
        number, start = divmod(address, self._block_size)
        if not 0 <= size <= self._block_size:
            return self._source.read(address, size)
        block = self._block(number)
        if block is not None and start + size > self._block_size:
            following = self._block(number + 1)
            block = None if following is None else block + following
        if block is None:
            return self._source.read(address, size)  # at the edge of a mapping
        return block[start : start + size]

    def _block(self, number: int) -> bytes | None:
        if number not in self._blocks:
            if len(self._blocks) >= self._most:
                self._blocks.clear()
            self._blocks[number] = self._fetch(number)
        return self._blocks[number]

    def _fetch(self, number: int) -> bytes | None:
        try:
            return self._source.read(number * self._block_size, self._block_size)
        except MemoryFault:
            return None

    def regions(self) -> Sequence[Region]:
        """Return the source's regions."""
        return self._source.regions()

    def view(self, start: int, end: int) -> memoryview:
        """Return the source's view: large pieces are not worth a cache."""
        return self._source.view(start, end)

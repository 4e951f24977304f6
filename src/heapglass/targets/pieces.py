"""Memory made of pieces of files: what a core dumped, and mapped files behind what it left out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from mmap import mmap
from typing import NamedTuple, Union

from ..errors import MemoryFault
from ..memory import Region

Data = Union[mmap, bytes]
MORE = 1 << 20  # pieces that one read may span


class Backing(NamedTuple):
    """What a file gave for a piece: its bytes, or why not."""

    data: Data | None
    why: str = ""


class Piece(NamedTuple):
    """A range of addresses, and where its bytes are."""

    start: int
    end: int
    data: Data | None  # None: not opened yet, or missing
    at: int = 0  # offset of *start* in the data
    why: str = ""  # if missing: the reason
    opener: Callable[[], Backing] | None = None  # asked once, when somebody reads


class PieceMemory:
    """Pieces of files as one address space. A `Memory`.

    A read is one bisection and one slice; a view inside one piece is no copy.
    """

    def __init__(self, pieces: Iterable[Piece], regions: Sequence[Region]) -> None:
        self._pieces = sorted(pieces, key=lambda piece: piece.start)
        self._starts = [piece.start for piece in self._pieces]
        self._regions = tuple(regions)

    def regions(self) -> Sequence[Region]:
        """Return what was mapped, also where the bytes are missing."""
        return self._regions

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*; see `Memory.read`."""
        number = bisect_right(self._starts, address) - 1
        if number >= 0 <= size:
            start, end, data, at, _, _ = self._pieces[number]
            if data is not None and address + size <= end:
                at += address - start
                return data[at : at + size]
        return b"".join(self._gather(address, size))

    def view(self, start: int, end: int) -> memoryview:
        """Return the bytes from *start* to *end*; a copy only if several pieces have them."""
        parts = self._gather(start, end - start)
        if len(parts) == 1:
            return parts[0]
        return memoryview(b"".join(parts))

    def _gather(self, address: int, size: int) -> list[memoryview]:
        """Return the pieces of a range, without a copy.

        :raises MemoryFault: that names the first byte that is missing.
        """
        if size < 0:
            raise MemoryFault(address, size, "a negative size")
        parts: list[memoryview] = []
        here, end = address, address + size
        for _ in range(MORE):
            piece = self._piece(here, end - here)
            upto = min(end, piece.end)
            at = piece.at + here - piece.start
            assert piece.data is not None
            parts.append(memoryview(piece.data)[at : at + upto - here])
            here = upto
            if here >= end:
                return parts
        raise MemoryFault(here, end - here, "it is in too many pieces")

    def _piece(self, address: int, size: int) -> Piece:
        """Return the piece that has the byte at *address*, opened."""
        number = bisect_right(self._starts, address) - 1
        if number < 0 or address >= self._pieces[number].end:
            raise MemoryFault(address, size, "not mapped")
        if self._pieces[number].opener is not None:
            self._open(number)
            return self._piece(address, size)
        piece = self._pieces[number]
        if piece.data is None:
            raise MemoryFault(address, size, piece.why)
        return piece

    def _open(self, number: int) -> None:
        """Put what the file has in the place of a piece that waits for it."""
        piece = self._pieces[number]
        backing = piece.opener() if piece.opener is not None else Backing(None)
        closed = piece._replace(opener=None)
        if backing.data is None:
            self._pieces[number] = closed._replace(data=None, why=backing.why)
            return
        have = max(0, min(piece.end, piece.start + len(backing.data) - piece.at))
        parts = [closed._replace(data=backing.data, end=have)] if have > piece.start else []
        if have < piece.end:
            missing = "it lies behind the end of the mapped file"
            low = max(have, piece.start)
            parts.append(Piece(low, piece.end, None, why=missing))
        self._pieces[number : number + 1] = parts
        self._starts[number : number + 1] = [part.start for part in parts]

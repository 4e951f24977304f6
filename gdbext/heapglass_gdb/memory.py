"""The memory of gdb's inferior: a process or a remote target. Read only."""

from __future__ import annotations

from collections.abc import Sequence

import gdb

from heapglass.errors import MemoryFault
from heapglass.memory import CachedMemory, Limited, Memory, Region
from heapglass.room import Room

PIECE = 16 << 20  # bytes asked of gdb at once: it hears Ctrl-C between two, and dies of too many
END = 1 << 64
LEAST_KEPT = 1 << 12  # bytes of a view that is kept; of a smaller one its block is
LARGE = 1 << 20
MOST_KEPT = 1 << 12


class GdbMemory:
    """Reads through gdb. *regions* are the mappings, as far as they are known."""

    def __init__(self, inferior: gdb.Inferior, regions: Sequence[Region], room: Room) -> None:
        self._read_memory = inferior.read_memory
        self._regions = regions
        self._room = room

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*, or raise MemoryFault."""
        if size > PIECE:
            return bytes(self.view(address, address + size))
        if size < 0 or not 0 <= address <= END - size:
            raise MemoryFault(address, size, "no such addresses")
        try:
            return bytes(self._read_memory(address, size)) if size else b""
        except (gdb.MemoryError, gdb.error, OverflowError, ValueError) as error:
            raise MemoryFault(address, size) from error

    def regions(self) -> Sequence[Region]:
        """Return the mappings, empty if they are not known."""
        return self._regions

    def view(self, start: int, end: int) -> memoryview:
        """Return the bytes from *start* to *end*, read in pieces."""
        if end - start <= PIECE:
            return memoryview(self.read(start, end - start))
        if self._regions and end - start > sum(region.size for region in self._regions):
            raise MemoryFault(start, end - start, "more than the process has mapped")
        self.read(end - 1, 1)  # a wild end is found before much is read
        pieces = self._room.buffer(start, end - start)
        for low in range(start, end, PIECE):
            high = min(low + PIECE, end)
            pieces[low - start : high - start] = self.read(low, high - low)
        return pieces.toreadonly()

    def at_once(self) -> int:
        """Return how many bytes there is room for in memory."""
        return self._room.limit


class KeptMemory:
    """Memory of a target that stands still: each byte is asked for once.

    *bulk* gives large pieces, *source* the small ones. Large pieces are kept up to a limit, those
    that were read first go first.
    """

    def __init__(self, source: Memory, bulk: Memory, limit: int) -> None:
        self._small = CachedMemory(source)
        self._bulk = bulk
        self._limit = limit
        self._held: dict[tuple[int, int], memoryview] = {}
        self._size = 0

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*; see `Memory.read`."""
        return self._small.read(address, size)

    def regions(self) -> Sequence[Region]:
        """Return the mappings, empty if they are not known."""
        return self._small.regions()

    def view(self, start: int, end: int) -> memoryview:
        """Return the bytes from *start* to *end* in one buffer, which may be of an earlier time."""
        if end - start < LEAST_KEPT:
            return memoryview(self.read(start, end - start))
        known = self._known(start, end)
        if known is not None:
            return known
        if end - start > self._limit:
            return self._bulk.view(start, end)
        self._make_room(end - start)
        data = self._held[start, end] = self._bulk.view(start, end)
        self._size += end - start
        return data

    def at_once(self) -> int:
        """Return how many bytes large pieces should have at most: what is kept is a copy or not."""
        return self._bulk.at_once() if isinstance(self._bulk, Limited) else END

    def _known(self, start: int, end: int) -> memoryview | None:
        """Return what was read before; a part only of what is large, of which there are few."""
        known = self._held.get((start, end))
        if known is not None:
            return known
        for (low, high), data in self._held.items():
            if low <= start and end <= high and high - low >= LARGE:
                return data[start - low : end - low]
        return None

    def _make_room(self, size: int) -> None:
        """Let go what was read first, until so much more is within the limit."""
        while self._held and (self._size + size > self._limit or len(self._held) >= MOST_KEPT):
            low, high = next(iter(self._held))
            del self._held[low, high]
            self._size -= high - low

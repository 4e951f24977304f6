"""The memory of gdb's inferior: a process or a remote target. Read only."""

from __future__ import annotations

from collections.abc import Sequence

import gdb

from heapglass.errors import MemoryFault
from heapglass.memory import Region

PIECE = 16 << 20  # bytes asked of gdb at once: it hears Ctrl-C between two, and dies of too many
END = 1 << 64


class GdbMemory:
    """Reads through gdb. *regions* are the mappings, as far as they are known."""

    def __init__(self, inferior: gdb.Inferior, regions: Sequence[Region]) -> None:
        self._read_memory = inferior.read_memory
        self._regions = regions

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
        pieces = bytearray()
        for low in range(start, end, PIECE):
            pieces += self.read(low, min(PIECE, end - low))
        return memoryview(pieces).toreadonly()

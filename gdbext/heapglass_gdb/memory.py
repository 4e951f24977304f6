"""The memory of gdb's inferior: a process or a remote target. Read only."""

from __future__ import annotations

from collections.abc import Sequence

import gdb

from heapglass.errors import MemoryFault
from heapglass.memory import Region

PIECE = 16 << 20  # bytes asked of gdb at once, so that Ctrl-C is heard between two


class GdbMemory:
    """Reads through gdb. *regions* are the mappings, as far as they are known."""

    def __init__(self, inferior: gdb.Inferior, regions: Sequence[Region]) -> None:
        self._read_memory = inferior.read_memory
        self._regions = regions

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*, or raise MemoryFault."""
        try:
            return bytes(self._read_memory(address, size)) if size > 0 else b""
        except (gdb.MemoryError, gdb.error, OverflowError, ValueError) as error:
            raise MemoryFault(address, size) from error

    def regions(self) -> Sequence[Region]:
        """Return the mappings, empty if they are not known."""
        return self._regions

    def view(self, start: int, end: int) -> memoryview:
        """Return the bytes from *start* to *end*, read in pieces."""
        if end - start <= PIECE:
            return memoryview(self.read(start, end - start))
        if self._regions and not any(r.start <= start < r.end for r in self._regions):
            raise MemoryFault(start, end - start)
        pieces = bytearray()
        for low in range(start, end, PIECE):
            pieces += self.read(low, min(PIECE, end - low))
            gdb.parameter("width")  # a call into gdb: it hears Ctrl-C
        return memoryview(pieces).toreadonly()

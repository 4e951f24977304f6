"""Room for copies of a target's memory: in this machine's memory up to a limit, then in files.

A heap may be larger than the memory of the machine that looks at it. What is over the limit goes
into unnamed temporary files that are mapped: the system keeps of them what is being worked on.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref

from .errors import MemoryFault

SHARE = 4  # of this machine's memory one part of so many, if no limit is given
SMALL = 1 << 20  # bytes; what is smaller is not counted


def default_limit() -> int:
    """Return a quarter of this machine's memory, in bytes."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // SHARE
    except (ValueError, OSError):
        return 1 << 30


class Room:
    """Makes buffers and knows how many bytes of those that are in use are in memory."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = default_limit() if limit is None else limit
        self.held = 0  # bytes in memory now
        self.in_files = 0  # bytes that went to files, ever

    def buffer(self, address: int, size: int) -> memoryview:
        """Return a writable buffer of zeros for what stands at an address.

        :raises MemoryFault: if there is no room for it, neither in memory nor in a file.
        """
        try:
            if size < SMALL:
                return memoryview(bytearray(size))
            if self.held + size <= self.limit:
                return self._in_memory(size)
            return self._in_file(size)
        except (MemoryError, OverflowError, ValueError) as error:
            raise MemoryFault(address, size, "more than this machine can hold") from error
        except OSError as error:
            folder = tempfile.gettempdir()
            why = f"{size:#x} bytes are over the memory limit, and {folder}: {error.strerror}"
            raise MemoryFault(address, size, f"{why} (TMPDIR names another folder)") from error

    def _in_memory(self, size: int) -> memoryview:
        try:
            made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError from error
        self.held += size
        weakref.finalize(made, self._give_back, size)
        return memoryview(made)

    def _give_back(self, size: int) -> None:
        self.held -= size

    def _in_file(self, size: int) -> memoryview:
        with tempfile.TemporaryFile(prefix="heapglass-") as file:
            os.posix_fallocate(file.fileno(), 0, size)  # now, not when it is written to
            self.in_files += size
            return memoryview(mmap.mmap(file.fileno(), size))

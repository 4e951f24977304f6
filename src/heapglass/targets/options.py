"""What a user can say about where the files of a target are."""

from __future__ import annotations

from dataclasses import dataclass

from ..progress import Report, quiet

DEBUG_DIR = "/usr/lib/debug"
UNPACK_LIMIT = 64 << 30  # bytes, of what comes out of a compressed core


@dataclass(frozen=True)
class OpenOptions:
    """Where to look for the files of the machine on which the target ran, and limits."""

    exe: str = ""  # the program itself; empty: as the target names it
    sysroot: str = ""  # folder in which the target's paths are looked up; empty: this machine
    debug_dirs: tuple[str, ...] = (DEBUG_DIR,)  # separate debug files, first wins; may be none
    memory_limit: int | None = None  # bytes of copies in memory; None: a quarter of all there is
    unpack_limit: int | None = None  # bytes; None: HEAPGLASS_UNPACK_LIMIT, else UNPACK_LIMIT
    report: Report = quiet

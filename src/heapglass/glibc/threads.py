"""Thread control blocks: where a thread's DTV is, seen from its thread pointer.

The DTV holds the address of each module's TLS block, so that a TLS symbol's offset becomes an
address without libthread_db. `dtv[-1]` counts the entries, each is two words, `dtv[1]` is the first
module's (sysdeps/*/nptl/tls.h, elf/dl-tls.c).
"""

from __future__ import annotations

from typing import NamedTuple


class ControlBlock(NamedTuple):
    """Offsets from the thread pointer, in bytes; None where the port has no such thing."""

    abi: str
    dtv: int  # the word that points to dtv[0]
    self_pointers: tuple[int, ...] = ()  # words that hold the thread pointer itself
    tid: int | None = None  # the kernel's thread id (int), struct pthread
    # Where struct pthread ends at the thread pointer: bytes from its thread id to `robust_head`,
    # which points to itself (up to 2.33 `pid` stands between). Its size differs by release.
    robust: tuple[int, ...] = ()


CONTROL_BLOCKS: dict[str, ControlBlock] = {
    block.abi: block
    for block in (
        ControlBlock("x86_64", 8, (0, 16), 0x2D0),
        ControlBlock("i386", 4, (0, 8), 0x68),
        ControlBlock("x32", 4, (0, 8)),
        ControlBlock("aarch64", 0, robust=(16,)),
        ControlBlock("arm", 0, robust=(4, 8)),
        ControlBlock("riscv64", -16),
        ControlBlock("ppc64le", -0x7008),
        ControlBlock("ppc64", -0x7008),
        ControlBlock("s390x", 8, (0, 16)),
    )
}
MAX_MODULES = 4096  # entries of a DTV that are believed
MOST_BEHIND_TID = 0x1000  # bytes of struct pthread behind the thread id; it has up to 0x690

"""PTR_MANGLE: how setjmp and the lists of atexit store pointers, and where the key is.

The word stored is rol (pointer ^ key, rotate). The key, the pointer guard, stands in each thread's
control block, or in `__pointer_chk_guard` of ld.so (sysdeps/*/pointer_guard.h, tls.h).
"""

from __future__ import annotations

from typing import NamedTuple

KEY_SYMBOL = "__pointer_chk_guard"


class Mangling(NamedTuple):
    """How an ABI mangles."""

    abi: str
    guard: int | None = None  # of the key from the thread pointer; None: it has a symbol
    rotate: int = 0  # bits to the left
    mangled: bool = True  # False: the port stores pointers as they are


MANGLINGS: dict[str, Mangling] = {
    one.abi: one
    for one in (
        Mangling("x86_64", 0x30, 17),
        Mangling("i386", 0x18, 9),
        Mangling("aarch64"),
        Mangling("arm"),
        Mangling("riscv64", mangled=False),
        Mangling("ppc64le", -0x7018),
        Mangling("ppc64", -0x7018),
        Mangling("s390x", 0x28),  # the stack guard serves; later releases have the symbol
    )
}


def demangle(stored: int, key: int, rotate: int, word: int) -> int:
    """Return the pointer that a stored word of *word* bytes stands for."""
    bits = 8 * word
    turned = (stored >> rotate | stored << (bits - rotate)) & ((1 << bits) - 1)
    return turned ^ key

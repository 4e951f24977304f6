"""Heaps in which pointers are stored as PTR_MANGLE does it."""

from __future__ import annotations

from typing import Any

from heapglass.glibc.mangling import MANGLINGS
from heapglass.memory import Region

from .held import STACK, HeldHeap

KEY = 0x71B3_5D09_E2C4_A68F


def mangled_heap(word: int) -> HeldHeap:
    """The key is in the thread's control block."""
    made = HeldHeap(8, word)
    made.target.threads = [made.target.threads[0]._replace(tp=STACK + 0xF00)]
    guard = MANGLINGS[made.layout.abi].guard
    assert guard is not None
    made.set_word(STACK + 0xF00 + guard, KEY % (1 << 8 * word))
    made.memory.regions = with_code(made)  # type: ignore[method-assign]
    return made


def with_code(made: HeldHeap) -> Any:
    regions = [*made.memory.regions(), Region(CODE, CODE + 0x1000, "r-x", "/program")]
    return lambda: sorted(regions)


CODE = 0x200000


def store_mangled(made: HeldHeap, at: int, value: int) -> None:
    """Write a word as PTR_MANGLE does, and behind it the address of code."""
    word = made.layout.word
    bits, turn = 8 * word, {8: 17, 4: 9}[word]
    for number, one in enumerate((value, CODE + 0x123)):
        mixed = (one ^ KEY) % (1 << bits)
        made.set_word(at + number * word, (mixed << turn | mixed >> (bits - turn)) % (1 << bits))

"""Safe-linking, PROTECT_PTR of glibc commit a1a486d70e (2.32): tcache `next` and fastbin `fd`."""

from __future__ import annotations

SHIFT = 12  # on every port, whatever the page size


def protect(position: int, pointer: int) -> int:
    """Return the word that is stored at address *position* for *pointer* (0: the list's end)."""
    return (position >> SHIFT) ^ pointer


def reveal(position: int, stored: int) -> int:
    """Return the pointer that the word *stored* at address *position* stands for."""
    return (position >> SHIFT) ^ stored


def recover(stored: int, bits: int = 48) -> int:
    """Return the pointer if the word stands in the same page as what it points to.

    Each group of twelve bits hides the next: the highest is plain. Right only if *position* and
    pointer agree in all bits above the lowest twelve; with a word of a neighbouring page the
    result is off in a few low bits.
    """
    pointer = 0
    for shift in range(bits - SHIFT, -SHIFT, -SHIFT):
        low = max(shift, 0)
        mask = ((1 << SHIFT) - 1) << low
        pointer |= (stored ^ (pointer >> SHIFT)) & mask
    return pointer

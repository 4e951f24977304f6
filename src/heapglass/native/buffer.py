"""A piece of a target's memory as the loops take it: bytes, where they stand, and the machine."""

from __future__ import annotations

import sys
from array import array
from functools import cached_property
from typing import NamedTuple

CODES = {8: "Q", 4: "I"}
Places = tuple[int, int]  # addresses from the first one to behind the last


class Chain(NamedTuple):
    """What chunks that lie behind each other must be like to be taken for chunks."""

    limit: int  # a chain that ends here to the byte is one, however short
    past: int  # so is one with *need* chunks at or behind this address
    need: int
    alignment: int
    least: int  # MINSIZE
    wrong: int  # bits that no size word has


class Keep(NamedTuple):
    """Which rows a walk keeps that does not keep all."""

    marks: array[int]  # addresses, ascending: the chunk there, and the one behind it
    stretch: int  # bytes from a row that was kept to the next one, roughly


class Cells(NamedTuple):
    """A range from *base* on in *number* pieces of *unit* bytes."""

    base: int
    unit: int
    number: int


class Buffer:
    """Bytes of a target from the address *base* on, of words of *word* bytes in *order*."""

    def __init__(self, data: memoryview, base: int, word: int, order: str) -> None:
        self.data = data if data.format == "B" else data.cast("B")
        self.base, self.word, self.order = base, word, order
        self.swap = order != sys.byteorder

    @cached_property
    def words(self) -> memoryview:
        """The whole words as integers, swapped if need be; bytes behind the last are left out."""
        whole = self.data[: len(self.data) // self.word * self.word]
        code = CODES[self.word]
        if not self.swap:
            return whole.cast(code)  # type: ignore[call-overload, no-any-return]
        swapped = array(code, whole.tobytes())
        swapped.byteswap()
        return memoryview(swapped).toreadonly()

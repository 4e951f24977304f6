"""A piece of a target's memory as the loops take it: bytes, where they stand, and the machine."""

from __future__ import annotations

import sys
from array import array
from functools import cached_property

CODES = {8: "Q", 4: "I"}


class Buffer:
    """Bytes of a target from the address *base* on, of words of *word* bytes in *order*."""

    def __init__(self, data: memoryview, base: int, word: int, order: str) -> None:
        self.data = data if data.format == "B" else data.cast("B")
        self.base, self.word = base, word
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

"""Words and structs out of a target's memory, in its own word size and byte order."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from typing import Literal, cast

from ..errors import MemoryFault
from ..glibc.layout import Layout
from ..glibc.structs import Struct
from ..memory import Limited, Memory, Sparse
from ..native import Buffer

_CODES = {8: "Q", 4: "I", 2: "H", 1: "B"}
PAGE = 4096  # the smallest; what cannot be read is missing in whole pages
TRIES = 1 << 10  # reads of a region of which a part is missing
WINDOWS = 4  # in what there is room for: one is read while others are in use or kept
LEAST_WINDOW = 1 << 19  # bytes
Order = Literal["little", "big"]


class Words:
    """Memory seen as words. Reads nothing by itself, keeps nothing."""

    def __init__(self, memory: Memory, layout: Layout) -> None:
        self.memory = memory
        self.layout = layout
        self.size = layout.word
        self.order = cast(Order, layout.order)
        self._read = memory.read
        self.at_once = memory.at_once() if isinstance(memory, Limited) else 1 << 64
        self.window = max(self.at_once // WINDOWS & -PAGE, LEAST_WINDOW)  # bytes
        self._prefix = "<" if layout.order == "little" else ">"

    def word(self, address: int) -> int:
        """Return the word at *address*, unsigned.

        :raises MemoryFault: if it cannot be read.
        """
        return int.from_bytes(self._read(address, self.size), self.order)

    def words(self, address: int, count: int) -> tuple[int, ...]:
        """Return *count* words from *address* on.

        :raises MemoryFault: if one of them cannot be read.
        """
        return self.numbers(address, self.size, count)

    def numbers(self, address: int, size: int, count: int) -> tuple[int, ...]:
        """Return *count* unsigned numbers of *size* bytes each.

        :raises MemoryFault: if one of them cannot be read.
        """
        data = self._read(address, size * count)
        return struct.unpack(f"{self._prefix}{count}{_CODES[size]}", data)

    def struct(self, layout: Struct, address: int) -> dict[str, tuple[int, ...]]:
        """Return all fields of a struct, read in one piece; each a tuple of its elements.

        :raises MemoryFault: if a part of the struct cannot be read.
        """
        data = self._read(address, layout.size)
        return {
            name: struct.unpack_from(
                f"{self._prefix}{field.length}{_CODES[field.size]}", data, field.offset
            )
            for name, field in layout.fields.items()
        }

    def cast(self, view: memoryview) -> memoryview:
        """Return a buffer of whole words as a memoryview of integers, swapped if need be.

        Bytes behind the last whole word are left out.
        """
        return self.buffer(0, view).words

    def buffer(self, base: int, view: memoryview) -> Buffer:
        """Return bytes that stand at *base* as the loops take them."""
        return Buffer(view, base, self.size, self.order)

    def spans(self, start: int, end: int) -> list[tuple[int, memoryview]]:
        """Return the readable parts of a range, ascending: (address, bytes).

        One piece where all of it can be read. Otherwise the regions of the memory say where to
        look; with none known nothing is returned.
        """
        if end <= start:
            return []
        try:
            return [(start, self.memory.view(start, end))]
        except MemoryFault:
            pass
        found, regions = [], self.memory.regions()
        for number in range(max(bisect_left(regions, (start,)) - 1, 0), len(regions)):
            low, high = max(start, regions[number].start), min(end, regions[number].end)
            if regions[number].start >= end:
                break
            if low < high:
                found += self._readable(low, high)
        return found

    def blocks(
        self, start: int, end: int, size: int | None = None, overlap: int = 0
    ) -> Iterator[tuple[int, memoryview]]:
        """Yield the readable parts of a range in pieces of *size* bytes or less, ascending.

        None: all at once if there is room for that, else in windows. Each goes on into the next by
        *overlap* bytes. The range may be far larger than what can be read of it: where nothing can
        be read the next region is next.
        """
        if size is None and end - start <= self.at_once:
            yield from self.spans(start, end)
            return
        size = min(size or self.window, self.window)
        low = start
        while low < end:
            yield from self.spans(low, min(low + size + overlap, end))
            low = self.readable_from(low + size, end)

    def readable_from(self, address: int, end: int) -> int:
        """Return *address* if it can be read, else where the next region begins, at most *end*."""
        if address < end and not self._can_read(address):
            return min(self._next_region(address, end), end)
        return min(address, end)

    def _can_read(self, address: int) -> bool:
        try:
            self._read(address, 1)
        except MemoryFault:
            return False
        return True

    def _next_region(self, address: int, end: int) -> int:
        regions = self.memory.regions()
        number = bisect_left(regions, (address + 1,))
        return regions[number].start if number < len(regions) else end

    def _readable(self, low: int, high: int) -> list[tuple[int, memoryview]]:
        """Return the readable parts of a region, in which pages may be missing (guards of stacks).

        What it begins and ends with is found by bisection; between, parts are divided, the larger
        ones first, in so many tries.
        """
        if isinstance(self.memory, Sparse):  # nothing is missing, it is too much at once
            return self._beginning(low, high)
        parts: list[tuple[int, int]] = []
        first = self._border(low, high, parts)
        last = self._border(high, first, parts)
        waiting = deque([(first, last)])
        for _ in range(TRIES):
            if not waiting:
                break
            low, high = waiting.popleft()
            middle = (low + high) // 2 & -PAGE
            if self._is_whole(low, high):
                parts.append((low, high))
            elif low < middle < high:
                waiting += [(low, middle), (middle, high)]
        return self._views(sorted(parts))

    def _beginning(self, low: int, high: int) -> list[tuple[int, memoryview]]:
        """Return as much of a range as the memory gives at once."""
        while high - low >= PAGE:
            try:
                return [(low, self.memory.view(low, high))]
            except MemoryFault:
                high = (low + high) // 2 & -PAGE
        return []

    def _views(self, parts: list[tuple[int, int]]) -> list[tuple[int, memoryview]]:
        """Return the bytes of ranges; those that touch as one, where the memory gives that."""
        views = []
        for whole in _joined(parts):
            touching = [part for part in parts if whole[0] <= part[0] < whole[1]]
            ranges = [whole] if len(touching) < 2 or self._is_whole(*whole) else touching
            views += [(low, self.memory.view(low, high)) for low, high in ranges]
        return views

    def _border(self, near: int, far: int, parts: list[tuple[int, int]]) -> int:
        """Return how far from *near* towards *far* all can be read, in pages; put it to *parts*."""
        while abs(far - near) > PAGE:
            middle = (near + far) // 2 & -PAGE
            if middle in (near, far):
                break
            part = min(near, middle), max(near, middle)
            if self._is_whole(*part):
                parts.append(part)
                near = middle
            else:
                far = middle
        return near

    def _is_whole(self, low: int, high: int) -> bool:
        try:
            self.memory.view(low, high)
        except MemoryFault:
            return False
        return True


def _joined(parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges ascending, those that touch made one."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(parts):
        if joined and joined[-1][1] == low:
            joined[-1] = joined[-1][0], high
        else:
            joined.append((low, high))
    return joined

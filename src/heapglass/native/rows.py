"""Rows of columns as the nodes of a graph: which rows, and the bytes that their blocks are in."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from .buffer import Buffer

NOT_REACHED, BY_START, BY_INTERIOR = 0, 1, 2
FROM_ROOT = (1 << 32) - 1
MOST_ROWS = (1 << 32) - 2  # a row is 32 bits in the work of the loops
SIZE_BITS = 7
BLOCKS = (0, 5, 8)  # states: used, mmapped, unknown


def rows_of(column: bytes | bytearray, value: int) -> Iterator[int]:
    """Yield the rows of a column that have a value."""
    row = column.find(value)
    while row >= 0:
        yield row
        row = column.find(value, row + 1)


def lowest_bytes(column: array[int]) -> bytes:
    """Return the lowest byte of each number of a column."""
    lowest = 0 if sys.byteorder == "little" else column.itemsize - 1
    return memoryview(column).cast("B")[lowest :: column.itemsize].tobytes()


class Rows(NamedTuple):
    """*length* rows from *first* on: chunks of [low, high), ascending; their bytes in *buffer*.

    The buffer may end before the blocks do: what is missing holds no references.
    """

    buffer: Buffer
    addresses: array[int]
    sizes: array[int]
    states: bytearray
    first: int
    length: int
    low: int
    high: int
    less: int  # what a block has less than its chunk's size, in bytes


class Numbered:
    """Parts whose rows are counted through. Parts are ascending and do not overlap."""

    def __init__(self, parts: Sequence[Rows], word: int, swap: bool, mask: int) -> None:
        self.parts = [part for part in parts if part.length and part.high > part.low]
        self.word, self.swap, self.mask = word, swap, mask
        ends = list(accumulate(part.length for part in self.parts))
        self.count = ends[-1] if ends else 0
        self.starts = [0, *ends][:-1] if ends else []
        self._lows = [part.low for part in self.parts]

    def mark(
        self, roots: Iterable[Buffer], interior: bool, without: int | None = None
    ) -> bytearray:
        """Return for each row how the roots lead to it; see `loops_graph`."""
        raise NotImplementedError

    def ways_to(self, roots: Iterable[Buffer], target: int) -> array[int]:
        """Return what leads to each row on a shortest way; see `loops_graph`."""
        raise NotImplementedError

    def select(self, reached: bytearray, state: int, way: int) -> array[int]:
        """Return the rows of one state that were reached in one way, ascending."""
        raise NotImplementedError

    def edges(
        self, rows: array[int], wanted: bytearray
    ) -> tuple[array[int], array[int], bytearray]:
        """Return all references from blocks of *rows* to the blocks that are wanted.

        As columns: row that refers, row referred to, whether to its inside.
        """
        raise NotImplementedError

    def place(self, row: int) -> tuple[Rows, int]:
        """Return the part of a row, and its number in the part's columns."""
        number = bisect_right(self.starts, row) - 1
        part = self.parts[number]
        return part, part.first + row - self.starts[number]

    def row_of(self, pointer: int) -> tuple[int, bool] | None:
        """Return the row of the block that a word refers to, and whether to its start."""
        chunk = (pointer & self.mask) - 2 * self.word
        number = bisect_right(self._lows, chunk) - 1
        if number < 0 or chunk >= self.parts[number].high:
            return None
        part = self.parts[number]
        end = part.first + part.length
        at = bisect_right(part.addresses, chunk, part.first, end) - 1
        if at < part.first or part.states[at] not in BLOCKS:
            return None
        offset, size = chunk - part.addresses[at], part.sizes[at] & ~SIZE_BITS
        if offset >= size - part.less:
            return None
        return self.starts[number] + at - part.first, not offset

    def bytes_of(self, row: int) -> memoryview:
        """Return the bytes of a row's block, as far as the buffer has them."""
        part, at = self.place(row)
        start, end = self._extent(part, at)
        return part.buffer.data[start:end]

    def words_of(self, row: int) -> memoryview:
        """Return the words of a row's block, as far as the buffer has them."""
        part, at = self.place(row)
        return self.words_at(part, at)

    def words_at(self, part: Rows, at: int) -> memoryview:
        """Return the words of the block at a number of a part's columns; see `words_of`."""
        start, end = self._extent(part, at)
        if start % self.word:
            data = part.buffer.data[start:end]
            return Buffer(data, 0, self.word, part.buffer.order).words
        return part.buffer.words[start // self.word : end // self.word]

    def _extent(self, part: Rows, at: int) -> tuple[int, int]:
        """Return where a block begins and ends in its part's buffer; (0, 0) if before it."""
        size = part.sizes[at] & ~SIZE_BITS
        start = part.addresses[at] + 2 * self.word - part.buffer.base
        return (0, 0) if start < 0 or size <= part.less else (start, start + size - part.less)

    def by_part(self, rows: Sequence[int]) -> Iterator[tuple[Rows, array[int]]]:
        """Yield the parts of ascending rows, with the rows' numbers in the part's columns."""
        at = 0
        for part, start in zip(self.parts, self.starts):
            end = bisect_left(rows, start + part.length, at)
            if end > at:
                yield part, array("Q", [row - start + part.first for row in rows[at:end]])
            at = end

    def usables(self, rows: Sequence[int]) -> array[int]:
        """Return the usable bytes of the blocks of ascending rows."""
        found = array("Q")
        for part, numbers in self.by_part(rows):
            sizes, less = part.sizes, part.less
            usable = [(sizes[at] & ~SIZE_BITS) - less for at in numbers]
            found.extend(usable if min(usable) >= 0 else [max(one, 0) for one in usable])
        return found

    def only(self, rows: Sequence[int]) -> list[Rows]:
        """Return parts that have ascending rows and no others."""
        return [
            Rows(
                part.buffer,
                array("Q", [part.addresses[at] for at in numbers]),
                array("Q", [part.sizes[at] for at in numbers]),
                bytearray([part.states[at] for at in numbers]),
                *(0, len(numbers), part.low, part.high, part.less),
            )
            for part, numbers in self.by_part(rows)
        ]

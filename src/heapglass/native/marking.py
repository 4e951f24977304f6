"""Marking in plain Python: what a block leads to, in as few steps a word as there can be.

Rows are counted from 1 here: 0 is none.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import NamedTuple

from .rows import BLOCKS, BY_INTERIOR, SIZE_BITS, Numbered, Rows, lowest_bytes, rows_of

SPARSE = 64  # times as many places for starts as there are rows: more are not made
STEPS = 8  # places that are looked at below an interior pointer, before bisection
_NO_BLOCK = bytes(state not in BLOCKS for state in range(256))


class Places(NamedTuple):
    """A part, and which of its blocks begins at each place: a place is as large as a header."""

    part: Rows
    first: int  # the number of its first row
    low: int  # mem of its first chunk
    starts: array[int]  # by (pointer - low) >> shift; empty: too few blocks for that
    words: memoryview
    base: int  # of the words


class Marker:
    """What is reached so far, what waits to be looked at, what only an interior pointer led to."""

    def __init__(self, graph: Numbered) -> None:
        self._graph = graph
        self._header = 2 * graph.word
        self._shift = self._header.bit_length() - 1
        self.reached, self._noted = bytearray(graph.count + 1), bytearray(graph.count + 1)
        self.later: list[int] = []
        self.waiting: list[int] = []
        self._places = [self._of(part, first) for part, first in zip(graph.parts, graph.starts)]
        self._firsts = [places.first for places in self._places]
        self._lows = [places.low for places in self._places]

    def _of(self, part: Rows, first: int) -> Places:
        count = ((part.high - part.low) >> self._shift) + 1
        starts = array("I")
        if count <= SPARSE * (part.length + SPARSE):
            starts = self._starts(part, first + 1, count)
        words, base = part.buffer.words, part.buffer.base
        return Places(part, first + 1, part.low + self._header, starts, words, base)

    def _starts(self, part: Rows, first: int, count: int) -> array[int]:
        """Return the blocks by places; empty if a chunk does not begin at a place."""
        rows = slice(part.first, part.first + part.length)
        addresses, sizes, states = part.addresses[rows], part.sizes[rows], part.states[rows]
        low, shift, rest, less = part.low, self._shift, self._header - 1, part.less | SIZE_BITS
        if {(byte - low) & rest for byte in set(lowest_bytes(addresses))} != {0}:
            return array("I")
        starts = array("I", bytes(4 * count))
        for row, address in enumerate(addresses, first):
            starts[(address - low) >> shift] = row
        for row in rows_of(states.translate(_NO_BLOCK), 1):
            starts[(addresses[row] - low) >> shift] = 0
        if min(sizes) <= less:
            for address, size in zip(addresses, sizes):
                if size <= less:
                    starts[(address - low) >> shift] = 0
        return starts

    def take(self, words: list[int], way: int) -> None:
        """Mark what words lead to; see `drain`."""
        graph = self._graph
        if not graph.parts:
            return
        low, high = self._lows[0], graph.parts[-1].high + self._header
        for word in words:
            if low <= word & graph.mask < high:
                self._slowly(word & graph.mask, way)

    def drain(self, way: int) -> None:
        """Mark what the waiting blocks lead to, and so on."""
        waiting, reached, mask, width = (
            self.waiting,
            self.reached,
            self._graph.mask,
            self._shift - 1,
        )
        shift, rest, full = (
            self._shift,
            self._header - 1,
            not ~mask & (1 << 8 * self._graph.word) - 1,
        )
        lowest = self._lows[0] if self._lows else 0
        highest = self._graph.parts[-1].high + self._header if self._lows else 0
        pop, push = waiting.pop, waiting.append
        first = last = low = high = 0
        starts = array("I")
        odd = self._graph.word - 1
        while waiting:
            row = pop()
            if not first <= row < last:
                source = self._places[bisect_right(self._firsts, row) - 1]
                part, first, words, base = source.part, source.first, source.words, source.base
                last = first + part.length
                addresses, sizes, less = part.addresses, part.sizes, part.less
                shifted = part.first - first
                base -= self._header
            at = row + shifted
            begin = addresses[at] - base
            if begin < self._header:
                continue
            end = begin + (sizes[at] & ~SIZE_BITS) - less
            if begin & odd:
                values = self._graph.words_of(row - 1).tolist()
            else:
                values = words[begin >> width : end >> width].tolist()
            if not full:
                values = [value & mask for value in values]
            for value in values:
                if low <= value < high:
                    offset = value - low
                    found = starts[offset >> shift]
                    if found and not offset & rest:
                        if not reached[found]:
                            reached[found] = way
                            push(found)
                        continue
                if lowest <= value < highest:
                    places = self._slowly(value, way)
                    if not low <= value < high:  # the next one may lead there, too
                        low, starts = places.low, places.starts
                        high = low + (len(starts) << shift)

    def _slowly(self, pointer: int, way: int) -> Places:
        """Mark the block that a pointer leads to, if any; it may lead to anywhere in it.

        Returns the part that it would be in.
        """
        places = self._places[bisect_right(self._lows, pointer) - 1]
        row = self._row(places, pointer - self._header)
        if not row or self.reached[row]:
            return places
        part = places.part
        offset = pointer - self._header - part.addresses[row - places.first + part.first]
        if not offset or way == BY_INTERIOR:
            self.reached[row] = way
            self.waiting.append(row)
        elif not self._noted[row]:
            self._noted[row] = 1
            self.later.append(row)
        return places

    def _row(self, places: Places, chunk: int) -> int:
        """Return the row of the block that a pointer leads into, as if *chunk* were its chunk."""
        part, starts = places.part, places.starts
        if chunk >= part.high:
            return 0
        row = 0
        if starts:
            at = (chunk - part.low) >> self._shift
            for place in range(at, max(at - STEPS, -1), -1):
                row = starts[place]
                if row:
                    break
        number, last = row - places.first + part.first, part.first + part.length
        if row and number + 1 < last and part.addresses[number + 1] <= chunk:
            return 0  # one that is no block begins nearer
        if not row:
            number = bisect_right(part.addresses, chunk, part.first, last) - 1
            row = number - part.first + places.first
        if number < part.first or part.states[number] not in BLOCKS:
            return 0
        offset = chunk - part.addresses[number]
        return row if offset < (part.sizes[number] & ~SIZE_BITS) - part.less else 0

"""The references between blocks, in plain Python.

A word is a reference to a block if its value lies in [mem, mem + usable) of a chunk that is in use
or not known to be free.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from .buffer import Buffer
from .marking import Marker
from .rows import BY_INTERIOR, BY_START, FROM_ROOT, Numbered

ROOT_WORDS = 1 << 20  # of a root that are made numbers at once


def _only(value: int) -> bytes:
    """Return what makes a byte 1 where it is *value*, else 0."""
    return bytes(byte == value for byte in range(256))


class LoopsGraph(Numbered):
    """Blocks and the references between them, by plain loops."""

    def _references(self, words: memoryview) -> Iterator[tuple[int, bool]]:
        """Yield the row of each word that refers to a block, and whether to its start."""
        if not self.parts:
            return
        low, high = self.parts[0].low + 2 * self.word, self.parts[-1].high + 2 * self.word
        mask = self.mask
        for value in words.tolist():
            if low <= value & mask < high:
                found = self.row_of(value)
                if found is not None:
                    yield found

    def mark(
        self, roots: Iterable[Buffer], interior: bool, without: int | None = None
    ) -> bytearray:
        """Return for each row how the roots lead to it: not at all, by starts, or by an interior.

        BY_START: a chain of pointers to the start of blocks leads there. BY_INTERIOR, only if
        *interior* pointers count: some link of every chain points to the inside of a block. Roots
        are scanned at multiples of the word. The row *without* counts as reached and leads nowhere.
        """
        marker = Marker(self)
        if without is not None:
            marker.reached[without + 1] = BY_START
        for root in roots:
            skip = -root.base % self.word
            words = Buffer(root.data[skip:], 0, self.word, root.order).words
            for at in range(0, len(words), ROOT_WORDS):
                marker.take(words[at : at + ROOT_WORDS].tolist(), BY_START)
                marker.drain(BY_START)
        for row in marker.later if interior else ():
            if not marker.reached[row]:
                marker.reached[row] = BY_INTERIOR
                marker.waiting.append(row)
                marker.drain(BY_INTERIOR)
        return marker.reached[1:]

    def ways_to(self, roots: Iterable[Buffer], target: int) -> array[int]:
        """Return which row leads to each row on a shortest way from a root, until *target* is met.

        0: none was found, FROM_ROOT: a root does, else the row's number plus one.
        """
        from_ = array("I", [0]) * self.count
        queue: list[int] = []

        def spread(words: memoryview, by: int) -> None:
            for row, _ in self._references(words):
                if not from_[row]:
                    from_[row] = by
                    queue.append(row)

        for root in roots:
            skip = -root.base % self.word
            spread(Buffer(root.data[skip:], 0, self.word, root.order).words, FROM_ROOT)
        for row in queue:
            if from_[target]:
                break
            spread(self.words_of(row), row + 1)
        return from_

    def select(self, reached: bytearray, state: int, way: int) -> array[int]:
        """Return the rows of one state that were reached in one way, ascending."""
        found = array("I")
        for part, start in zip(self.parts, self.starts):
            states = part.states[part.first : part.first + part.length].translate(_only(state))
            ways = reached[start : start + part.length].translate(_only(way))
            both = int.from_bytes(states, "little") & int.from_bytes(ways, "little")
            hits = both.to_bytes(part.length, "little")
            row = hits.find(1)
            while row >= 0:
                found.append(start + row)
                row = hits.find(1, row + 1)
        return found

    def edges(
        self, rows: array[int], wanted: bytearray
    ) -> tuple[array[int], array[int], bytearray]:
        """Return all references from blocks of *rows* to the blocks that are wanted.

        As columns: row that refers, row referred to, whether to its inside.
        """
        sources, ends, inside = array("I"), array("I"), bytearray()
        for source in rows:
            for row, start in self._references(self.words_of(source)):
                if wanted[row]:
                    sources.append(source)
                    ends.append(row)
                    inside.append(not start)
        return sources, ends, inside

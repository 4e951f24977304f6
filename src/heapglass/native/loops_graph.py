"""The references between blocks, in plain Python.

A word is a reference to a block if its value lies in [mem, mem + usable) of a chunk that is in use
or not known to be free.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from .buffer import Buffer
from .rows import BY_INTERIOR, BY_START, FROM_ROOT, SIZE_BITS, Numbered


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

    def bytes_of(self, row: int) -> memoryview:
        """Return the bytes of a row's block, as far as the buffer has them."""
        part, at = self.place(row)
        size = part.sizes[at] & ~SIZE_BITS
        offset = part.addresses[at] + 2 * self.word - part.buffer.base
        if offset < 0 or size <= part.less:
            return memoryview(b"")
        return part.buffer.data[offset : offset + size - part.less]

    def words_of(self, row: int) -> memoryview:
        """Return the words of a row's block, as far as the buffer has them."""
        part, _ = self.place(row)
        return Buffer(self.bytes_of(row), 0, self.word, part.buffer.order).words

    def mark(
        self, roots: Iterable[Buffer], interior: bool, without: int | None = None
    ) -> bytearray:
        """Return for each row how the roots lead to it: not at all, by starts, or by an interior.

        BY_START: a chain of pointers to the start of blocks leads there. BY_INTERIOR, only if
        *interior* pointers count: some link of every chain points to the inside of a block. Roots
        are scanned at multiples of the word. The row *without* counts as reached and leads nowhere.
        """
        reached, noted = bytearray(self.count), bytearray(self.count)
        if without is not None:
            reached[without] = BY_START
        later: list[int] = []
        waiting: list[int] = []

        def take(words: memoryview, way: int) -> None:
            for row, start in self._references(words):
                if reached[row]:
                    continue
                if start or way == BY_INTERIOR:
                    reached[row] = way
                    waiting.append(row)
                elif not noted[row]:
                    noted[row] = 1
                    later.append(row)

        def drain(way: int) -> None:
            while waiting:
                take(self.words_of(waiting.pop()), way)

        for root in roots:
            skip = -root.base % self.word
            take(Buffer(root.data[skip:], 0, self.word, root.order).words, BY_START)
            drain(BY_START)
        for row in later if interior else ():
            if not reached[row]:
                reached[row] = BY_INTERIOR
                waiting.append(row)
                drain(BY_INTERIOR)
        return reached

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
            states = part.states[part.first : part.first + part.length]
            ways = reached[start : start + part.length]
            pairs = enumerate(zip(states, ways), start)
            found.extend([row for row, pair in pairs if pair == (state, way)])
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

"""What blocks are, in plain Python."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

from .buffer import Buffer
from .kinds import (
    BUCKETS,
    DEQUE_MAP,
    DEQUE_PART,
    HASH_NODE,
    KEYED,
    LEAST_CAPACITY,
    LEAST_MAP,
    LEAST_TEXT,
    LIST,
    MOST_GROUPS,
    POINTERS,
    STRING,
    TABLE,
    TEXT,
    TREE,
    VECTOR,
    ZEROS,
    Group,
    Kinds,
    Requests,
)
from .loops_graph import LoopsGraph
from .rows import BLOCKS, SIZE_BITS

MMAPPED = 5
MOST_HELD = 10  # words of a holder: a deque's
PLAIN = frozenset([9, 10, 13, *range(32, 127)])


class LoopsKinds(Kinds):
    """The kinds of a graph's blocks, by plain loops."""

    def __init__(self, graph: LoopsGraph, requests: Requests) -> None:
        super().__init__(graph, requests)
        self._blocks = graph
        self._word = graph.word

    # --- looking at blocks --------------------------------------------------------------------

    def _rows(self) -> Iterator[tuple[int, memoryview]]:
        """Yield the blocks in use: row and words, as far as they can be read."""
        for part, start in zip(self.graph.parts, self.graph.starts):
            for at in range(part.first, part.first + part.length):
                if part.states[at] in BLOCKS:
                    yield start + at - part.first, self._blocks.words_at(part, at)

    def _bytes(self, row: int) -> memoryview:
        return self._blocks.bytes_of(row)

    def _mem(self, row: int) -> int:
        part, at = self.graph.place(row)
        return part.addresses[at] + 2 * self._word

    def _fits(self, row: int, need: int) -> bool:
        """Whether malloc (*need*) could have made the chunk of a row."""
        part, at = self.graph.place(row)
        alignment, least, page = self.requests
        size = part.sizes[at] & ~SIZE_BITS
        usable = size - part.less
        if need > usable:
            return False
        if part.states[at] == MMAPPED:
            return usable - need < page + alignment
        chunk = max((need + self._word + alignment - 1) & -alignment, least)
        return chunk <= size < chunk + least

    # --- by their holders ---------------------------------------------------------------------

    def held_by(self, roots: Iterable[Buffer]) -> None:
        """As `Kinds.held_by`."""
        for root in roots if self.graph.count else ():
            skip = -root.base % self._word
            self._holders(Buffer(root.data[skip:], 0, self._word, root.order).words)

    def held_by_blocks(self) -> None:
        """As `Kinds.held_by_blocks`."""
        for _, words in self._rows():
            self._holders(words)

    def _holders(self, view: memoryview) -> None:
        parts, mask = self.graph.parts, self.graph.mask
        low, high = parts[0].low + 2 * self._word, parts[-1].high + 2 * self._word
        words = view.tolist()
        for at in range(len(words) - 2):
            if not low <= words[at] & mask < high:
                continue
            found = self._blocks.row_of(words[at])
            if found is not None and found[1] and not self.kind[found[0]]:
                self._held(found[0], words[at : at + MOST_HELD])

    def _held(self, row: int, words: list[int]) -> None:
        """Tell what a block is from the pointer to it and the words behind."""
        mem, mask, count = self._mem(row), self.graph.mask, words[1]
        finish, end = words[1] & mask, words[2] & mask
        if mem <= finish <= end and end > mem and self._fits(row, end - mem):
            self.kind[row] = VECTOR
        elif self._is_string(row, words[1], words[2]):
            self.kind[row] = STRING
        elif len(words) > 3 and 1 < count < 1 << 48 and self._fits(row, count * self._word):
            if 0 < words[3] <= self.steps and self._nodes(words[2], words[3], None):
                self.kind[row] = BUCKETS
                self._nodes(words[2], words[3], HASH_NODE)
            elif len(words) == MOST_HELD:
                self._deque(row, mem, words)

    def _is_string(self, row: int, length: int, capacity: int) -> bool:
        if not (LEAST_CAPACITY <= capacity < 1 << 62 and length <= capacity):
            return False
        data = self._bytes(row)
        return length < len(data) and not data[length] and self._fits(row, capacity + 1)

    def _nodes(self, first: int, count: int, mark: int | None) -> bool:
        """Follow *count* nodes of a hash table; whether these are all, no more and no less."""
        for _ in range(count):
            found = self._blocks.row_of(first)
            if found is None or not found[1] or not self.steps:
                return False
            self.steps -= 1
            words = self._blocks.words_of(found[0])
            if not len(words):
                return False
            first = words[0]
            if mark is not None and not self.kind[found[0]]:
                self.kind[found[0]] = mark
        return first == 0

    def _deque(self, row: int, mem: int, words: list[int]) -> None:
        mask, word = self.graph.mask, self._word
        current, first, last, node, back = (words[at] & mask for at in (2, 3, 4, 5, 9))
        end = mem + words[1] * word
        if words[1] < LEAST_MAP or not first <= current <= last or first >= last:
            return
        if not mem <= node <= back < end or (node - mem) % word or (back - mem) % word:
            return
        map_ = self._blocks.words_of(row)
        at = (node - mem) // word
        if at >= len(map_) or map_[at] & mask != first:
            return
        self.kind[row] = DEQUE_MAP
        for pointer in map_[at : (back - mem) // word + 1].tolist():
            found = self._blocks.row_of(pointer)
            if found is not None and found[1] and not self.kind[found[0]]:
                self.kind[found[0]] = DEQUE_PART

    # --- by their own words -------------------------------------------------------------------

    def by_words(self, ranges: Sequence[tuple[int, int]]) -> None:
        """As `Kinds.by_words`."""
        starts = [start for start, _ in ranges]
        for row, words in self._rows():
            if self.kind[row] or not len(words):
                continue
            first = words[0] & self.graph.mask
            number = bisect_right(starts, first) - 1
            into = number >= 0 and first < ranges[number][1]
            if into and first and not first % self._word:
                self.kind[row], self.key[row] = TABLE, first
            elif self._is_tree_node(row, words):
                self.kind[row] = TREE
            elif self._is_list_node(row, words):
                self.kind[row] = LIST

    def _leads_back(self, pointer: int, offset: int, mem: int) -> int:
        """1: the word *offset* behind what a pointer leads to is *mem*; -1: not; 0: no block."""
        found = self._blocks.row_of(pointer)
        if found is None:
            return 0
        data = self._bytes(found[0])
        at = (pointer & self.graph.mask) - self._mem(found[0]) + offset
        raw = bytes(data[at : at + self._word])
        if len(raw) < self._word:
            return -1
        value = int.from_bytes(raw, self._order())  # type: ignore[arg-type]
        return 1 if value & self.graph.mask == mem else -1

    def _order(self) -> str:
        return self.graph.parts[0].buffer.order

    def _is_tree_node(self, row: int, words: memoryview) -> bool:
        colour = bytes(self._bytes(row)[:4])
        if len(words) < 4 or int.from_bytes(colour, self._order()) > 1:  # type: ignore[arg-type]
            return False
        mem, proofs = self._mem(row), 0
        for child in (words[2], words[3]):
            if child and self._leads_back(child, self._word, mem) < 1:
                return False
            proofs += child != 0
        parent = words[1]
        if not parent or parent & self.graph.mask == mem:
            return False
        sides = (2, 3, 1)  # the left or the right one of its parent, or the root under the header
        upward = max(self._leads_back(parent, side * self._word, mem) for side in sides)
        return upward >= 0 and proofs + upward > 0

    def _is_list_node(self, row: int, words: memoryview) -> bool:
        if len(words) < 2:
            return False
        mem, (following, before) = self._mem(row), words[:2].tolist()
        if not following or not before or following & self.graph.mask == mem:
            return False
        links = (
            self._leads_back(following, self._word, mem),
            self._leads_back(before, 0, mem),
        )
        return min(links) >= 0 and max(links) > 0

    def by_key(self, offset: int, keys: array[int]) -> None:
        """As `Kinds.by_key`."""
        order, word = self._order() if self.graph.parts else "little", self._word
        for row, _ in self._rows():
            raw = bytes(self._bytes(row)[offset : offset + word])
            if self.kind[row] or len(raw) < word:
                continue
            value = int.from_bytes(raw, order) & self.graph.mask  # type: ignore[arg-type]
            at = bisect_left(keys, value)
            if at < len(keys) and keys[at] == value:
                self.kind[row], self.key[row] = KEYED, value

    # --- by their bytes -----------------------------------------------------------------------

    def by_contents(self) -> None:
        """As `Kinds.by_contents`."""
        ways: tuple[tuple[int, Callable[[bytes, memoryview], bool]], ...] = (
            (TEXT, self._is_text),
            (ZEROS, lambda data, _: not any(data)),
            (POINTERS, lambda _, words: self._are_pointers(words)),
        )
        for row, words in self._rows():
            data = b"" if self.kind[row] else bytes(self._bytes(row))
            if data:
                kinds = (kind for kind, holds in ways if holds(data, words))
                self.kind[row] = next(kinds, 0)

    def _is_text(self, data: bytes, words: memoryview) -> bool:
        run = data.find(b"\0")
        if run < LEAST_TEXT or not PLAIN.issuperset(data[:run]):
            return False
        return (
            not words or self._blocks.row_of(words[0]) is None
        )  # a pointer's bytes can be letters

    def _are_pointers(self, words: memoryview) -> bool:
        pointers = [value for value in words.tolist() if value]
        return len(pointers) > 1 and all(self._blocks.row_of(value) for value in pointers)

    def tally(self) -> tuple[list[Group], int]:
        """As `Kinds.tally`."""
        counts: dict[tuple[int, int, int, int], list[int]] = {}
        for part, start in zip(self.graph.parts, self.graph.starts):
            for at in range(part.first, part.first + part.length):
                if part.states[at] not in BLOCKS:
                    continue
                row = start + at - part.first
                size = part.sizes[at] & ~SIZE_BITS
                group = (self.kind[row], self.key[row], size, part.states[at])
                held = counts.get(group)
                if held is not None:
                    held[0] += 1
                elif len(counts) >= MOST_GROUPS:
                    return _groups(counts), self.graph.count - row
                else:
                    counts[group] = [1, row]
        return _groups(counts), 0


def _groups(counts: dict[tuple[int, int, int, int], list[int]]) -> list[Group]:
    return sorted(Group(*group, count, row) for group, (count, row) in counts.items())

"""Leaked blocks by type, size and first words; only these are looked at, not the whole heap."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from ..heap.heap import Heap
from ..native import Numbered, make_graph, make_kinds
from .leaks import Leaks, Sum
from .refs import symbol_text
from .roots import name_of
from .types import Named, Namer, requests_of, tell

MOST_WORDS = 2  # first words that a group of leaks has in common
_PREFIX = {"little": "<", "big": ">"}
_CODE = {8: "Q", 4: "I"}

Told = tuple[int, int, tuple[int, ...]]
"""What tells a block: the loops' kind and key, and of its first words 0, BLOCK, DATA or, where one
leads into a file's mapping, the word itself."""
BLOCK, DATA = -1, -2


class Group(NamedTuple):
    """Leaked blocks of one size and type that begin alike."""

    usable: int
    type: Named | None  # None: nothing tells it
    words: tuple[str, ...]  # the first words: "0", "block", "data", or where in a file one leads
    blocks: Sum
    example: int  # a row


class LeakTypes:
    """What the leaked and the possibly lost blocks are."""

    def __init__(self, heap: Heap, found: Leaks) -> None:
        self._heap = heap
        self._found = found
        self.rows = sorted([*found.leaked, *found.possibly])
        graph = found.graph
        alone = make_graph(graph.only(self.rows), graph.word, graph.swap, graph.mask)
        kinds = make_kinds(alone, requests_of(heap))
        kinds.held_by_blocks()
        self._namer = Namer(heap, tell(heap, kinds, graph, found.roots))
        self._names: dict[Told, tuple[str, ...]] = {}
        self._told = dict(zip(self.rows, zip(kinds.kind, kinds.key, self._first_words(graph))))

    def told(self, row: int) -> Told:
        """Return what tells a block; the same for all that are alike."""
        return self._told[row]

    def type_of(self, told: Told) -> Named | None:
        """Return the type that this means; where a first word leads is told by the words."""
        named = self._namer.name(told[0], told[1])
        return None if named is None or named.how == "file" else named

    def words_of(self, told: Told) -> tuple[str, ...]:
        """Return the first words as they are shown: "0", "block", "data" or "file+0x…"."""
        names = {0: "0", BLOCK: "block", DATA: "data"}
        return tuple(names.get(word) or self._place(word) for word in told[2])

    def names_of(self, row: int) -> tuple[str, ...]:
        """Return what a block goes by: its type, the symbols and files its first words lead to."""
        told = self._told[row]
        if told not in self._names:
            self._names[told] = tuple(self._name(told))
        return self._names[told]

    def _name(self, told: Told) -> Iterator[str]:
        named = self.type_of(told)
        if named is not None:
            yield named.name
        for word in told[2]:
            if word > 0:
                yield symbol_text(self._heap.target.symbol_at(word))
                yield name_of(self._heap.target.memory.regions(), word)[0]

    def _place(self, word: int) -> str:
        path, offset = name_of(self._heap.target.memory.regions(), word)
        return f"{path.rpartition('/')[2]}+{offset:#x}" if path else f"{word:#x}"

    def _first_words(self, graph: Numbered) -> Iterator[tuple[int, ...]]:
        """Yield the first words of each row."""
        kinds = _Words(graph, self._heap)
        for part, numbers in graph.by_part(self.rows):
            data, base = part.buffer.data, part.buffer.base - 2 * graph.word
            shape = Struct(_PREFIX[part.buffer.order] + MOST_WORDS * _CODE[graph.word])
            last, addresses = len(data) - shape.size, part.addresses
            low, high = part.low, part.high
            for at in numbers:
                offset = addresses[at] - base
                if not 0 <= offset <= last:
                    yield ()
                    continue
                words = shape.unpack_from(data, offset)
                yield tuple([w if not w else BLOCK if low <= w < high else kinds[w] for w in words])


class _Words(dict[int, int]):
    """Of what kind a word is, by the word."""

    def __init__(self, graph: Numbered, heap: Heap) -> None:
        super().__init__({0: 0})
        self._mask = graph.mask
        files = [r for r in heap.target.memory.regions() if not r.anonymous]
        self._starts, self._ends = [r.start for r in files], [r.end for r in files]
        self._lows = [part.low for part in graph.parts]
        self._highs = [part.high for part in graph.parts]

    def __missing__(self, word: int) -> int:
        value = word & self._mask
        kind = DATA
        if _inside(value, self._lows, self._highs):
            kind = BLOCK
        elif _inside(value, self._starts, self._ends):
            kind = value
        self[word] = kind
        return kind


def _inside(value: int, starts: Sequence[int], ends: Sequence[int]) -> bool:
    number = bisect_right(starts, value) - 1
    return number >= 0 and value < ends[number]


def group_leaks(found: Leaks, types: LeakTypes) -> list[Group]:
    """Return the leaked blocks in groups, what takes most first."""
    sums: dict[tuple[int, Told], list[int]] = {}
    for row, usable in zip(found.leaked, found.graph.usables(found.leaked)):
        held = sums.setdefault((usable, types.told(row)), [0, row])
        held[0] += 1
    groups = [
        Group(
            *(usable, types.type_of(told), types.words_of(told)),
            Sum(count, count * usable),
            row,
        )
        for (usable, told), (count, row) in sums.items()
    ]
    return sorted(groups, key=lambda group: (-group.blocks.bytes, group.usable, group.words))

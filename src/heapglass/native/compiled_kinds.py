"""What blocks are, in C. The answers are those of `loops_kinds`."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from .buffer import Buffer
from .compiled_graph import CompiledGraph
from .ctypes_of import U64, Span, address_of, column
from .kinds import MOST_GROUPS, Group, Kinds, Requests

FEWEST_GROUPS = 1 << 12


class _Kinds(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_void_p),
        ("key", ctypes.c_void_p),
        ("alignment", U64),
        ("least", U64),
        ("page", U64),
        ("steps", U64),
    )


class _Tally(ctypes.Structure):
    _fields_ = (
        ("key", ctypes.c_void_p),
        ("size", ctypes.c_void_p),
        ("count", ctypes.c_void_p),
        ("row", ctypes.c_void_p),
        ("kind", ctypes.c_void_p),
        ("state", ctypes.c_void_p),
        ("room", U64),
        ("used", U64),
    )


class CompiledKinds(Kinds):
    """The kinds of a graph's blocks, by the compiled loops."""

    def __init__(self, library: Any, graph: CompiledGraph, requests: Requests) -> None:
        super().__init__(graph, requests)
        self._c = library
        self._heap = ctypes.byref(graph.heap)
        self._held = column(self.kind), column(self.key)
        places = [ctypes.addressof(one) for one in self._held]
        self._kinds = _Kinds(*places, *requests, self.steps)

    def held_by(self, roots: Iterable[Buffer]) -> None:
        """As in `loops_kinds`."""
        for root in roots:
            span = Span(address_of(root.data), len(root.data), root.base)
            self._c.hg_held_by_root(self._heap, ctypes.byref(self._kinds), ctypes.byref(span))

    def held_by_blocks(self) -> None:
        """As in `loops_kinds`."""
        self._c.hg_held_by_blocks(self._heap, ctypes.byref(self._kinds))

    def by_words(self, ranges: Sequence[tuple[int, int]]) -> None:
        """As in `loops_kinds`."""
        ends = array("Q", [end for pair in ranges for end in pair])
        kinds = ctypes.byref(self._kinds)
        self._c.hg_by_words(self._heap, kinds, column(ends), U64(len(ranges)))

    def by_key(self, offset: int, keys: array[int]) -> None:
        """As in `loops_kinds`."""
        kinds = ctypes.byref(self._kinds)
        self._c.hg_by_key(self._heap, kinds, U64(offset), column(keys), U64(len(keys)))

    def by_contents(self) -> None:
        """As in `loops_kinds`."""
        self._c.hg_by_contents(self._heap, ctypes.byref(self._kinds))

    def tally(self) -> tuple[list[Group], int]:
        """As in `loops_kinds`; again with more room if there are more groups."""
        room = FEWEST_GROUPS
        while True:
            columns = [array("Q", [0]) * room for _ in range(4)]
            bytes_ = [bytearray(room) for _ in range(2)]
            held = [*map(column, columns), *map(column, bytes_)]
            tally = _Tally(*map(ctypes.addressof, held), room, 0)
            after = U64(0)
            whole = self._c.hg_tally(
                *(self._heap, ctypes.byref(self._kinds), ctypes.byref(tally), ctypes.byref(after))
            )
            if whole or room >= 2 * MOST_GROUPS:
                break
            room *= 8
        key, size, count, row = columns
        kind, state = bytes_
        used = [at for at, number in enumerate(count) if number]
        groups = [Group(kind[i], key[i], size[i], state[i], count[i], row[i]) for i in used]
        return sorted(groups), 0 if whole else self.graph.count - after.value

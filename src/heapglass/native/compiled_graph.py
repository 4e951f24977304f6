"""The references between blocks, in C. The answers are those of `loops_graph`."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from .buffer import Buffer
from .ctypes_of import U64, Span, address_of, column
from .rows import BY_START, Numbered, Rows

PIECE = 1 << 16  # rows that are asked for at once
LEAST_SHIFT = 4


class _Part(ctypes.Structure):
    _fields_ = (
        ("span", Span),
        ("low", U64),
        ("high", U64),
        ("row", U64),
        ("rows", U64),
        ("addresses", ctypes.c_void_p),
        ("sizes", ctypes.c_void_p),
        ("states", ctypes.c_void_p),
        ("first", ctypes.c_void_p),
        ("shift", U64),
        ("less", U64),
    )


class _Heap(ctypes.Structure):
    _fields_ = (
        ("parts", ctypes.c_void_p),
        ("count", U64),
        ("low", U64),
        ("high", U64),
        ("mask", U64),
        ("word", ctypes.c_int),
        ("swap", ctypes.c_int),
    )


class _Work(ctypes.Structure):
    _fields_ = (
        ("reached", ctypes.c_void_p),
        ("noted", ctypes.c_void_p),
        ("stack", ctypes.c_void_p),
        ("later", ctypes.c_void_p),
        ("waiting", U64),
        ("put_off", U64),
        ("looked", U64),
    )


class _Ways(ctypes.Structure):
    _fields_ = (("from_", ctypes.c_void_p), ("queue", ctypes.c_void_p), ("tail", U64))


class CompiledGraph(Numbered):
    """Blocks and the references between them, by the compiled loops."""

    def __init__(
        self, library: Any, parts: Sequence[Rows], word: int, swap: bool, mask: int
    ) -> None:
        super().__init__(parts, word, swap, mask)
        self._c = library
        self._kept: list[Any] = []  # what the structs point to
        structs = (_Part * max(len(self.parts), 1))()
        for number, part in enumerate(self.parts):
            structs[number] = self._part(part, self.starts[number])
        low = self.parts[0].low if self.parts else 0
        high = self.parts[-1].high if self.parts else 0
        self._kept.append(structs)
        self.heap = _Heap(ctypes.addressof(structs), len(self.parts), low, high, mask, word, swap)

    def _at(self, values: array[int] | bytearray, item: int) -> int:
        """Return where an item of a column is; the column is kept from growing."""
        held = column(values)
        self._kept.append(held)
        size = 1 if isinstance(values, bytearray) else values.itemsize
        return ctypes.addressof(held) + item * size

    def _part(self, part: Rows, row: int) -> _Part:
        shift, length = LEAST_SHIFT, part.high - part.low
        while length >> shift > part.length:
            shift += 1
        pieces = (length - 1 >> shift) + 1
        first = (ctypes.c_uint32 * (pieces + 1))()
        self._kept += [first, part.buffer.data]
        addresses = self._at(part.addresses, part.first)
        self._c.hg_index(
            ctypes.c_void_p(addresses),
            U64(part.length),
            U64(part.low),
            U64(shift),
            first,
            U64(pieces),
        )
        data = part.buffer.data
        return _Part(
            Span(address_of(data), len(data), part.buffer.base),
            *(part.low, part.high, row, part.length, addresses),
            self._at(part.sizes, part.first),
            self._at(part.states, part.first),
            *(ctypes.addressof(first), shift, part.less),
        )

    def mark(
        self, roots: Iterable[Buffer], interior: bool, without: int | None = None
    ) -> bytearray:
        """As in `loops_graph`."""
        reached, noted = bytearray(self.count), bytearray(self.count)
        if without is not None:
            reached[without] = BY_START
        stack, later = ((ctypes.c_uint32 * max(self.count, 1))() for _ in range(2))
        held = column(reached), column(noted)
        work = _Work(*(ctypes.addressof(one) for one in (*held, stack, later)), 0, 0, 0)
        heap = ctypes.byref(self.heap)
        for root in roots:
            span = Span(address_of(root.data), len(root.data), root.base)
            while not self._c.hg_mark(heap, ctypes.byref(work), ctypes.byref(span)):
                span = Span(None, 0, 0)  # go on; between two calls Ctrl-C is heard
        while interior and not self._c.hg_mark_interior(heap, ctypes.byref(work)):
            pass
        return reached

    def ways_to(self, roots: Iterable[Buffer], target: int) -> array[int]:
        """As in `loops_graph`."""
        from_, queue = array("I", [0]) * self.count, array("I", [0]) * self.count
        held = column(from_), column(queue)
        ways = _Ways(*(ctypes.addressof(one) for one in held), 0)
        heap = ctypes.byref(self.heap)
        for root in roots:
            span = Span(address_of(root.data), len(root.data), root.base)
            self._c.hg_from_root(heap, ctypes.byref(ways), ctypes.byref(span))
        self._c.hg_onward(heap, ctypes.byref(ways), U64(target))
        return from_

    def select(self, reached: bytearray, state: int, way: int) -> array[int]:
        """As in `loops_graph`."""
        found = array("I")
        piece = array("I", [0]) * min(PIECE, max(self.count, 1))
        after, ways = U64(0), column(reached)
        for part, start in zip(self.parts, self.starts):
            states = ctypes.addressof(column(part.states)) + part.first
            after.value = 0
            while after.value < part.length:
                count = self._c.hg_reached_rows(
                    ctypes.c_void_p(states),
                    ctypes.c_void_p(ctypes.addressof(ways) + start),
                    *(U64(after.value), U64(part.length), U64(start)),
                    *(ctypes.c_int(state), ctypes.c_int(way)),
                    *(column(piece), U64(len(piece)), ctypes.byref(after)),
                )
                found.extend(piece[:count])
        return found

    def edges(
        self, rows: array[int], wanted: bytearray
    ) -> tuple[array[int], array[int], bytearray]:
        """As in `loops_graph`; again with more room if there are more."""
        room = max(len(rows), PIECE)
        while True:
            sources, ends = array("I", [0]) * room, array("I", [0]) * room
            inside = bytearray(room)
            count = self._c.hg_edges(
                *(ctypes.byref(self.heap), column(rows), U64(len(rows)), column(wanted)),
                *(column(sources), column(ends), column(inside), U64(room)),
            )
            if count <= room:
                return sources[:count], ends[:count], inside[:count]
            room = count

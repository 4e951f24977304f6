"""The loops in C, by ctypes: one library for every Python, also for the one inside of gdb."""

from __future__ import annotations

import ctypes
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

from .buffer import Buffer, Cells, Chain, Keep, Places
from .compiled_graph import CompiledGraph
from .compiled_kinds import CompiledKinds
from .ctypes_of import U64, Span, address_of, column
from .hidden import Hidden
from .kinds import Requests
from .rows import Numbered, Rows

LIBRARY = "libheapglass.so"
VERSION = 11  # of the functions' arguments; a library of another version is not used
FREE_ENTRY = 255
HASH, MOST = 0x9E3779B97F4A7C15, (1 << 64) - 1  # of the tables
WALKED = 1 << 18  # chunks of a walk, between which the columns grow
KEPT = 1 << 14  # rows that such a walk keeps at once
PIECE = 1 << 16  # rows or places that are asked for at once

_U64 = U64
_INT = ctypes.c_int
_column = column


class _Hidden(ctypes.Structure):
    _fields_ = tuple((name, U64) for name in ("low", "high", "key", "rotate", "first", "behind"))


class _Seen(ctypes.Structure):
    _fields_ = (
        *((name, U64) for name in ("at", "until", "mark", "rows", "kept")),
        ("last", U64 * 4),
        ("done", U64),
    )


@contextmanager
def _span(buffer: Buffer) -> Iterator[Any]:
    """Yield the address of a buffer's span; the bytes are held until the end."""
    data = buffer.data
    yield ctypes.byref(Span(address_of(data), len(data), buffer.base))


def _bounds(values: array[int], first: int, last: int | None) -> tuple[int, int]:
    """Return the first row and the number of rows of a slice."""
    first, end, _ = slice(first, last).indices(len(values))
    return first, max(end - first, 0)


def _table(groups: Mapping[tuple[int, int], int]) -> tuple[Any, Any, Any, Any]:
    """Return a hash table as the loops in C look things up in it."""
    room = 1 << max(2 * len(groups), 1).bit_length()
    keys, values = array("Q", [0]) * room, array("Q", [0]) * room
    kinds = bytearray(bytes([FREE_ENTRY]) * room)
    for (state, size), group in groups.items():
        slot = ((size ^ state) * HASH & MOST) >> 32 & (room - 1)
        while kinds[slot] != FREE_ENTRY:
            slot = (slot + 1) & (room - 1)
        keys[slot], kinds[slot], values[slot] = size, state, group
    return _column(keys), _column(kinds), _column(values), _U64(room)


def load(path: Path | None = None) -> Loops | None:
    """Return the compiled loops; None where they were not built, or are of another version."""
    try:
        library = ctypes.CDLL(str(path or Path(__file__).with_name(LIBRARY)))
        version = library.hg_version()
    except (OSError, AttributeError):
        return None
    return Loops(library) if version == VERSION else None


class Loops:
    """The functions of `loops`, compiled."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._c = library
        names = "hg_walk", "hg_find_chain", "hg_flags", "hg_ring", "hg_words_in", "hg_hidden_words"
        for name in (*names, "hg_landmarks", "hg_reached_rows", "hg_edges", "hg_runs"):
            getattr(library, name).restype = _U64

    def make_graph(self, parts: Sequence[Rows], word: int, swap: bool, mask: int) -> CompiledGraph:
        """As `loops.make_graph`."""
        return CompiledGraph(self._c, parts, word, swap, mask)

    def make_kinds(self, graph: Numbered, requests: Requests) -> CompiledKinds:
        """As `loops.make_kinds`."""
        assert isinstance(graph, CompiledGraph)
        return CompiledKinds(self._c, graph, requests)

    def walk_sizes(
        self,
        buffer: Buffer,
        start: int,
        end: int,
        alignment: int,
        min_chunk: int,
        addresses: array[int],
        sizes: array[int],
    ) -> int:
        """As in `loops`, a piece of the columns after the other."""
        stop = _U64(start)
        if start < buffer.base or end <= start:
            return start
        room = min(WALKED, (end - start) // max(min_chunk, 1) + 1)
        pieces = [array("Q", [0]) * room for _ in range(2)]
        with _span(buffer) as span:
            machine = (_INT(buffer.word), _INT(buffer.swap), _U64(alignment), _U64(min_chunk))
            rest = (*map(_column, pieces), _U64(room), ctypes.byref(stop))
            count = room
            while count == room:
                count = self._c.hg_walk(span, _U64(stop.value), _U64(end), *machine, *rest)
                for whole, piece in zip((addresses, sizes), pieces):
                    whole.extend(piece if count == room else piece[:count])
        return stop.value

    def walk_landmarks(
        self,
        buffer: Buffer,
        start: int,
        end: int,
        alignment: int,
        min_chunk: int,
        keep: Keep,
        addresses: array[int],
        sizes: array[int],
    ) -> int:
        """As in `loops`, a piece of the rows after the other."""
        if start < buffer.base or end <= start:
            return start
        seen = _Seen(at=start, until=start)
        room = min(KEPT, (end - start) // max(min_chunk, 1) + 4)
        pieces = [array("Q", [0]) * room for _ in range(2)]
        with _span(buffer) as span:
            machine = (_INT(buffer.word), _INT(buffer.swap), _U64(alignment), _U64(min_chunk))
            marks = _column(keep.marks), _U64(len(keep.marks)), _U64(keep.stretch)
            rest = (*marks, ctypes.byref(seen), *map(_column, pieces), _U64(room))
            while not seen.done:
                count = self._c.hg_landmarks(span, _U64(end), *machine, *rest)
                for whole, piece in zip((addresses, sizes), pieces):
                    whole.extend(piece[:count])
        return int(seen.at)

    def find_chain(self, buffer: Buffer, places: Places, chain: Chain) -> int:
        """As in `loops`."""
        first, last = places
        if first < buffer.base or last <= first:
            return last
        failed = bytearray((last - first) // chain.alignment // 8 + 1)
        find = self._c.hg_find_chain
        with _span(buffer) as span:
            found = find(
                *(span, _U64(first), _U64(last), _U64(chain.past), _U64(chain.limit)),
                *(_INT(buffer.word), _INT(buffer.swap), _U64(chain.alignment)),
                *(_U64(chain.least), _U64(chain.wrong), _U64(chain.need), _column(failed)),
            )
        return int(found)

    def judge_flags(self, sizes: array[int], states: bytearray) -> list[int]:
        """As in `loops`."""
        rows = array("Q", [0]) * PIECE
        count = _U64(len(sizes))
        before = bytes(states) if len(sizes) > PIECE else b""
        found = self._c.hg_flags(
            _column(sizes), _column(states), count, _column(rows), _U64(len(rows))
        )
        if found > len(rows):  # again, with room for all: the states as they were
            states[:] = before
            rows = array("Q", [0]) * found
            self._c.hg_flags(_column(sizes), _column(states), count, _column(rows), _U64(len(rows)))
        return rows[:found].tolist()

    def find_runs(
        self,
        addresses: array[int],
        sizes: array[int],
        states: bytearray,
        wanted: Sequence[int],
        least: int,
    ) -> tuple[list[tuple[int, int]], tuple[int, int]]:
        """As in `loops`."""
        first, last = array("Q", [0]) * PIECE, array("Q", [0]) * PIECE
        mask = sum(1 << state for state in set(wanted))
        runs: list[tuple[int, int]] = []
        after, best = _U64(0), array("Q", [0, 0])
        while after.value < len(states):
            count = self._c.hg_runs(
                *(_column(addresses), _column(sizes), _column(states), _U64(len(states))),
                *(_U64(mask), _U64(least), _column(first), _column(last), _U64(PIECE)),
                *(ctypes.byref(after), _column(best)),
            )
            runs += zip(first[:count], last[:count])
        return runs, (best[0], best[1])

    def add_cells(
        self,
        addresses: array[int],
        sizes: array[int],
        states: bytearray,
        cells: Cells,
        classes: Sequence[int],
    ) -> array[int]:
        """As in `loops`."""
        kinds = max(classes) + 1
        out = array("Q", [0]) * (cells.number * kinds)
        of_state = bytearray(classes)
        self._c.hg_cells(
            *(_column(addresses), _column(sizes), _column(states), _U64(len(states))),
            *(_U64(cells.base), _U64(cells.unit), _U64(cells.number)),
            *(_column(of_state), _U64(kinds), _column(out)),
        )
        return out

    def count_pairs(
        self, sizes: array[int], states: bytearray, first: int = 0, last: int | None = None
    ) -> Counter[tuple[int, int]]:
        """As in `loops`; the table grows until it has room."""
        first, count = _bounds(sizes, first, last)
        room = 1 << 12
        while True:
            keys, kinds = array("Q", [0]) * room, bytearray(b"\xff" * room)
            counts = array("Q", [0]) * room
            table = _column(keys), _column(kinds), _column(counts), _U64(room)
            if self._c.hg_pairs(_column(sizes, first), _column(states, first), _U64(count), *table):
                break
            room *= 16
        rows = zip(kinds, keys, counts)
        return Counter({(kind, key): number for kind, key, number in rows if kind != FREE_ENTRY})

    def select_rows(
        self,
        sizes: array[int],
        states: bytearray,
        groups: Mapping[tuple[int, int], int],
        counts: Sequence[int],
        first: int = 0,
        last: int | None = None,
    ) -> array[int]:
        """As in `loops`."""
        first, count = _bounds(sizes, first, last)
        ends = array("Q", accumulate(counts))
        begins = array("Q", [0, *ends][:-1])
        rows = array("Q", [0]) * (ends[-1] if ends else 0)
        self._c.hg_select(
            *(_column(sizes, first), _column(states, first), _U64(first), _U64(count)),
            *_table(groups),
            *(_column(begins), _column(ends), _column(rows)),
        )
        return rows

    def follow_ring(
        self,
        buffer: Buffer,
        bin_: int,
        link: int,
        alignment: int,
        least: int,
        most: int,
        chunks: array[int],
    ) -> int:
        """As in `loops`, a piece after the other."""
        room = len(buffer.data) // (4 * buffer.word)
        last = _U64(link)
        before = _U64(bin_)
        with _span(buffer) as span:
            while room and last.value != bin_:
                piece = array("Q", [0]) * min(room, PIECE)
                found = self._c.hg_ring(
                    span,
                    _U64(bin_),
                    ctypes.byref(before),
                    ctypes.byref(last),
                    _INT(buffer.word),
                    _INT(buffer.swap),
                    _U64(alignment),
                    _U64(least),
                    _U64(most),
                    _column(piece),
                    _U64(len(piece)),
                )
                chunks.extend(piece[:found])
                room -= found
                if found < len(piece):
                    break
        return last.value

    def words_between(self, buffer: Buffer, low: int, high: int, mask: int) -> list[int]:
        """As in `loops`."""
        found: list[int] = []
        after, length = _U64(0), len(buffer.data) // buffer.word * buffer.word
        places = array("Q", [0]) * PIECE
        top = MOST
        if high <= low or low > top:
            return found
        with _span(buffer) as span:
            while after.value < length:
                count = self._c.hg_words_in(
                    span,
                    _U64(after.value),
                    _U64(max(low, 0)),
                    _U64(min(high - 1, top)),
                    _U64(mask & top),
                    _INT(buffer.word),
                    _INT(buffer.swap),
                    _column(places),
                    _U64(len(places)),
                    ctypes.byref(after),
                )
                found += [buffer.base + offset for offset in places[:count]]
        return found

    def hidden_words(self, buffer: Buffer, hidden: Hidden) -> list[int]:
        """As in `loops`."""
        found: list[int] = []
        after = _U64(-buffer.base % buffer.word)
        places = array("Q", [0]) * PIECE
        wanted = _Hidden(*hidden[:4], *hidden.behind)
        with _span(buffer) as span:
            while len(buffer.data) - after.value >= buffer.word:
                count = self._c.hg_hidden_words(
                    *(span, _U64(after.value), ctypes.byref(wanted)),
                    *(_INT(buffer.word), _INT(buffer.swap)),
                    *(_column(places), _U64(len(places)), ctypes.byref(after)),
                )
                found += [buffer.base + offset for offset in places[:count]]
        return found

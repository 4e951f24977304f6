"""Which chunks a request asks for, and in which order: found on the columns, made when shown."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

from ..glibc.layout import SIZE_BITS, flag_letters
from ..heap.columns import STATE_NAMES, Columns
from ..heap.heap import Chunk, Heap
from ..heap.segments import Segment
from ..native import count_pairs, select_rows
from .stats import Totals, believed_size, totals_of
from .where import Test, Where

Rows = Sequence[int]
Pair = tuple[int, int]  # a row's state and size word
NO_TEST = Where((), ())


@dataclass(frozen=True)
class Filters:
    """What a chunk must be like to be shown. None: anything."""

    low: int | None = None  # a range of addresses that it touches
    high: int | None = None
    arena: int | None = None
    states: frozenset[str] | None = None  # names, "unknown" among them
    least: int | None = None  # bytes
    most: int | None = None
    bin: str | None = None  # a kind or a label
    where: Where = NO_TEST
    mmapped: bool = True  # whether mmapped chunks count
    order: str = ""  # "address", "size", with "-" from the other end; "": mmapped chunks last
    top: int | None = None  # how many of the first in this order


@dataclass
class _Picked:
    """The rows of a segment that passed, and how many there are of each pair."""

    segment: Segment
    rows: Rows
    pairs: Counter[Pair]
    every: tuple[int, int] | None = None  # they are all rows of these pairs in this range


class Selection:
    """The chunks that pass the filters. Totals are known at once, chunks are made one by one."""

    def __init__(self, heap: Heap, filters: Filters) -> None:
        self._heap = heap
        self._filters = filters
        self._picked = [self._pick(segment) for segment in heap.segments]
        self._mapped = [chunk for chunk in self._mmapped() if self._passes(chunk)]
        self._shown: list[Chunk] | None = None
        if filters.top is not None:
            self._shown = list(islice(self._in_order(), filters.top))
        self.totals = self._totals()
        self.count = sum(count for count, _ in self.totals.values())

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks in the order that was asked for."""
        return self._in_order() if self._shown is None else iter(self._shown)

    # --- filters ---

    def _pick(self, segment: Segment) -> _Picked:
        """Return the rows of a segment that pass."""
        columns, filters = segment.columns, self._filters
        first, last = _between(columns, filters.low, filters.high)
        if filters.arena is not None and segment.arena != filters.arena:
            last = first
        if filters.bin is not None:
            return self._ask(segment, self._listed(segment, first, last))
        counted = count_pairs(columns.sizes, columns.states, first, last)
        liked = Counter({p: n for p, n in counted.items() if self._likes(p, segment.arena)})
        every = _Picked(segment, range(first, last), liked, (first, last))
        if filters.where.of_chunk:
            return self._ask(segment, _by_group(every, [list(liked)]))
        if len(liked) < len(counted) and not self._by_size:
            every.rows = _by_group(every, [list(liked)])
        return every

    def _listed(self, segment: Segment, first: int, last: int) -> list[int]:
        """Return the rows, ascending, of the chunks in the wanted bins."""
        columns, marks, wanted = segment.columns, self._heap.marks, self._filters.bin
        rows = []
        for found in self._heap.lists:
            if wanted in (found.kind, found.label):
                places = (columns.row_at(c) for c in found.chunks if marks[c] is found)
                rows += [row for row in places if row is not None and first <= row < last]
        states, sizes = columns.states, columns.sizes
        likes = {pair: self._likes(pair, segment.arena) for pair in _pairs(segment, rows)}
        return sorted(row for row in rows if likes[states[row], sizes[row]])

    def _ask(self, segment: Segment, rows: Rows) -> _Picked:
        """Return those of the rows that pass what must be asked of each chunk."""
        tests, names, chunk_at = self._filters.where.of_chunk, self._names, self._heap.chunk_at
        if tests:
            rows = [r for r in rows if _all(tests, names(chunk_at(segment, r)))]
        return _Picked(segment, rows, _pairs(segment, rows))

    def _likes(self, pair: Pair, arena: int | None) -> bool:
        """Whether chunks of this kind pass what can be asked of all of them at once."""
        state, size_field = pair
        filters, size = self._filters, size_field & ~SIZE_BITS
        if filters.least is not None and size < filters.least:
            return False
        if filters.most is not None and size > filters.most:
            return False
        if filters.states is not None and (STATE_NAMES[state] or "unknown") not in filters.states:
            return False
        if not filters.where.of_pair:
            return True
        kind = Chunk(0, size_field, STATE_NAMES[state], arena, None)
        return _all(filters.where.of_pair, self._names(kind))

    def _mmapped(self) -> Iterator[Chunk]:
        if self._filters.mmapped and self._filters.arena is None:
            for chunk in self._heap.mmapped:
                yield self._heap.mmapped_as_chunk(chunk)

    def _passes(self, chunk: Chunk) -> bool:
        """Whether an mmapped chunk passes."""
        filters = self._filters
        if filters.low is not None and chunk.address < filters.low:
            return False
        if filters.high is not None and chunk.address >= filters.high:
            return False
        listed = chunk.listed
        if filters.bin is not None and (
            listed is None or filters.bin not in (listed.kind, listed.label)
        ):
            return False
        if not self._likes((STATE_NAMES.index(chunk.state), chunk.size_field), None):
            return False
        return _all(filters.where.of_chunk, self._names(chunk))

    def _names(self, chunk: Chunk) -> dict[str, Any]:
        """Return what the names of `--where` stand for."""
        listed = chunk.listed
        return {
            "address": chunk.address,
            "user": chunk.address + self._heap.layout.header,
            "size": chunk.size,
            "usable": self._heap.usable_of(chunk),
            "flags": flag_letters(chunk.size_field),
            "state": chunk.state,
            "bin": listed.label if listed else None,
            "arena": chunk.arena,
            "thread": listed.thread if listed else None,
            "owner": chunk.owner,
        }

    # --- order and totals ---

    @property
    def _by_size(self) -> bool:
        return self._filters.order.endswith("size")

    def _in_order(self) -> Iterator[Chunk]:
        if self._by_size:
            yield from self._sized()
            return
        if not self._filters.order:
            for one in self._picked:
                yield from (self._heap.chunk_at(one.segment, row) for row in one.rows)
            yield from self._mapped
            return
        down = self._filters.order.startswith("-")
        runs: list[tuple[int, _Picked | Chunk]] = [(p.segment.start, p) for p in self._picked]
        runs += [(chunk.address, chunk) for chunk in self._mapped]
        for _, run in sorted(runs, key=lambda run: run[0], reverse=down):
            if isinstance(run, Chunk):
                yield run
                continue
            for row in reversed(run.rows) if down else run.rows:
                yield self._heap.chunk_at(run.segment, row)

    def _sized(self) -> Iterator[Chunk]:
        """Yield by size; chunks of one size by address, mmapped ones last.

        Rows are put into groups of a size in one pass, no more of them than are shown.
        """
        counts: Counter[int] = Counter(chunk.size for chunk in self._mapped)
        for one in self._picked:
            counts.update(_of_sizes(one))
        sizes = sorted(counts, reverse=self._filters.order.startswith("-"))
        if self._filters.top is not None:
            before = accumulate((counts[size] for size in sizes), initial=0)
            sizes = [size for size, n in zip(sizes, before) if n < self._filters.top]
        groups = [_Groups(one, sizes) for one in self._picked]
        mapped: dict[int, list[Chunk]] = {}
        for chunk in self._mapped:
            mapped.setdefault(chunk.size, []).append(chunk)
        for number, size in enumerate(sizes):
            for group in groups:
                for row in group.rows_of(number):
                    yield self._heap.chunk_at(group.segment, row)
            yield from mapped.get(size, ())

    def _totals(self) -> Totals:
        counts: Counter[tuple[str | None, int]] = Counter()
        if self._shown is not None:
            for chunk in self._shown:
                state = STATE_NAMES.index(chunk.state)
                counts[chunk.state, believed_size(state, chunk.size_field)] += 1
            return totals_of(counts)
        for one in self._picked:
            for (state, size_field), n in one.pairs.items():
                counts[STATE_NAMES[state], believed_size(state, size_field)] += n
        counts.update((chunk.state, chunk.size) for chunk in self._mapped)
        return totals_of(counts)


class _Groups:
    """The rows of a segment by size: one group behind the other, as *sizes* has them."""

    def __init__(self, picked: _Picked, sizes: Sequence[int]) -> None:
        self.segment = picked.segment
        of_sizes = _of_sizes(picked)
        self._ends = [0, *accumulate(of_sizes[size] for size in sizes)]
        by_size: dict[int, list[Pair]] = {size: [] for size in sizes}
        for pair in picked.pairs:
            if pair[1] & ~SIZE_BITS in by_size:
                by_size[pair[1] & ~SIZE_BITS].append(pair)
        if picked.every is not None:
            self._rows: Rows = _by_group(picked, list(by_size.values()))
            return
        words, wanted = picked.segment.columns.sizes, {size: n for n, size in enumerate(sizes)}
        rows = [row for row in picked.rows if words[row] & ~SIZE_BITS in wanted]
        self._rows = sorted(rows, key=lambda row: wanted[words[row] & ~SIZE_BITS])

    def rows_of(self, number: int) -> Rows:
        """Return the rows of a size, by its number."""
        return self._rows[self._ends[number] : self._ends[number + 1]]


def _all(tests: Sequence[Test], names: Mapping[str, Any]) -> bool:
    return all(test(names) for test in tests)


def _pairs(segment: Segment, rows: Rows) -> Counter[Pair]:
    states, sizes = segment.columns.states, segment.columns.sizes
    return Counter((states[row], sizes[row]) for row in rows)


def _of_sizes(picked: _Picked) -> Counter[int]:
    counts: Counter[int] = Counter()
    for (_, size_field), count in picked.pairs.items():
        counts[size_field & ~SIZE_BITS] += count
    return counts


def _by_group(picked: _Picked, groups: Sequence[Sequence[Pair]]) -> Rows:
    """Return all rows of some pairs, group by group, each ascending."""
    assert picked.every is not None
    columns = picked.segment.columns
    counts = [sum(picked.pairs[pair] for pair in pairs) for pairs in groups]
    numbers = {pair: number for number, pairs in enumerate(groups) for pair in pairs}
    return select_rows(columns.sizes, columns.states, numbers, counts, *picked.every)


def _between(columns: Columns, low: int | None, high: int | None) -> tuple[int, int]:
    """Return the first and behind the last row of the chunks that a range touches."""
    addresses = columns.addresses
    first = 0 if low is None else max(bisect_right(addresses, low) - 1, 0)
    if low is not None and first < len(columns):
        end = addresses[first] + (columns.sizes[first] & ~SIZE_BITS)
        first += end <= low
    last = len(columns) if high is None else bisect_left(addresses, high)
    return first, max(first, last)

"""What two snapshots differ in, by chunk: one merge over sorted addresses.

Stretches that are alike are passed by in blocks; rows are looked at one by one only where two
blocks differ.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import BadRequest, MemoryFault
from ..glibc.layout import SIZE_BITS
from ..heap.columns import CORRUPT, FAST, FREE, MMAPPED, STATE_NAMES, TCACHE, USED
from ..native import count_pairs
from .snapshot import PAGE, Snapshot, pieces

BLOCK = 1 << 12  # rows that are compared at once
MOST_RANGES = 10_000  # chunks whose changed bytes are told range by range
JOINED = 8  # bytes between two changed ones that make them one range
KINDS = ("new", "gone", "resized", "freed", "taken", "moved", "written")
NEW, GONE, RESIZED, FREED, TAKEN, MOVED, WRITTEN = range(7)
HELD, LEFT = frozenset((USED, MMAPPED)), frozenset((FREE, TCACHE, FAST))


class Row(NamedTuple):
    """A chunk that differs: rows in the two snapshots, -1 where it is not."""

    kind: int  # index into KINDS
    before: int
    after: int


class Growth(NamedTuple):
    """Chunks in use of one size, before and after."""

    size: int
    before: int
    after: int

    @property
    def bytes(self) -> int:
        """By how much they have grown."""
        return (self.after - self.before) * self.size


@dataclass
class Diff:
    """Two snapshots, and where they differ."""

    before: Snapshot
    after: Snapshot
    kinds: bytearray = field(default_factory=bytearray)
    rows: tuple[array[int], array[int]] = field(default_factory=lambda: (array("q"), array("q")))
    ranges: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # by chunk, in its mem
    unread: int = 0  # bytes of contents that one of them does not have
    contents: str = "not known"  # how they were compared: exactly, by checksum, not known

    def __len__(self) -> int:
        return len(self.kinds)

    def add(self, kind: int, before: int, after: int) -> None:
        """Note a chunk."""
        self.kinds.append(kind)
        self.rows[0].append(before)
        self.rows[1].append(after)

    def address(self, number: int) -> int:
        """Return the chunk of the entry of this number."""
        before, after = self.rows[0][number], self.rows[1][number]
        return self.after.addresses[after] if after >= 0 else self.before.addresses[before]

    def sort(self) -> None:
        """Put the entries into the order of addresses."""
        order = sorted(range(len(self)), key=self.address)
        self.kinds = bytearray(self.kinds[n] for n in order)
        self.rows = tuple(array("q", (side[n] for n in order)) for side in self.rows)  # type: ignore[assignment]

    def entries(self) -> Iterator[Row]:
        """Yield all that differ, ascending by address."""
        for row in zip(self.kinds, *self.rows):
            yield Row(*row)

    def counted(self) -> dict[str, tuple[int, int]]:
        """Return how many chunks there are of each kind, and their bytes (the larger of both)."""
        counts, sizes = Counter(self.kinds), Counter[int]()
        for kind, before, after in self.entries():
            sizes[kind] += max(
                self.before.sizes[before] & ~SIZE_BITS if before >= 0 else 0,
                self.after.sizes[after] & ~SIZE_BITS if after >= 0 else 0,
            )
        return {name: (counts[n], sizes[n]) for n, name in enumerate(KINDS)}


def compare(before: Snapshot, after: Snapshot) -> Diff:
    """Return what two snapshots differ in.

    :raises BadRequest: if they are of different machines.
    """
    if (before.abi, before.header) != (after.abi, after.header):
        raise BadRequest(f"{before.name} is {before.abi}, {after.name} {after.abi}")
    found = Diff(before, after)
    alike: list[tuple[int, int, int]] = []
    for here, there, count in merged(before.addresses, after.addresses):
        if there < 0:
            for row in range(here, here + count):
                found.add(GONE, row, -1)
        elif here < 0:
            for row in range(there, there + count):
                found.add(NEW, -1, row)
        else:
            alike.append((here, there, count))
            _compare_rows(found, here, there, count)
    known = set(found.rows[0])
    _compare_bins(found, known)
    _Contents(found, known, alike).compare()
    found.sort()
    return found


def merged(left: array[int], right: array[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (row, row, count) of stretches of the same addresses; -1: only the other has them."""
    here = there = 0
    while here < len(left) and there < len(right):
        if left[here] == right[there]:
            count = _alike(left, right, here, there)
            yield here, there, count
            here, there = here + count, there + count
        elif left[here] < right[there]:
            end = bisect_left(left, right[there], here)
            yield here, -1, end - here
            here = end
        else:
            end = bisect_left(right, left[here], there)
            yield -1, there, end - there
            there = end
    if here < len(left):
        yield here, -1, len(left) - here
    if there < len(right):
        yield -1, there, len(right) - there


def _alike(left: array[int], right: array[int], here: int, there: int) -> int:
    """Return how many addresses are the same from two rows on."""
    count, step, most = 1, BLOCK, min(len(left) - here, len(right) - there)
    while step:
        low, high = here + count, there + count
        if step <= most - count and left[low : low + step] == right[high : high + step]:
            count += step
        else:
            step //= 2
    return count


def _compare_rows(found: Diff, here: int, there: int, count: int) -> None:
    """Compare sizes and states of chunks at the same addresses."""
    old, new = found.before, found.after
    for at in range(0, count, BLOCK):
        low, high, rows = here + at, there + at, min(BLOCK, count - at)
        if (
            old.states[low : low + rows] == new.states[high : high + rows]
            and old.sizes[low : low + rows] == new.sizes[high : high + rows]
        ):
            continue
        for row in range(rows):
            kind = _kind(
                old.sizes[low + row] ^ new.sizes[high + row],
                old.states[low + row],
                new.states[high + row],
            )
            if kind is not None:
                found.add(kind, low + row, high + row)


def _kind(size_differs: int, was: int, now: int) -> int | None:
    """Tell what happened to a chunk that is where it was; None: nothing that counts."""
    if size_differs & ~SIZE_BITS:
        return RESIZED
    if was == now:
        return None
    if was in HELD and now in LEFT:
        return FREED
    if was in LEFT and now in HELD:
        return TAKEN
    return MOVED


def _compare_bins(found: Diff, known: set[int]) -> None:
    """Note chunks that are in another bin, though their state is the same."""
    old, new = found.before, found.after
    for chunk, label in old.bins.items():
        other = new.bins.get(chunk)
        if other is None or other == label:
            continue
        rows = _row(old.addresses, chunk), _row(new.addresses, chunk)
        if min(rows) >= 0 and rows[0] not in known:
            known.add(rows[0])
            found.add(MOVED, *rows)


def _row(addresses: array[int], chunk: int) -> int:
    row = bisect_left(addresses, chunk)
    return row if row < len(addresses) and addresses[row] == chunk else -1


# --- contents -------------------------------------------------------------------------------------


class _Contents:
    """Compares what the blocks held that both snapshots have in use, with the same size."""

    def __init__(self, found: Diff, known: set[int], alike: list[tuple[int, int, int]]) -> None:
        self._found, self._known, self._stretches = found, known, alike

    def compare(self) -> None:
        """Exactly where both memories are at hand, else by checksum."""
        old, new = self._found.before, self._found.after
        if old.memory is not None and new.memory is not None:
            self._found.contents = "exactly"
            for start, end in old.spans:
                for low, high in _common(start, end, new.spans):
                    self._compare_memory(low, high)
        elif (old.memory or old.sums) and (new.memory or new.sums):
            self._found.contents = "by checksum"
            self._compare_sums(old.needed_sums(), new.needed_sums())

    def _compare_sums(self, mine: array[int], theirs: array[int]) -> None:
        for here, there, count in self._stretches:
            for at in range(0, count, BLOCK):
                low, high, rows = here + at, there + at, min(BLOCK, count - at)
                if mine[low : low + rows] == theirs[high : high + rows]:
                    continue
                for row in range(rows):
                    pair = mine[low + row], theirs[high + row]
                    if pair[0] != pair[1] and all(pair):
                        self._note(low + row, high + row)

    def _note(self, here: int, there: int) -> None:
        old, new = self._found.before, self._found.after
        in_use = old.states[here] in HELD and new.states[there] in HELD
        own = old.addresses[here] in old.own
        if in_use and not own and here not in self._known:
            self._known.add(here)
            self._found.add(WRITTEN, here, there)

    def _compare_memory(self, start: int, end: int) -> None:
        """Compare a range page by page, and the blocks in the pages that differ."""
        old, new = self._found.before, self._found.after
        assert old.memory is not None
        assert new.memory is not None
        done = -1
        self._found.unread += end - start
        for low, whole in pieces(old.memory, start, end):
            for first, other in pieces(new.memory, low, low + len(whole)):
                mine = whole[first - low : first - low + len(other)]
                self._found.unread -= len(other)
                if mine == other:
                    continue
                for at in range(0, len(mine), PAGE):
                    if mine[at : at + PAGE] != other[at : at + PAGE]:
                        done = self._compare_page(first + at, first + at + PAGE, done)

    def _compare_page(self, start: int, end: int, done: int) -> int:
        """Compare the blocks that touch a page; return the last row that was looked at."""
        old, new = self._found.before, self._found.after
        row = max(bisect_left(old.addresses, start + 1) - 1, done + 1, 0)
        while row < len(old) and old.addresses[row] < end:
            there = _row(new.addresses, old.addresses[row])
            if there >= 0 and old.states[row] in HELD and old.states[row] == new.states[there]:
                self._compare_block(row, there)
            done, row = row, row + 1
        return done

    def _compare_block(self, here: int, there: int) -> None:
        found = self._found
        block = found.before.block(here)
        own = found.before.addresses[here] in found.before.own
        if own or here in self._known or block != found.after.block(there):
            return
        try:
            mine, theirs = (side.memory.view(*block) for side in (found.before, found.after))  # type: ignore[union-attr]
        except MemoryFault:
            return
        if mine != theirs:
            self._note(here, there)
            if len(found.ranges) < MOST_RANGES:
                found.ranges[found.before.addresses[here]] = changed_ranges(mine, theirs)


def _common(start: int, end: int, spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for low, high in spans:
        if low < end and start < high:
            yield max(low, start), min(high, end)


def changed_ranges(mine: memoryview, theirs: memoryview) -> list[tuple[int, int]]:
    """Return the ranges of bytes that differ, from a block's start; close ones are joined."""
    ranges: list[tuple[int, int]] = []
    for low in range(0, len(mine), 64):
        if mine[low : low + 64] == theirs[low : low + 64]:
            continue
        for at, (old, new) in enumerate(zip(mine[low : low + 64], theirs[low : low + 64]), low):
            if old == new:
                continue
            if ranges and at - ranges[-1][1] < JOINED:
                ranges[-1] = ranges[-1][0], at + 1
            else:
                ranges.append((at, at + 1))
    return ranges


# --- totals ---------------------------------------------------------------------------------------

Totals = dict["str | None", "tuple[int, int]"]


def totals(one: Snapshot) -> Totals:
    """Return count and bytes by state."""
    found: dict[str | None, tuple[int, int]] = {}
    for (state, size), count in count_pairs(one.sizes, one.states).items():
        believed = 0 if state == CORRUPT else size & ~SIZE_BITS
        before = found.get(STATE_NAMES[state], (0, 0))
        found[STATE_NAMES[state]] = before[0] + count, before[1] + count * believed
    return found


def growth(found: Diff) -> list[Growth]:
    """Return the sizes of which there are more or fewer in use, the largest change first."""
    mine, theirs = (_in_use(one) for one in (found.before, found.after))
    rows = [Growth(size, mine[size], theirs[size]) for size in {*mine, *theirs}]
    changed = [row for row in rows if row.before != row.after]
    return sorted(changed, key=lambda row: (-abs(row.bytes), row.size))


def _in_use(one: Snapshot) -> Counter[int]:
    found = Counter[int]()
    for (state, size), count in count_pairs(one.sizes, one.states).items():
        if state in HELD:
            found[size & ~SIZE_BITS] += count
    return found

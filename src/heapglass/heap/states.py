"""A chunk's state: what the lists and the flags prove, else unknown."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property

from ..glibc.layout import PREV_INUSE, SIZE_BITS
from ..native import judge_flags
from .columns import CORRUPT, FAST, FREE, TCACHE, UNKNOWN, USED, Columns
from .lists import FreeList

BY_KIND = {"tcache": TCACHE, "fast": FAST, "unsorted": FREE, "small": FREE, "large": FREE}
SHOWN = 3  # addresses named in a warning that speaks of many


class Judge:
    """Gives the rows of columns their states, from all lists of all arenas and threads."""

    def __init__(
        self,
        lists: Sequence[FreeList],
        marks: Mapping[int, FreeList],
        blind_below: int,
        problems: list[str],
    ) -> None:
        """*marks*: chunk to the list it is in. *blind_below*: chunks up to this size may be in a
        tcache that was not found, so that in-use flags prove nothing of them; 0: all were found."""
        self._marks = marks
        self._blind_below = blind_below
        self._lost = [found for found in lists if found.lost and found.kind in ("tcache", "fast")]
        self._bins_lost = any(found.lost for found in lists if found.kind not in ("tcache", "fast"))
        self._problems = problems

    @cached_property
    def _sorted(self) -> list[int]:
        return sorted(self._marks)

    def judge(self, columns: Columns) -> None:
        """Set `columns.states`; rows that the walk has judged (top, fencepost, …) stay."""
        states, sizes = columns.states, columns.sizes
        states.extend(bytes(len(columns) - len(states)))
        flagged_free = judge_flags(columns.sizes, states)
        self._listed(columns)
        if self._blind_below or self._lost:
            for row, state in enumerate(states):
                if state == USED:
                    states[row] = self.unlisted(sizes[row] & ~SIZE_BITS)
        nowhere = [columns.addresses[row] for row in flagged_free if states[row] == UNKNOWN]
        if nowhere and not self._bins_lost:
            self._say("free by the next chunk's P bit, but in no bin", nowhere)

    def _listed(self, columns: Columns) -> None:
        """Give the chunks of the lists their state."""
        if not len(columns):
            return
        states, sizes, addresses = columns.states, columns.sizes, columns.addresses
        low = bisect_left(self._sorted, addresses[0])
        high = bisect_left(self._sorted, addresses[-1] + 1)
        inside, in_use = [], []
        for chunk in self._sorted[low:high]:
            row = bisect_left(addresses, chunk)
            if row >= len(addresses) or addresses[row] != chunk:
                inside.append(chunk)
                continue
            state = BY_KIND[self._marks[chunk].kind]
            if state == FREE and states[row] == USED and sizes[row + 1] & PREV_INUSE:
                in_use.append(chunk)
                states[row] = CORRUPT
            elif states[row] in (USED, UNKNOWN):
                states[row] = state
        if inside:
            self._say("in a list, but not where a chunk begins", inside)
        if in_use:
            self._say("in a bin, but in use by the next chunk's P bit", in_use)

    def unlisted(self, size: int) -> int:
        """Return the state of a chunk that is in use by the next one's P, and in no list."""
        return UNKNOWN if self._may_be_listed(size) else USED

    def _may_be_listed(self, size: int) -> bool:
        if size <= self._blind_below:
            return True
        return any(found.holds(size) for found in self._lost)

    def _say(self, what: str, chunks: Sequence[int]) -> None:
        names = ", ".join(f"{chunk:#x}" for chunk in chunks[:SHOWN])
        more = f" and {len(chunks) - SHOWN} more" if len(chunks) > SHOWN else ""
        self._problems.append(f"{names}{more}: {what}")

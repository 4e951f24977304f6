"""tcache structs by their shape in the heap, for threads whose TLS cannot be read.

A struct that is found belongs to the one thread that has none, or it is named as a candidate and
given to nobody: whose it is, the heap does not say. Since 2.42 its counters count down, so that an
empty struct shows as well: where there is none in all the memory, nobody has a tcache.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ..errors import MemoryFault
from ..glibc.layout import NON_MAIN_ARENA, PREV_INUSE
from ..heap.arena import read_ring
from ..heap.segments import coalesce
from ..heap.target import HeapThread, Target
from ..heap.words import Words
from .verify import Verdict, tcache_shape

MOST_SEARCHED = 256 << 20  # bytes
MOST_FOUND = 64
MOST_NAMED = 4
LARGER = 3  # sizes that a chunk of the struct can have: a remainder too small to split stays in it


def search_tcaches(target: Target) -> None:
    """Give the one thread of unknown tcache the one struct that nobody else has, else name them."""
    unknown = [thread for thread in target.threads if thread.tcache_state == "unknown"]
    if not unknown or target.main_arena is None or not target.layout.has("tcache"):
        return
    words = Words(target.memory, target.layout)
    owned = {thread.tcache for thread in target.threads}
    found = [(at, said) for at, said in _structs(words, target) if at not in owned]
    if len(found) == 1 and len(unknown) == 1:
        address, said = found[0]
        given = unknown[0]._replace(tcache=address, tcache_how="scan", tcache_state="active")
        target.threads = [given if t is unknown[0] else t for t in target.threads]
        target.missing[:] = [text for text in target.missing if "tcache" not in text]
        passed = ", ".join(said.passed)
        target.warnings.append(
            f"tcache {address:#x} is taken as thread {given.id}'s: its TLS cannot be read, no "
            f"other thread is without one, and no other block of the heap fits ({passed})"
        )
    elif found:
        target.missing.append(_candidates(found, unknown))
    elif target.layout.has("tcache_counts_down") and _wholly(words):
        target.threads = [
            t._replace(tcache_how="scan", tcache_state="none") if t in unknown else t
            for t in target.threads
        ]
        target.missing[:] = [text for text in target.missing if "tcache" not in text]


def _candidates(found: Sequence[tuple[int, Verdict]], unknown: Sequence[HeapThread]) -> str:
    named = ", ".join(f"{address:#x}" for address, _ in found[:MOST_NAMED])
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    threads = ", ".join(str(thread.id) for thread in unknown[:MOST_NAMED])
    return (
        f"tcache: {named}{more} look like one; which thread's ({threads}) is not known: "
        "say it with --tcache THREAD=ADDR"
    )


def _structs(words: Words, target: Target) -> Iterator[tuple[int, Verdict]]:
    """Yield blocks that hold a tcache in use, by address, with what they passed."""
    fields = _params(words, target)
    own = _Own(words, target, fields)
    count = fields.get("tcache_count")
    yielded = 0
    for start, end in _places(words):
        for mem in _blocks(words, start, end):
            said = _judge(words, mem, count)
            if said is not None and said.good and own.holds(mem):
                yield mem, said
                yielded += 1
                if yielded == MOST_FOUND:
                    return


def _judge(words: Words, mem: int, count: int | None) -> Verdict | None:
    """Return what the block passed; None if it is empty, as any block of zeros would be."""
    try:
        fields = words.struct(words.layout.tcache, mem)
        if not any(fields["entries"]) and not any(fields.get("num_slots", ())):
            return None
        return tcache_shape(words, mem, count)
    except MemoryFault:
        return None


def _params(words: Words, target: Target) -> dict[str, int]:
    """Return the fields of mp_, none if it cannot be read."""
    if target.mp is None:
        return {}
    try:
        read = words.struct(words.layout.structs["malloc_par"], target.mp.address)
    except MemoryFault:
        return {}
    return {name: values[0] for name, values in read.items()}


class _Own:
    """Tells the blocks of this malloc's arenas: another C library has structs of its own."""

    def __init__(self, words: Words, target: Target, fields: Mapping[str, int]) -> None:
        assert target.main_arena is not None
        self._words = words
        self._heap_max = words.layout.heap_max_size(fields.get("hp_pagesize") or 0)
        try:
            ring = read_ring(words, target.main_arena.address, [])
        except MemoryFault:
            ring = []
        self._arenas = {arena.address for arena in ring}
        inside = [arena.top for arena in ring[:1]] + [fields.get("sbrk_base") or 0]
        self._main = [
            (start, end)
            for start, end in coalesce(words.memory.regions())
            if any(start <= address < end for address in inside)
        ]

    def holds(self, mem: int) -> bool:
        """Whether a block is in a heap of an arena of the ring, or where the main heap is."""
        try:
            if self._words.word(mem - self._words.size) & NON_MAIN_ARENA:
                return self._words.word(mem & -self._heap_max) in self._arenas
        except MemoryFault:
            return False
        return any(start <= mem < end for start, end in self._main)


def _places(words: Words) -> list[tuple[int, int]]:
    """Return writable memory that no file is behind, as much of it as is searched."""
    left, found = MOST_SEARCHED, []
    for region in words.memory.regions():
        if "w" in region.perms and region.anonymous and region.size > 0:
            end = min(region.end, region.start + left)
            left -= end - region.start
            found += [(region.start, end)] if end > region.start else []
    return found


def _wholly(words: Words) -> bool:
    """Whether all memory in which there could be a heap is known, and was searched."""
    wanted = [r for r in words.memory.regions() if "w" in r.perms and r.anonymous]
    if not wanted or sum(region.size for region in wanted) > MOST_SEARCHED:
        return False
    return all(sum(len(v) for _, v in words.blocks(r.start, r.end)) == r.size for r in wanted)


def _blocks(words: Words, start: int, end: int) -> Iterator[int]:
    """Yield the mem of what has a size field that a tcache's chunk can have."""
    layout = words.layout
    smallest = layout.request2size(layout.tcache.size)
    fields = [
        (smallest + more * layout.alignment | flags).to_bytes(layout.word, words.order)
        for more in range(LARGER)
        for flags in (0, PREV_INUSE, NON_MAIN_ARENA, PREV_INUSE | NON_MAIN_ARENA)
    ]
    pattern = re.compile(b"|".join(map(re.escape, fields)))
    for base, data in words.blocks(start, end, overlap=words.size - 1):
        for match in pattern.finditer(data):
            mem = base + match.end()
            if mem % layout.alignment == 0:
                yield mem

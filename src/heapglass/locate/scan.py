"""`main_arena` and `mp_` without symbols: their invariants, searched in writable memory.

An empty bin points to itself: the pair of words at B is (B - header, B - header). An arena that is
alone in its ring has its own address in `next`, then 0 and 1 (next_free, attached_threads). A
malloc_par has its defaults: 128 KiB three times, DEFAULT_ARENA_TEST, DEFAULT_MMAP_MAX.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..errors import MemoryFault
from ..glibc.layout import Layout
from ..glibc.structs import NBINS
from ..heap.arena import read_arena
from ..heap.words import Words
from ..memory import Memory
from .verify import closes, count_bins, verify_arena, verify_mp

PAGE = 4096  # bytes; no port has smaller ones
PIECE = 8 << 20  # bytes searched at a time
MOST_HITS = 4096  # places that are looked at closely, in one range
MP_CLAIMS = 3  # of `mp_claims`, that a malloc_par must fulfil to be believed
_CODES = {8: "Q", 4: "I"}


class FoundArena(NamedTuple):
    """A main_arena by structure."""

    address: int
    layout: Layout
    checks: tuple[str, ...]


class FoundMp(NamedTuple):
    """A malloc_par by structure; the more claims it fulfils, the better."""

    address: int
    layout: Layout
    claims: tuple[str, ...]


def scan_arenas(
    memory: Memory,
    layouts: Sequence[Layout],
    ranges: Iterable[tuple[int, int]],
    ring: bool = True,
) -> list[FoundArena]:
    """Return every verified main_arena that stands in these ranges, ascending.

    A thread's arena is not one: it stands behind a heap_info that names it.
    *layouts*: what an arena may look like, the likeliest first. All must have one word size.
    *ring*: as for `verify_arena`.
    """
    words = Words(memory, layouts[0])
    found: dict[int, FoundArena] = {}
    for start, end in ranges:
        for base, view in _pieces(words, start, end):
            column = words.cast(view)
            for address, layout in _candidates(column, base, layouts, ring):
                if address not in found:
                    verdict = verify_arena(memory, layout, address, ring)
                    if verdict.good:
                        found[address] = FoundArena(address, layout, verdict.passed)
    threads = {a for a, one in found.items() if _is_threads(words, one.layout, a)}
    best = _best(words, found.values(), threads)
    return [one for one in best if one.address not in threads]


def _is_threads(words: Words, layout: Layout, address: int) -> bool:
    """Whether this is an arena at the start of a heap, which a thread has made."""
    info = layout.structs["heap_info"]
    heap = address - info.size
    if heap <= 0 or heap % PAGE:
        return False
    try:
        return words.word(heap + info.offset("ar_ptr")) == address
    except MemoryFault:
        return False


def _best(words: Words, found: Iterable[FoundArena], threads: set[int]) -> list[FoundArena]:
    """Keep one of those that overlap: an arena read with a wrong layout is near the right one.

    The right one is where the ring comes back to, or a thread's; else where the most bins point to
    themselves; else the layout that was named first.
    """

    def doubt(one: FoundArena) -> tuple[bool, int]:
        if closes(one.checks) or one.address in threads:
            return False, 0
        arena = read_arena(Words(words.memory, one.layout), one.address, main=True)
        empty, broken = count_bins(one.layout, arena)
        return True, broken - empty

    kept: list[FoundArena] = []
    for one in sorted(found, key=doubt):
        size = one.layout.state.size
        if all(abs(one.address - other.address) >= size for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.address)


def _pieces(words: Words, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
    """Yield the readable parts of a range; one overlaps the next by the size of an arena."""
    start = (start + words.size - 1) & -words.size
    overlap = words.layout.state.size * 2
    yield from words.blocks(start, end, PIECE, overlap)


def _candidates(
    column: memoryview, base: int, layouts: Sequence[Layout], ring: bool
) -> Iterator[tuple[int, Layout]]:
    """Yield where an arena may start, by its bins and by its ring."""
    word = layouts[0].word
    values = column.tolist()
    back = 2 * word
    bins = [
        number
        for number, value in enumerate(values)
        if value == base + number * word - back and values[number + 1 : number + 2] == [value]
    ]
    for layout in layouts:
        yield from ((address, layout) for address in _by_bins(bins, values, base, layout, ring))
    alone = [n for n, pair in enumerate(zip(values[1:], values[2:])) if pair == (0, 1)]
    for layout in layouts:
        yield from ((address, layout) for address in _by_ring(alone, values, base, layout))


def _by_bins(
    bins: list[int], values: list[int], base: int, layout: Layout, ring: bool
) -> Iterator[int]:
    """Yield arenas whose 254 words of bins hold the first of a run of empty ones."""
    word, state = layout.word, layout.state
    ahead = 2 * NBINS - 2
    tail = (state.offset("next") - state.offset("bins")) // word
    attached = (state.offset("attached_threads") - state.offset("next")) // word
    behind = -1
    for first in bins[:MOST_HITS]:
        if first < behind:
            continue
        for index in range(NBINS - 1):
            start = first - 2 * index
            at = start + tail
            if start < 0 or at + attached + 3 > len(values):
                continue
            # next is a pointer, attached_threads small, system_mem at most max_system_mem
            here = values[at + attached : at + attached + 3]
            linked = not ring or (values[at] and not values[at] % word)
            if linked and here[0] < 1 << 22 and here[1] <= here[2]:
                behind = start + ahead
                yield base + start * word - state.offset("bins")


def _by_ring(alone: list[int], values: list[int], base: int, layout: Layout) -> Iterator[int]:
    """Yield arenas that are alone: `next` is their own address, then come 0 and 1 (*alone*)."""
    word, offset = layout.word, layout.state.offset("next")
    for number in alone:
        if values[number] == base + number * word - offset:
            yield values[number]


# --- mp_ ----------------------------------------------------------------------------------------


def scan_mp(
    memory: Memory,
    layouts: Sequence[Layout],
    ranges: Iterable[tuple[int, int]],
    main_heap: tuple[int, int] | None,
) -> list[FoundMp]:
    """Return what can be a malloc_par, the best first.

    *main_heap*: the range in which the main heap begins, None if there is none yet.
    """
    words = Words(memory, layouts[0])
    found: list[FoundMp] = []
    for start, end in ranges:
        for base, view in _pieces(words, start, end):
            for number in _defaults(words.cast(view), words.layout):
                for layout in layouts:
                    address = base + number * words.size
                    claims = mp_claims(words, layout, address, main_heap)
                    if len(claims) >= MP_CLAIMS:
                        found.append(FoundMp(address, layout, claims))
    best: dict[tuple[int, Layout], FoundMp] = {(f.address, f.layout): f for f in found}
    return sorted(best.values(), key=lambda one: (-len(one.claims), one.address))


def _defaults(column: memoryview, layout: Layout) -> list[int]:
    """Return the word numbers at which a malloc_par may start, by any one of its defaults."""
    values = column.tolist()
    test = layout.constants["DEFAULT_ARENA_TEST"]
    wanted = {
        layout.constants["DEFAULT_TRIM_THRESHOLD"]: (0, 1, 2),  # trim, top_pad, mmap_threshold
        test: (3,),
    }
    starts: set[int] = set()
    for number, value in enumerate(values):
        if value in wanted:
            starts.update(number - back for back in wanted[value] if number >= back)
    return sorted(starts)[: MOST_HITS * 4]


def mp_claims(
    words: Words, layout: Layout, address: int, main_heap: tuple[int, int] | None
) -> tuple[str, ...]:
    """Return what speaks for a malloc_par at *address*; nothing if it cannot be one."""
    if not verify_mp(words.memory, layout, address, True).good:
        return ()
    try:
        read = Words(words.memory, layout).struct(layout.structs["malloc_par"], address)
    except (MemoryFault, struct.error):
        return ()
    mp = {name: values[0] for name, values in read.items()}
    constants = layout.constants
    base, top_most = mp["sbrk_base"], constants["DEFAULT_MMAP_THRESHOLD_MAX"]
    if base and not (main_heap and main_heap[0] <= base <= main_heap[1]):
        return ()
    bins = mp.get("tcache_bins")
    if base and bins is not None and not 1 <= bins <= constants.get("TCACHE_SMALL_BINS", 0):
        return ()
    holds = (
        ("sbrk_base is where the main heap starts", bool(base)),
        ("top_pad is the default", mp["top_pad"] == constants["DEFAULT_TOP_PAD"]),
        ("arena_test is the default", mp["arena_test"] == constants["DEFAULT_ARENA_TEST"]),
        ("n_mmaps_max is the default", mp["n_mmaps_max"] == constants["DEFAULT_MMAP_MAX"]),
        (
            "mmap_threshold is in its range",
            constants["DEFAULT_MMAP_THRESHOLD"] <= mp["mmap_threshold"] <= top_most,
        ),
        (
            "trim_threshold is the default, or twice mmap_threshold",
            mp["trim_threshold"] in (constants["DEFAULT_TRIM_THRESHOLD"], 2 * mp["mmap_threshold"]),
        ),
        *_tcache_claims(layout, mp),
    )
    return tuple(name for name, true in holds if true)


def _tcache_claims(layout: Layout, mp: dict[str, int]) -> Iterator[tuple[str, bool]]:
    if "tcache_bins" not in mp or not layout.has("tcache"):
        return
    small = layout.constants["TCACHE_SMALL_BINS"]
    yield "tcache_bins is the default", mp["tcache_bins"] == small
    fill = layout.constants["TCACHE_FILL_COUNT"]
    yield "tcache_count is the default", mp["tcache_count"] == fill
    largest = layout.tcache_small_max
    near = (largest - layout.word, largest, largest + 1, largest - layout.word + 1)
    yield "tcache_max_bytes is the default", mp["tcache_max_bytes"] in near
    if "thp_pagesize" in mp:
        huge = mp["thp_pagesize"] | mp["hp_pagesize"]
        yield "thp_pagesize and hp_pagesize are powers of two", not huge & 0xFFF

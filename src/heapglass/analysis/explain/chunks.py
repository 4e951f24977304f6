"""The chunk for which a check failed: one at hand, one of a list, or one that is damaged."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from ...errors import MemoryFault
from ...glibc.layout import SIZE_BITS
from ...heap.columns import CORRUPT, FREE, TOP, UNKNOWN, USED, align_up
from ..check.finding import Finding
from ..check.overlap import chain_ends
from ..check.places import Places
from .rules import LINKS as LINK_CHECKS
from .rules import Check, check_of

MOST = 16  # candidates that are told
# They free a list's chunks one by one: the one that led to nowhere was freed a moment ago.
DRAINS = ("tcache_thread_shutdown", "malloc_consolidate")
LISTS = {
    "unsorted": ("unsorted",),
    "small": ("small",),
    "large": ("large", "unsorted"),
    "free": ("unsorted", "small", "large"),
    "fast": ("fast",),
    "tcache": ("tcache",),
}


def failing_chunks(
    places: Places, check: Check, hand: Sequence[int], findings: Sequence[Finding]
) -> list[int]:
    """Return the chunks for which a check fails, the likeliest first."""
    found: dict[int, None] = {}
    if check.fails in LINK_CHECKS:
        rules = ("tcache-next", "fast-fd")
        taken = [one for one in findings if one.rule in rules and one.is_chunk]
        found = {one.address: None for one in taken if _is_of(check, one)}
    candidates = _candidates(places, check, hand, findings)
    if check.kind in ("pointer", "mapped"):  # what is damaged comes before what only looks so
        damaged = [one.address for one in findings if one.is_chunk]
        at_hand = {word - places.header for word in hand} | set(hand)
        near = [chunk for chunk in damaged if chunk in at_hand]
        candidates = chain(near, damaged, _foretold(places, check, findings), candidates)
    for chunk in candidates:
        if chunk not in found and check.fails(places, chunk):
            found[chunk] = None
            if len(found) >= MOST:
                break
    if not found and check.function in DRAINS:
        freed = (c for c in _at_hand(places, hand) if c in places.heap.marks)
        found = dict.fromkeys(islice(chain(_drained(places), freed), 1))
    return list(found)


def _foretold(places: Places, check: Check, findings: Sequence[Finding]) -> Iterator[int]:
    """Yield the blocks below what is damaged, where to free them comes to this very check."""
    for finding in findings:
        aborts = (outcome.says for outcome in finding.outcomes if outcome.abort)
        below = places.below(finding.address) if finding.is_chunk else None
        if below is not None and any(check_of(text) == check for text in aborts):
            yield below


def _drained(places: Places) -> Iterator[int]:
    """Yield what was freed last out of a tcache that has no thread any more, and a wrong head."""
    layout = places.layout
    if not layout.has("tcache"):
        return
    size = layout.request2size(layout.tcache.size)
    for segment in places.heap.segments:
        columns = segment.columns
        for row, field in enumerate(columns.sizes):
            if field & ~SIZE_BITS in (size, size + layout.alignment) and not columns.states[row]:
                for index in _wrong_heads(places, columns.addresses[row] + places.header):
                    yield from _last_freed(places, index)


def _wrong_heads(places: Places, tcache: int) -> Iterator[int]:
    """Yield the bins of a struct whose heads are not aligned; none if it is not a tcache."""
    mask = places.layout.alignment - 1
    try:
        heads = places.heap.words.struct(places.layout.tcache, tcache)["entries"]
    except MemoryFault:
        return
    if all(not head or not head & mask or places.load(head) is None for head in heads):
        yield from (index for index, head in enumerate(heads) if head & mask)


def _last_freed(places: Places, index: int) -> Iterator[int]:
    """Yield the first chunks of the bins that a size of the tcache goes to."""
    sizes = places.layout.tcache_range(index)
    for found in places.heap.lists:
        if sizes is None or found.kind == "tcache" or not found.chunks:
            continue
        if places.size(found.chunks[0]) == sizes[0]:
            yield found.chunks[0]


def _is_of(check: Check, finding: Finding) -> bool:
    return {"tcache": "tcache-next", "fast": "fast-fd"}.get(check.kind) == finding.rule


def _candidates(
    places: Places, check: Check, hand: Sequence[int], findings: Sequence[Finding]
) -> Iterator[int]:
    if check.kind in LISTS:
        yield from _of_lists(places, check.kind, hand, findings)
    elif check.kind == "top":
        at_hand = set(hand)
        yield from sorted(places.tops, key=lambda top: places.tops[top] not in at_hand)
        return
    elif check.kind in ("heap", "fence", "post"):
        yield from _of_heaps(places, check.kind)
        return
    elif check.kind in ("pointer", "mapped"):
        yield from _anywhere(places, hand, check.kind == "mapped")
    else:
        yield from _at_hand(places, hand)
        yield from (c for c in _both(places, hand) if _is_covered(places, c))
    yield from _around(places, findings)


def _of_heaps(places: Places, kind: str) -> Iterator[int]:
    """Yield chunks at the start or the end of threads' heaps: the first, or the fenceposts."""
    info = places.layout.structs["heap_info"]
    for arena in places.heap.arenas[1:]:
        heap = arena.top & -places.heap.heap_max
        if kind == "heap" and places.load(heap + info.offset("ar_ptr")) != arena.address:
            yield align_up(heap + info.size, places.header, places.layout.alignment)
    room = places.layout.min_chunk - places.header
    for segment in places.heap.segments if kind != "heap" else ():
        if segment.kind != "heap" or segment.top is not None:
            continue
        last = segment.end - room
        last -= last % places.layout.alignment
        post = last - places.header
        field = places.size_word(last), places.size_word(post)
        whole = field[0] == 1 and field[1] in (places.header, places.header | 1)
        if not whole:
            yield last if kind == "fence" else post


def _of_lists(
    places: Places, kind: str, hand: Sequence[int], findings: Sequence[Finding]
) -> Iterator[int]:
    """Yield the chunks of lists: those at hand first, then those that are damaged, then others."""
    listed = [
        chunk
        for found in places.heap.lists
        if found.kind in LISTS[kind]
        for chunk in reversed(found.chunks)
    ]
    members = set(listed)
    if kind in ("free", "large"):
        near = list(_at_hand(places, hand))
        yield from (c for c in near if c in members or places.state(c) in (FREE, CORRUPT))
        yield from (one.address for one in findings if one.address in members)
        yield from (c for c in near if places.state(c) == UNKNOWN)
    else:
        yield from (c for c in _both(places, hand) if c in members)
    yield from (one.address for one in findings if one.address in members)
    yield from listed


def _both(places: Places, hand: Sequence[int]) -> Iterator[int]:
    """Yield each word as a mem, and as a chunk; first those that are there as both.

    A program has the mem; who has the chunk as well is malloc, at work on it.
    """
    everything = set(hand)
    for word in hand:
        if word - places.header in everything:
            yield word - places.header
    for word in hand:
        if word > places.header:
            yield word - places.header
            yield word


def _at_hand(places: Places, hand: Sequence[int]) -> Iterator[int]:
    """Yield the chunks of the walk that registers and stack lead to; also where it lost its way."""
    for chunk in _both(places, hand):
        segment = places.segment_of(chunk)
        if segment is None or (chunk + places.header) & (places.layout.alignment - 1):
            continue
        if segment.columns.row_at(chunk) is not None or places.in_gap(chunk):
            yield chunk


def _is_covered(places: Places, chunk: int) -> bool:
    """Whether chunks lie behind each other from here to the end of one that covers them."""
    holder = places.holding(chunk)
    outer = None if holder is None else holder[0].columns.addresses[holder[1]]
    return outer is not None and outer < chunk and chain_ends(places, chunk, outer)


def _anywhere(places: Places, hand: Sequence[int], mapped: bool) -> Iterator[int]:
    """Yield what the program may have passed for a block, in heaps and elsewhere, by likelihood.

    What can be written is looked at, but not what is libc's own, or a thread's control block.
    """
    passed = Passed(places, hand, mapped)
    tiers: tuple[list[int], ...] = ([], [], [], [])
    for mem in hand:
        tier = passed.tier(mem)
        if tier is not None:
            tiers[tier].append(mem)
    for mem in chain.from_iterable(tiers):
        yield mem - places.header
        if places.segment_of(mem) is not None and not mapped and _may_be_freed(places, mem):
            yield mem


class Passed:
    """Tells how likely a word is what the program passed to free or realloc."""

    def __init__(self, places: Places, hand: Sequence[int], mapped: bool) -> None:
        self._places, self._mapped = places, mapped
        self._hand = set(hand)
        self._regions = places.heap.target.memory.regions()
        self._main = places.heap.arenas[0].address
        self._pointers = {thread.tp for thread in places.heap.target.threads}

    def tier(self, mem: int) -> int | None:
        """Return 0 for the likeliest; None for what cannot be it.

        Malloc's own frames have the chunk beside the mem. On a stack that is chance; a zero before
        an aligned address of a file's data is common.
        """
        places, header = self._places, self._places.header
        if mem < header or mem in self._pointers:
            return None
        both = mem - header in self._hand
        if places.segment_of(mem) is not None:
            if self._mapped and places.row(mem - header) is None:
                return None
            if not self._mapped and not _may_be_freed(places, mem - header):
                return None
            return 0 if both else 1
        number = self._number(mem)
        if number is None or mem % places.word or self._is_own(mem, number):
            return None
        if not places.load(mem - places.word) and self._is_data(number) and not mem % header:
            return 3
        return 2 if not both or self._is_stack(number) else 0

    def _number(self, mem: int) -> int | None:
        number = bisect_right(self._regions, (mem, self._places.layout.max_address)) - 1
        region = self._regions[number] if number >= 0 else None
        return None if region is None or not mem < region.end else number

    def _is_own(self, mem: int, number: int) -> bool:
        """Whether an address is libc's own, cannot be written, or is a block with a mapping."""
        region, page = self._regions[number], self._places.heap.page_size
        own = next((one.path for one in self._regions if one.start <= self._main < one.end), "")
        if "w" not in region.perms or (own and region.path == own):
            return True
        if self._mapped:
            return mem % page > page // 2
        return (
            _is_message(self._places, mem, page) or self._places.heap.find_mmapped(mem) is not None
        )

    def _is_data(self, number: int) -> bool:
        """Whether a mapping is a file's data, or its bss, which follows."""
        region = self._regions[number]
        before = self._regions[number - 1] if number else region
        bss = not region.path and before.end == region.start and bool(before.path)
        return bss or region.path.startswith("/")

    def _is_stack(self, number: int) -> bool:
        region = self._regions[number]
        threads = self._places.heap.target.threads
        return any(one.sp is not None and region.start <= one.sp < region.end for one in threads)


def _may_be_freed(places: Places, chunk: int) -> bool:
    """Whether an address in a heap is a chunk, or what a program may take for one."""
    if places.row(chunk) is not None or places.in_gap(chunk):
        return True
    if (chunk + places.header) % places.layout.alignment:
        return True
    size = places.size(chunk)
    return size is not None


def _is_message(places: Places, mem: int, page: int) -> bool:
    """Whether an address is the start of a mapping that holds malloc's last words."""
    if mem % page:
        return False
    size = places.load(mem)
    return size is not None and size & 0xFFFFFFFF in range(page, 1 << 16, page)


def _around(places: Places, findings: Sequence[Finding]) -> Iterator[int]:
    """Yield the chunks that something is wrong with, and their neighbours."""
    for finding in findings:
        if not finding.is_chunk:
            continue
        for chunk in (finding.address, places.below(finding.address), finding.next):
            if chunk is not None and places.state(chunk) in (USED, FREE, UNKNOWN, CORRUPT, TOP):
                yield chunk

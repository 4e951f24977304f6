"""The chunk for which a check failed: one at hand, one of a list, or one that is damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from ...heap.columns import CORRUPT, FREE, TOP, UNKNOWN, USED
from ..check.finding import Finding
from ..check.places import Places
from .rules import LINKS as LINK_CHECKS
from .rules import Check

MOST = 16  # candidates that are told
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
        candidates = chain((c for c in damaged if c in at_hand), candidates)
    for chunk in candidates:
        if chunk not in found and check.fails(places, chunk):
            found[chunk] = None
            if len(found) >= MOST:
                break
    return list(found)


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
    elif check.kind in ("pointer", "mapped"):
        yield from _anywhere(places, hand, check.kind == "mapped")
    else:
        yield from _at_hand(places, hand)
    yield from _around(places, findings)


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
    if kind == "free":
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


def _anywhere(places: Places, hand: Sequence[int], mapped: bool) -> Iterator[int]:
    """Yield what the program may have passed for a block, in heaps and elsewhere.

    What can be written is looked at, but not what is libc's own, or a thread's control block.
    """
    regions = [one for one in places.heap.target.memory.regions() if "w" in one.perms]
    main = places.heap.arenas[0].address
    own = next((one.path for one in regions if one.start <= main < one.end), "")
    pointers = {thread.tp for thread in places.heap.target.threads}
    page = places.heap.page_size
    everything = set(hand)
    stacks = [one for one in regions if _is_stack(places, one.start, one.end)]
    mems = [
        mem
        for mem in hand
        if mem - places.header in everything
        and not any(one.start <= mem < one.end for one in stacks)  # there it is chance
    ]
    for mem in (*mems, *hand):
        if mem < places.header or mem % places.word or mem in pointers:
            continue
        chunks = [mem - places.header]
        if places.segment_of(mem) is not None:
            if not mapped:
                yield from (c for c in (*chunks, mem) if _may_be_freed(places, c))
            elif places.row(chunks[0]) is not None:
                yield chunks[0]
            continue
        region = next((one for one in regions if one.start <= mem < one.end), None)
        if region is None or (own and region.path == own) or _is_message(places, mem, page):
            continue
        if places.heap.find_mmapped(mem) is not None and not mapped:
            continue
        if mapped and mem % page > page // 2:
            continue
        yield chunks[0]


def _may_be_freed(places: Places, chunk: int) -> bool:
    """Whether an address in a heap is a chunk, or what a program may take for one."""
    if places.row(chunk) is not None or places.in_gap(chunk):
        return True
    if (chunk + places.header) % places.layout.alignment:
        return True
    size = places.size(chunk)
    return size is not None


def _is_stack(places: Places, start: int, end: int) -> bool:
    threads = places.heap.target.threads
    return any(one.sp is not None and start <= one.sp < end for one in threads)


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

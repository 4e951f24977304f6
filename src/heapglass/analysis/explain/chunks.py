"""The chunk for which a check failed: one at hand, one of a list, or one that is damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...heap.columns import CORRUPT, FREE, TOP, UNKNOWN, USED
from ..check.finding import Finding
from ..check.places import Places
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
    for chunk in _candidates(places, check, hand, findings):
        if chunk not in found and check.fails(places, chunk):
            found[chunk] = None
            if len(found) >= MOST:
                break
    return list(found)


def _candidates(
    places: Places, check: Check, hand: Sequence[int], findings: Sequence[Finding]
) -> Iterator[int]:
    if check.kind in LISTS:
        yield from _of_lists(places, check.kind, hand, findings)
    elif check.kind == "top":
        at_hand = set(hand)
        yield from sorted(places.tops, key=lambda top: places.tops[top] not in at_hand)
        return
    else:
        yield from _at_hand(places, hand)
        if check.kind in ("pointer", "mapped"):
            yield from _anywhere(places, hand, check.kind == "mapped")
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
        yield from (c for c in _at_hand(places, hand) if _is_free(places, c, members))
    else:
        yield from (c for c in _both(places, hand) if c in members)
    yield from (one.address for one in findings if one.address in members)
    yield from listed


def _is_free(places: Places, chunk: int, members: set[int]) -> bool:
    return chunk in members or places.state(chunk) in (FREE, UNKNOWN, CORRUPT)


def _both(places: Places, hand: Sequence[int]) -> Iterator[int]:
    """Yield each word as a chunk, and as a mem."""
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
    """Yield what the program may have passed for a block: in heaps first, then elsewhere.

    What can be read and written is looked at; a stack is last: its own words lead all over it.
    """
    regions = [one for one in places.heap.target.memory.regions() if "w" in one.perms]
    elsewhere: list[int] = []
    stack: list[int] = []
    for mem in hand:
        chunk = mem - places.header
        if mem % places.word or chunk < 0:
            continue
        if places.segment_of(mem) is not None:
            if not mapped:
                yield chunk
            continue
        region = next((one for one in regions if one.start <= mem < one.end), None)
        if region is None or (places.heap.find_mmapped(mem) is not None and not mapped):
            continue
        if mapped and mem % places.heap.page_size > places.heap.page_size // 2:
            continue
        (stack if _is_stack(places, region.start, region.end) else elsewhere).append(chunk)
    yield from elsewhere
    yield from stack


def _is_stack(places: Places, start: int, end: int) -> bool:
    return any(
        thread.sp is not None and start <= thread.sp < end for thread in places.heap.target.threads
    )


def _around(places: Places, findings: Sequence[Finding]) -> Iterator[int]:
    """Yield the chunks that something is wrong with, and their neighbours."""
    for finding in findings:
        if not finding.is_chunk:
            continue
        for chunk in (finding.address, places.below(finding.address), finding.next):
            if chunk is not None and places.state(chunk) in (USED, FREE, UNKNOWN, CORRUPT, TOP):
                yield chunk

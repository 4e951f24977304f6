"""Which chunk is damaged, where a rule fails at another: the walk and the lists meet it late."""

from __future__ import annotations

from .causes import leads_to, null_byte, spill_into
from .finding import (
    NOT_A_CHUNK,
    OFF_BY_NULL,
    OVERFLOW,
    UNDERFLOW,
    USE_AFTER_FREE,
    Finding,
    Word,
)
from .places import Places

LISTS = ("listed", "tcache-next", "fast-fd")


def blame_the_smaller(places: Places, finding: Finding) -> None:
    """Where a size makes no sense, see whether the one before is too small, and led into data.

    What lies there is then the data of that chunk: what goes on over its own size tells.
    """
    chunk = finding.address
    before = places.below(chunk)
    if finding.rule != "size" or before is None or finding.next is None:
        return
    size = places.size(before)
    if size is None or before + size != chunk:
        return
    below = places.below(before)
    spilt = spill_into(places, before, below) is not None
    if not spilt and null_byte(places, before, below, finding.next) is None:
        return
    finding.address, finding.skipped = before, (before, finding.next)
    finding.message = f"size {size:#x} leads to {chunk:#x}, where no chunk is"
    at = before + places.word
    finding.words = [Word(at, places.load(at) or 0, "size")]


def name_the_damaged(places: Places, finding: Finding) -> None:
    """Let a finding name the chunk that is damaged: maybe the next one, or one that was taken."""
    cause = finding.cause
    if cause is None:
        return
    if finding.rule == "unlisted" and cause.kind in (OFF_BY_NULL, OVERFLOW, UNDERFLOW):
        if finding.next is not None:
            finding.address, finding.next = finding.next, places.above(finding.next)
            finding.message += f" (chunk {cause.culprit:#x})" if cause.culprit is not None else ""
    elif finding.rule == "twice" or cause.culprit is None:
        return
    elif cause.kind == NOT_A_CHUNK or (cause.kind == USE_AFTER_FREE and not finding.is_chunk):
        finding.address, finding.is_chunk = cause.culprit, True
    elif finding.rule in LISTS and cause.kind != USE_AFTER_FREE:  # it lies in another chunk
        inside = finding.address if finding.rule == "listed" else leads_to(places, finding)
        holder = places.holding(inside)
        if holder is not None:
            finding.address, finding.is_chunk = holder[0].columns.addresses[holder[1]], True

"""All rules of one heap, in the order in which a reader wants them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

from ...errors import MemoryFault
from ...heap.heap import Heap
from .arenas import arena_findings
from .blame import blame_the_smaller, name_the_damaged
from .causes import find_cause
from .chunks import chunk_findings
from .finding import Finding
from .lists import list_findings
from .places import Places
from .predict import predict

MOST_OF_A_KIND = 1 << 12  # findings of the walk, of the lists, of the arenas
MOST = 256  # findings of which the cause is looked for
PREDICTED = 8  # for which the model plays


@dataclass
class Checked:
    """What a check found, errors first, the most telling rule of a chunk before the others."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what bears on what was found


# Of a chunk for which the first is found, the others follow from it.
ECHOES = {
    "size": ("bin-size", "flags"),
    "twice": ("link", "prev-inuse", "tcache-key", "tcache-count", "tcache-next", "fast-fd"),
}
ORDER = (
    "size",
    "twice",
    "flags",
    "top",
    "prev-inuse",
    "unlisted",
    "link",
    "tcache-next",
    "fast-fd",
)


def check_heap(heap: Heap) -> Checked:
    """Apply every rule to a heap at rest.

    :raises NotFound: if main_arena is not known.
    """
    places = Places(heap)
    notes: list[str] = []
    found = []
    for rules in (chunk_findings(places), list_findings(places), arena_findings(places)):
        some = list(islice(rules, MOST_OF_A_KIND))
        if len(some) == MOST_OF_A_KIND:
            notes.append(f"more than {MOST_OF_A_KIND} findings of a kind: the others are left out")
        found += some
    found = _without_echoes(found)
    for finding in found[:MOST]:
        blame_the_smaller(places, finding)
        finding.cause = finding.cause or find_cause(places, finding)
        name_the_damaged(places, finding)
    found.sort(key=_rank)
    predict(places, found[:PREDICTED])
    return Checked(found, notes + _notes(places))


def _without_echoes(found: list[Finding]) -> list[Finding]:
    """Leave out what only says again that a size is wrong, or that a chunk is in two lists."""
    told = {rule: {one.address for one in found if one.rule == rule} for rule in ECHOES}
    return [
        one
        for one in found
        if not any(one.rule in ECHOES[rule] and one.address in told[rule] for rule in ECHOES)
    ]


def _rank(finding: Finding) -> tuple[bool, int, int]:
    rule = ORDER.index(finding.rule) if finding.rule in ORDER else len(ORDER)
    return finding.severity != "error", rule, finding.address


def _notes(places: Places) -> list[str]:
    """Say which arena somebody is at work in: what is in the middle of a change looks broken."""
    notes = []
    at = places.layout.state.offset("mutex")
    for arena in places.heap.arenas:
        try:
            locked = places.heap.words.numbers(arena.address + at, 4, 1)[0]
        except MemoryFault:
            continue
        if locked:
            notes.append(
                f"arena {arena.address:#x} is locked: a thread is in malloc, and what it is about "
                "to change may look broken"
            )
    return notes

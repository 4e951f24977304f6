"""Why a program ended in malloc: what it said, which check that is, on which chunk, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...glibc.layout import SIZE_BITS
from ...heap.columns import FAST, FREE, TCACHE, TOP
from ...heap.heap import Heap
from ...source import Stop
from ..check import Checked, check_heap
from ..check.causes import find_cause, header_cause
from ..check.finding import (
    DOUBLE_FREE,
    FOREIGN,
    NOT_A_CHUNK,
    UNDERFLOW,
    UNKNOWN_CAUSE,
    Cause,
    Finding,
)
from ..check.places import Places
from .chunks import failing_chunks
from .message import Said, find_message
from .rules import LINKS, Check, check_of, says_free
from .suspects import dying_thread, words_at_hand

CRASHES = (7, 11)  # SIGBUS, SIGSEGV
NEAR = 6  # words from a wild pointer to what malloc reads of it
TWICE = ("double free", "fasttop", "(top)", "(!prev)", "(out)")  # texts that speak of it


@dataclass
class Explanation:
    """Why a program ended. What is not known is None."""

    said: Said | None = None
    how: str | None = None  # "__abort_msg", "--message", or "conclusion" without a text
    check: Check | None = None
    stop: Stop | None = None
    chunk: int | None = None  # for which the check failed
    others: list[int] = field(default_factory=list)  # for which it fails, too
    cause: Cause | None = None
    checked: Checked = field(default_factory=Checked)
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str | None:
        """What malloc said."""
        return None if self.said is None else self.said.text


def explain_end(heap: Heap, message: str | None = None) -> Explanation:
    """Explain the end of a program; *message* is what it printed, if somebody saw it.

    :raises NotFound: if main_arena is not known.
    """
    places = Places(heap)
    found = Explanation(checked=check_heap(heap))
    thread = dying_thread(heap)
    found.stop = None if thread is None else thread.stop
    found.said = find_message(heap, message, thread)
    hand = words_at_hand(heap, thread)
    if found.said is not None:
        found.how = found.said.how
        found.check = check_of(found.said.text)
        if found.said.pointer is not None:
            hand.insert(0, found.said.pointer)
    if found.check is not None:
        failing = failing_chunks(places, found.check, hand, found.checked.findings)
        if found.check.function == "_int_memalign":  # it is the block that was cut
            failing.sort(key=lambda chunk: not _behind_filling(places, chunk))
        if found.check.fails is says_free:  # one that was merged is the clearer case
            failing.sort(key=lambda chunk: not _is_merged(places, chunk))
        found.chunk, found.others = (failing[0], failing[1:]) if failing else (None, [])
    else:
        _conclude(places, found, hand)
    found.cause = _cause(places, found)
    found.checked.findings.sort(key=lambda one: not _about(places, one, found.chunk))
    return found


def _behind_filling(places: Places, chunk: int) -> bool:
    """Whether the last two words below a chunk are one: a loop that may have gone on."""
    last = places.load(chunk)
    return bool(last) and last == places.load(chunk - places.word)


def _is_merged(places: Places, chunk: int) -> bool:
    """Whether a chunk lies in a free one, and its old size leads to the end of that."""
    holder = places.holding(chunk)
    if holder is None or holder[0].columns.states[holder[1]] != FREE:
        return False
    outer = holder[0].columns.addresses[holder[1]]
    size = places.size(chunk) or 0
    return chunk > outer and chunk + size == outer + (places.size(outer) or 0)


# --- without a text -------------------------------------------------------------------------------


def _conclude(places: Places, found: Explanation, hand: Sequence[int]) -> None:
    """Tell by the damage alone: where it crashed, or what is worst."""
    findings = [one for one in found.checked.findings if one.is_chunk]
    crash = found.stop is not None and found.stop.signal in CRASHES
    if crash and found.stop is not None and found.stop.address is not None:
        touched = _touched(places, findings, found.stop.address)
        if touched is None and not findings:
            found.chunk = _unreadable(places, hand, found.stop.address)
        if touched is not None:
            findings = [touched]
            fault, chunk = found.stop.address, touched.address
            found.notes.append(f"the fault at {fault:#x} is where a word of {chunk:#x} leads")
    if findings and findings[0].severity == "error":
        found.how = "conclusion"
        found.chunk = findings[0].address
        found.others = [one.address for one in findings[1:] if one.address != found.chunk]


def _unreadable(places: Places, hand: Sequence[int], fault: int) -> int | None:
    """Return the chunk of a pointer at hand whose header is where it faulted."""
    for mem in hand:
        chunk = mem - places.header
        if chunk > 0 and fault in (chunk, chunk + places.word) and places.row(chunk) is None:
            return chunk
    return None


def _touched(places: Places, findings: Sequence[Finding], fault: int) -> Finding | None:
    """Return the finding whose damaged word, taken for a pointer or a size, leads to a fault."""
    reach = NEAR * places.word
    for finding in findings:
        for word in finding.words:
            leads = {word.value, finding.address + (word.value & ~SIZE_BITS)}
            leads |= {word.value ^ word.address >> 12, finding.address - word.value}
            leads.add(finding.address - (places.load(finding.address) or 0))  # by prev_size
            mask = places.layout.max_address
            if any(0 <= fault - (lead & mask) <= reach for lead in leads):
                return finding
    return None


# --- why ------------------------------------------------------------------------------------------


def _cause(places: Places, found: Explanation) -> Cause | None:
    chunk = found.chunk
    if chunk is None:
        return None
    about = [one for one in found.checked.findings if _about(places, one, chunk)]
    if found.check is not None and found.check.function == "sysmalloc" and _moved(places, chunk):
        text = "somebody else has lowered the break (brk or sbrk): top is as malloc left it"
        return Cause(UNKNOWN_CAUSE, None, text, ("it ends where the heap once ended",))
    if found.check is not None and found.check.fails in LINKS:
        about = [one for one in about if one.rule not in ("unlisted", "prev-inuse")]
        about = about or [_written(places, chunk)]
    if twice := _freed_twice(places, found, chunk):
        return twice
    own = [one for one in about if one.address == chunk and one.cause is not None]
    for finding in (*own, *about):
        if finding.cause is not None and finding.cause.kind != UNKNOWN_CAUSE:
            return finding.cause
    mapped = found.check is not None and found.check.kind == "mapped"
    if found.check is None or mapped or found.check.kind == "pointer":
        return _of_pointer(places, mapped, chunk)
    told = next((one.cause for one in about if one.cause is not None), None)
    return told or header_cause(places, chunk, places.above(chunk))


def _written(places: Places, chunk: int) -> Finding:
    """A free block of whose links nothing else is left: they were written over."""
    finding = Finding("link", chunk, "its links were written over")
    finding.cause = find_cause(places, finding)
    return finding


def _about(places: Places, finding: Finding, chunk: int | None) -> bool:
    """Whether a finding is about a chunk, the next one, or the one before."""
    if chunk is None or not finding.is_chunk:
        return False
    size = places.size(chunk) or 0
    near = {chunk, chunk + size, places.above(chunk), places.below(chunk)}
    if finding.address in near:
        return True
    return any(chunk <= word.address < chunk + NEAR * places.word for word in finding.words)


def _moved(places: Places, top: int) -> bool:
    """Whether a top that sysmalloc found to end behind the break is whole all the same."""
    main = places.heap.arenas[0]
    base = places.heap.params.get("sbrk_base")
    size = places.size(top)
    return bool(base and size) and top + (size or 0) == (base or 0) + main.max_system_mem


def _freed_twice(places: Places, found: Explanation, chunk: int) -> Cause | None:
    """A double free: the text speaks of it, and the chunk is free already."""
    text = found.text or ""
    spoken = any(word in text for word in TWICE) and "unaligned" not in text
    if not spoken and not (chunk in places.tops and text.startswith("free()")):
        return None
    mem = chunk + places.header
    said = f"the block {mem:#x} (chunk {chunk:#x}) was freed a second time"
    listed = places.heap.marks.get(chunk)
    if listed is not None:
        return Cause(DOUBLE_FREE, chunk, said, (f"it is in {listed.label} already",))
    holder = places.holding(chunk)
    if chunk in places.tops:
        return Cause(DOUBLE_FREE, chunk, said, ("it was merged with top when it was freed",))
    if holder is None or holder[0].columns.addresses[holder[1]] == chunk:
        return None
    state = holder[0].columns.states[holder[1]]
    outer = holder[0].columns.addresses[holder[1]]
    if state in (FREE, TOP, TCACHE, FAST):
        what = "top" if state == TOP else f"the free chunk {outer:#x}"
        return Cause(DOUBLE_FREE, chunk, said, (f"it lies in {what}: it was merged there",))
    return None


def _of_pointer(places: Places, mapped: bool, chunk: int) -> Cause:
    """A pointer that malloc never gave: into a block, or to something else."""
    mem = chunk + places.header
    holder = places.holding(mem)
    if holder is not None:
        outer = holder[0].columns.addresses[holder[1]]
        state = holder[0].columns.states[holder[1]]
        if outer == chunk and state != TOP:
            return header_cause(places, chunk, places.above(chunk))
        offset = mem - outer - places.header
        text = f"{mem:#x} is no block: it lies at +{offset:#x} in the block of chunk {outer:#x}"
        return Cause(NOT_A_CHUNK, chunk, text, ("no chunk begins there",))
    if mapped:
        text = f"a write before the block {mem:#x}, which has a mapping of its own"
        return Cause(UNDERFLOW, chunk, text, ("nothing lies below it in the mapping",))
    region = next(
        (one for one in places.heap.target.memory.regions() if one.start <= mem < one.end), None
    )
    where = f"in {region.path}" if region is not None and region.path else "in no heap"
    text = f"{mem:#x} is no block of malloc's: it lies {where}"
    return Cause(FOREIGN, chunk, text, ("no heap and no mapping of malloc's is there",))

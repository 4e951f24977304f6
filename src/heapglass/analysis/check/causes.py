"""The likeliest reason for a damaged word: who wrote there, by what stands around it.

Nothing in memory says who wrote a word. What speaks for one or the other: text or a filling that
goes on from one block into the next header, a zero in the lowest byte of a size behind a block that
is full, words like those of the block that lies above, a word of a block that is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...glibc import safelink
from ...glibc.layout import SIZE_BITS
from ...heap.columns import FAST, FREE, TCACHE
from .finding import (
    DOUBLE_FREE,
    NOT_A_CHUNK,
    OFF_BY_NULL,
    OVERFLOW,
    UNDERFLOW,
    UNKNOWN_CAUSE,
    USE_AFTER_FREE,
    Cause,
    Finding,
)
from .overlap import chain_ends
from .places import Places

REACH = 64  # bytes on both sides of a header that are looked at
MOST_LOOKED_AT = 1 << 18  # chunks of a size of which one may have been taken from a list
FEW = 4  # characters that make a text


def find_cause(places: Places, finding: Finding) -> Cause | None:
    """Return the likeliest cause of a finding; None where a chunk is not what is damaged."""
    rule, chunk = finding.rule, finding.address
    if rule in ("size", "flags", "bin-size", "top") and finding.is_chunk:
        return header_cause(places, chunk, finding.next)
    if rule in ("prev-inuse", "unlisted") and finding.next is not None:
        return _of_bit(places, finding, finding.next)
    if rule == "prev-size":
        return _of_foot(places, finding)
    if rule == "twice":
        return Cause(DOUBLE_FREE, chunk, "it was freed twice", ("a list has it twice",))
    if rule == "listed":
        return _of_overlap(places, chunk)
    if rule in ("tcache-next", "fast-fd") and (freed := _false_chunk(places, finding)):
        return freed
    if rule in ("link", "nextsize", "tcache-next", "fast-fd", "tcache-key", "tcache-count"):
        return _of_free_block(places, finding)
    return None


# --- headers --------------------------------------------------------------------------------------


class Spill(NamedTuple):
    """What goes on from below a header into it."""

    bytes: int  # behind the block's end
    text: str  # what speaks for it


def header_cause(places: Places, chunk: int, behind: int | None) -> Cause:
    """Return who overwrote a chunk's size: the block below, or the chunk's own from above."""
    below = places.below(chunk)
    spill = spill_into(places, chunk, below)
    if spill is not None and below is not None:
        return _overflow(places, below, spill)
    null = null_byte(places, chunk, below, behind)
    if null is not None and below is not None:
        return Cause(OFF_BY_NULL, below, _by_null(below, chunk), null)
    return _by_likeness(places, chunk, below)


def _overflow(places: Places, below: int, spill: Spill) -> Cause:
    mem = below + places.header
    far = f"{spill.bytes} bytes too far"
    text = f"the block {mem:#x} (chunk {below:#x}), right below, was written {far}"
    if _is_free(places, below):
        text += "; that block is free now"
    return Cause(OVERFLOW, below, text, (spill.text,))


def _by_null(below: int, chunk: int) -> str:
    return (
        f"one zero byte too many behind the block of chunk {below:#x}: the terminator of a string "
        f"in the lowest byte of the size of {chunk:#x}"
    )


def spill_into(places: Places, chunk: int, below: int | None) -> Spill | None:
    """Return what goes on from the block below over a chunk's size; None if nothing does."""
    if below is None:
        return None
    border = chunk + places.word  # the end of what the block below may use
    start = max(below + places.header, border - REACH)
    tail, rest = places.bytes(start, border), _readable(places, border)
    written, run = _text_run(tail[::-1]), _text_run(rest)
    if run and written >= FEW and run + written >= 2 * FEW:
        shown = (tail[len(tail) - written :] + rest[:run]).decode("ascii")
        return Spill(run, f"text goes on over the end of the block: {shown[-48:]!r}")
    word = rest[: places.word]
    repeats = 0
    while rest[repeats * places.word :][: places.word] == word and repeats < 8:
        repeats += 1
    if tail[-places.word :] == word and any(word) and len(tail) >= places.word:
        same = repeats * places.word
        return Spill(
            same, f"the same word stands below it, as a filling does: {_hex(places, word)}"
        )
    if len(set(word)) == 1 and any(word) and tail and tail[-1] == word[0]:
        return Spill(repeats * places.word, f"a filling with byte {word[0]:#04x} goes on over it")
    return None


def _readable(places: Places, start: int) -> bytes:
    for length in (REACH, places.word):
        if data := places.bytes(start, start + length):
            return data
    return b""


def _hex(places: Places, word: bytes) -> str:
    return f"{int.from_bytes(word, places.heap.words.order):#x}"


def _text_run(data: bytes) -> int:
    """Return how many bytes of printable text data begins with."""
    return next((n for n, byte in enumerate(data) if not 32 <= byte < 127), len(data))


def null_byte(
    places: Places, chunk: int, below: int | None, behind: int | None
) -> tuple[str, ...] | None:
    """Return what speaks for one zero byte too many; None if that cannot be it."""
    size = places.size_word(chunk)
    if below is None or size is None or size & 0xFF:
        return None
    if _is_free(places, below):
        return None
    low = chunk + places.word - 1 if places.layout.order == "little" else None
    last = places.bytes(low, low + 1) if low is not None else b"\1"
    if not size and last == b"\0":
        return None  # zeros, but not one alone
    why = [f"the lowest byte of size {size:#x} is 0: also P, which says the block below is in use"]
    if behind is not None and (behind - chunk) & ~0xFF == size and behind - chunk != size:
        why.append(
            f"{behind - chunk:#x} bytes on the next chunk begins: the low byte is what lacks"
        )
    if behind is not None and behind - chunk == size:
        why.append("it leads to the next chunk: nothing but P was cleared")
    if last and last != b"\0":
        why.append("the block below is written to its last byte")
    return tuple(why) if len(why) > 1 else None


def _by_likeness(places: Places, chunk: int, below: int | None) -> Cause:
    """Tell by the words around it whether the size is like what lies below, or above."""
    word = places.word
    size = places.size_word(chunk) or 0
    under = [places.load(chunk - step * word) or 0 for step in range(3)] if below else []
    over = [places.load(chunk + step * word) or 0 for step in (2, 3)]
    like_under, like_over = _likeness(size, under), _likeness(size, over)
    mem = chunk + places.header
    free = _is_free(places, chunk) or _ownerless(places, chunk)
    text = f"a write before the block {mem:#x} (chunk {chunk:#x}): an index below zero"
    if like_over > like_under and not free:
        why = (f"the size {size:#x} is like the first words of the block above it",)
        return Cause(UNDERFLOW, chunk, text, why)
    own = below in places.heap.owners
    if own or (_in_bin(places, below) and not _ownerless(places, chunk)):
        lies = "the allocator's own" if own else "free, and was whole then"
        why = (f"what lies below is {lies}: no block that could have run over",)
        return Cause(UNDERFLOW, chunk, text, why)
    if below is None:
        why = ("nothing lies below that could have run over",)
        return Cause(UNDERFLOW, chunk, text, why)
    mem = below + places.header
    text = f"the block {mem:#x} (chunk {below:#x}), right below, was written too far"
    why = (
        ("its last words are like the size",)
        if like_under
        else ("it is the block whose end is nearest; nothing else speaks for it",)
    )
    return Cause(OVERFLOW, below, text, why)


def _ownerless(places: Places, chunk: int) -> bool:
    """Whether a chunk is nobody's block: top, or a fencepost at the end of a closed heap."""
    segment = places.segment_of(chunk)
    posts = 2 * places.header + places.layout.alignment
    closed = segment is not None and segment.top is None and segment.end - chunk <= posts
    return chunk in places.tops or closed


def _is_free(places: Places, chunk: int | None) -> bool:
    return chunk in places.heap.marks or places.state(chunk or 0) in (TCACHE, FAST, FREE)


def _in_bin(places: Places, chunk: int | None) -> bool:
    """Whether a chunk was put in a bin: free has looked at the size behind it then."""
    found = places.heap.marks.get(chunk or 0)
    return found is not None and found.kind not in ("tcache", "fast")


def _likeness(value: int, words: Sequence[int]) -> int:
    """Return how alike a value and the words beside it are."""
    best = 0
    for number, other in enumerate(words):
        if not other:
            continue
        if other == value:
            best = max(best, 6 - number)
        elif value and abs(other - value) <= 0x10 and value < 1 << 20:
            best = max(best, 4 - number)
        elif value >> 32 and value >> 40 == other >> 40:
            best = max(best, 3 - number)
        elif value < 1 << 16 and other < 1 << 16:
            best = max(best, 1)
    return best


# --- bits and feet --------------------------------------------------------------------------------


def _of_bit(places: Places, finding: Finding, behind: int) -> Cause:
    """P of the chunk *behind* is wrong."""
    spill = spill_into(places, behind, finding.address)
    if spill is not None and finding.rule == "unlisted":
        return _overflow(places, finding.address, spill)
    if finding.rule == "unlisted":
        null = null_byte(places, behind, finding.address, places.above(behind))
        if null is not None:
            return Cause(OFF_BY_NULL, finding.address, _by_null(finding.address, behind), null)
    return _by_likeness(places, behind, finding.address)


def _of_foot(places: Places, finding: Finding) -> Cause:
    """A free chunk's size and its foot differ: one of both was overwritten."""
    chunk, below = finding.address, places.below(finding.address)
    spill = spill_into(places, chunk, below)
    if spill is not None and below is not None:
        return _overflow(places, below, spill)
    null = null_byte(places, chunk, below, None)
    if null is not None and below is not None:
        return Cause(OFF_BY_NULL, below, _by_null(below, chunk), null)
    foot, size = finding.words[0].value, places.size(chunk)
    if _foot_inside(places, chunk, foot, size):
        return _by_likeness(places, chunk, below)
    text = f"a write into the free block {chunk + places.header:#x}, at its end (its last word)"
    return Cause(USE_AFTER_FREE, chunk, text, ("its size is right, the word at its end is not",))


def _foot_inside(places: Places, chunk: int, foot: int, size: int | None) -> bool:
    """Whether a chunk's end by another size than its own has that size as prev_size."""
    for other in {foot & ~SIZE_BITS} - {size}:
        if places.layout.min_chunk <= other and places.load(chunk + other) == other:
            return True
    return False


# --- free blocks ----------------------------------------------------------------------------------


def leads_to(places: Places, finding: Finding) -> int:
    """Return the chunk that the word of a finding in a single list leads to."""
    at, stored = finding.words[0].address, finding.words[0].value
    safe = places.layout.has("safe_linking") and finding.is_chunk
    link = safelink.reveal(at, stored) if safe else stored
    return link if finding.rule == "fast-fd" else link - places.header


def _of_free_block(places: Places, finding: Finding) -> Cause:
    chunk = finding.address
    if not finding.is_chunk:
        return _of_head(places, finding)
    below = places.below(chunk)
    spill = spill_into(places, chunk, below)
    if spill is not None and below is not None and places.state(chunk) is None:
        return _overflow(places, below, spill)
    offset = finding.words[0].address - chunk - places.header if finding.words else 0
    mem = chunk + places.header
    text = f"a write into the block {mem:#x} (chunk {chunk:#x}) after it was freed, at +{offset:#x}"
    return Cause(USE_AFTER_FREE, chunk, text, ("its header is whole, a link in its data is not",))


def _of_head(places: Places, finding: Finding) -> Cause:
    if finding.rule not in ("tcache-next", "fast-fd", "tcache-count"):
        return Cause(UNKNOWN_CAUSE, None, "the head of the list was overwritten")
    taken = taken_from(places, finding)
    block = "a free block"
    if taken is not None:
        block = f"the free block {taken + places.header:#x} (chunk {taken:#x})"
    text = f"a write into {block}, whose link malloc has taken over since, handing the block out"
    why = ("malloc alone writes the head of this list: it copies the link of the block it takes",)
    return Cause(USE_AFTER_FREE, taken, text, why)


def taken_from(places: Places, finding: Finding) -> int | None:
    """Return the chunk that was taken from a list whose head now makes no sense: it has the link.

    A block that malloc hands out keeps the link in its first word.
    """
    if not finding.words:
        return None
    head = finding.words[0].value
    for found in places.heap.lists:
        if found.label == finding.list_label and found.min_size is not None:
            return _with_link(places, found.min_size, head)
    return None


def _with_link(places: Places, size: int, head: int) -> int | None:
    safe = places.layout.has("safe_linking")
    left = MOST_LOOKED_AT
    for segment in places.heap.segments:
        columns = segment.columns
        for row, field in enumerate(columns.sizes):
            if field & ~SIZE_BITS != size:
                continue
            mem = columns.addresses[row] + places.header
            stored = places.load(mem)
            if stored is not None and (safelink.reveal(mem, stored) if safe else stored) == head:
                return columns.addresses[row]
            left -= 1
            if not left:
                return None
    return None


def _false_chunk(places: Places, finding: Finding) -> Cause | None:
    """A list that leads into the middle of a chunk, to what looks freed: a false chunk was."""
    if not finding.words:
        return None
    chunk = leads_to(places, finding)
    size = places.size(chunk)
    lists = [one for one in places.heap.lists if one.label == finding.list_label]
    fits = size is not None and any(one.holds(size) for one in lists)
    holder = places.holding(chunk)
    if not fits or holder is None or (chunk + places.header) % places.layout.alignment:
        return None
    outer = holder[0].columns.addresses[holder[1]]
    if chain_ends(places, chunk, outer):
        return _of_overlap(places, chunk)
    text = f"a pointer into the block of chunk {outer:#x} was freed: no chunk begins at {chunk:#x}"
    return Cause(NOT_A_CHUNK, chunk, text, (f"a size that fits {finding.list_label} stands there",))


def _of_overlap(places: Places, inside: int) -> Cause:
    """A chunk lies in another one, whose size was made larger."""
    holder = places.holding(inside)
    if holder is None:
        return Cause(UNKNOWN_CAUSE, None, "the list leads out of the heap", ())
    outer = holder[0].columns.addresses[holder[1]]
    cause = header_cause(places, outer, inside)
    why = (f"the size of {outer:#x} covers a chunk that a bin holds", *cause.why)
    return Cause(cause.kind, cause.culprit, cause.text, why)

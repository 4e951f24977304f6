"""The rules of the walk: sizes, flags, feet, neighbours, top and fenceposts. On the columns."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import compress

from ...glibc.layout import IS_MMAPPED, NON_MAIN_ARENA, PREV_INUSE, SIZE_BITS
from ...heap.columns import (
    CORRUPT,
    FAST,
    FENCEPOST,
    FREE,
    TCACHE,
    TOP,
    UNKNOWN,
    USED,
    Columns,
    Gap,
)
from ...heap.heap import Heap
from ...heap.segments import Segment
from .finding import WARNING, Finding, Word
from .overlap import chain_inside
from .places import Places

MOST = 64  # findings of a rule in a segment; one fault does not bury the others
OWNED = bytes([USED, TCACHE, FAST])  # states in which a chunk has the flags of its arena
LOOKED_AT = bytes([USED, TCACHE, FAST, FREE])


def chunk_findings(places: Places) -> Iterator[Finding]:
    """Yield what is wrong with the chunks of every segment."""
    for segment in places.heap.segments:
        for gap in segment.columns.gaps:
            yield _of_gap(places, segment, gap)
        if not len(segment.columns):
            continue
        yield from _limited(_flags(places, segment))
        yield from _limited(_in_use_bits(places, segment))
        yield from _limited(_feet(places, segment))
        yield from _limited(_neighbours(places, segment))
        yield from _limited(_filled(places, segment))
        yield from _first(places, segment)
        yield from _end(places, segment)


def _limited(found: Iterator[Finding]) -> Iterator[Finding]:
    for _, finding in zip(range(MOST), found):
        yield finding


def _of_gap(places: Places, segment: Segment, gap: Gap) -> Finding:
    """The walk stopped here: the size makes no sense, or the memory is missing."""
    size = places.size_word(gap.start)
    rest = f"nothing is known up to {gap.end:#x}"
    if size is None:
        text = f"the memory of this chunk is missing; {rest}"
        found = Finding("missing", gap.start, text, segment.arena, WARNING)
    else:
        found = Finding("size", gap.start, f"{gap.reason}; {rest}", segment.arena)
        expected = "" if gap.by_chain else f"{gap.end - gap.start:#x} with flags"
        found.words = [Word(gap.start + places.word, size, "size", expected)]
    found.skipped, found.next = (gap.start, gap.end), gap.end
    return found


# --- flags ----------------------------------------------------------------------------------------


def low_bytes(columns: Columns) -> bytes:
    """Return the lowest byte of each size word: where the flags are."""
    data = memoryview(columns.sizes).cast("B")
    return bytes(data[(0 if sys.byteorder == "little" else 7) :: 8])


def _rows(marks: bytes) -> Iterator[int]:
    """Yield the places of what is not zero."""
    at = -1
    plain = marks.translate(bytes(1) + b"\1" * 255)
    while (at := plain.find(b"\1", at + 1)) >= 0:
        yield at


def _table(wanted: bytes) -> bytes:
    """Return a table for `bytes.translate` that keeps the wanted values as 1."""
    return bytes(int(value in wanted) for value in range(256))


def _flags(places: Places, segment: Segment) -> Iterator[Finding]:
    """M in a heap; A where it does not belong, or missing."""
    columns, main = segment.columns, segment.arena == places.heap.arenas[0].address
    flags, states = low_bytes(columns), bytes(columns.states)
    mapped = bytes(1 if value & IS_MMAPPED else 0 for value in range(256))
    for row in _rows(flags.translate(mapped)):
        if states[row] in (*LOOKED_AT, UNKNOWN):
            yield _flag(places, segment, row, "M is set, but it has no mapping of its own")
    foreign = bytes(1 if bool(value & NON_MAIN_ARENA) is main else 0 for value in range(256))
    for row in _rows(_both(flags.translate(foreign), states.translate(_table(OWNED)))):
        behind = states[row + 1] if row + 1 < len(states) else FENCEPOST
        if main or behind != FENCEPOST:  # what closes a heap of a thread's arena has no A
            text = "A is set in main_arena" if main else "A is not set in a thread's arena"
            yield _flag(places, segment, row, text)
    owned = bytes(1 if value & NON_MAIN_ARENA else 0 for value in range(256))
    for row in _rows(_both(flags.translate(owned), states.translate(_table(bytes([FREE]))))):
        yield _flag(places, segment, row, "A is set in a free chunk")


def _both(one: bytes, other: bytes) -> bytes:
    """Return 1 where both have 1."""
    size = len(one)
    merged = int.from_bytes(one, "little") & int.from_bytes(other, "little")
    return merged.to_bytes(size, "little")


def _flag(places: Places, segment: Segment, row: int, text: str) -> Finding:
    chunk, word = segment.columns.addresses[row], segment.columns.sizes[row]
    found = Finding("flags", chunk, text, segment.arena)
    found.words = [Word(chunk + places.word, word, "size", "other flags")]
    return found


# --- P and the lists ------------------------------------------------------------------------------


def _in_use_bits(places: Places, segment: Segment) -> Iterator[Finding]:
    """Chunks that a list and the next chunk's P say different things of."""
    columns, gaps = segment.columns, {gap.start for gap in segment.columns.gaps}
    states, sizes, addresses = columns.states, columns.sizes, columns.addresses
    doubtful = bytes(states).translate(_table(bytes([CORRUPT, UNKNOWN])))
    for row in _rows(doubtful):
        chunk = addresses[row]
        if chunk in gaps or row + 1 >= len(columns):
            continue
        behind, field = addresses[row + 1], sizes[row + 1]
        if behind != chunk + (sizes[row] & ~SIZE_BITS) or states[row + 1] == CORRUPT:
            continue
        word = Word(behind + places.word, field, "size", "P the other way round")
        listed = places.heap.marks.get(chunk)
        if states[row] == CORRUPT and listed is not None:
            text = f"free (in {listed.label}), but P of the next chunk is set"
            found = Finding("prev-inuse", chunk, text, segment.arena, list_label=listed.label)
        elif states[row] == UNKNOWN and not field & PREV_INUSE and listed is None:
            if _bins_lost(places.heap, segment.arena):
                continue
            text = "free by the next chunk's P bit, but in no bin"
            found = Finding("unlisted", chunk, text, segment.arena)
        else:
            continue
        found.words, found.next = [word], behind
        yield found
    cached = bytes(states).translate(_table(bytes([TCACHE, FAST])))
    clear = bytes(1 - (value & PREV_INUSE) for value in range(256))
    after = low_bytes(columns).translate(clear)[1:] + b"\0"
    for row in _rows(_both(cached, after)):
        chunk, behind = addresses[row], addresses[row + 1]
        if states[row + 1] in (CORRUPT, FENCEPOST):
            continue
        text = "cached, so in use by its flags, but P of the next chunk is clear"
        found = Finding("prev-inuse", chunk, text, segment.arena, next=behind)
        found.words = [Word(behind + places.word, sizes[row + 1], "size", "P set")]
        yield found


def _bins_lost(heap: Heap, arena: int) -> bool:
    return any(found.lost for found in heap.bins.get(arena, ()))


def _feet(places: Places, segment: Segment) -> Iterator[Finding]:
    """The word behind a free chunk has its size once more."""
    columns, word = segment.columns, places.word
    addresses, sizes = columns.addresses, columns.sizes
    free = bytes(columns.states).translate(_table(bytes([FREE])))
    for base, view in places.heap.words.blocks(segment.first, segment.end):
        if (base - segment.first) % word:
            continue
        words = places.heap.words.buffer(base, view).words
        end = base + len(words) * word
        first, last = max(columns.row_from(base) - 1, 0), columns.row_from(end)
        for row in compress(range(first, last), free[first:last]):
            size = sizes[row] & ~SIZE_BITS
            behind = addresses[row] + size
            if not base <= behind < end or words[(behind - base) // word] == size:
                continue
            foot = words[(behind - base) // word]
            text = f"free with size {size:#x}, but prev_size behind it is {foot:#x}"
            found = Finding("prev-size", addresses[row], text, segment.arena, next=behind)
            found.words = [
                Word(behind, foot, "prev_size", f"{size:#x}"),
                Word(addresses[row] + word, sizes[row], "size", f"{foot:#x} with flags"),
            ]
            yield found


def _filled(places: Places, segment: Segment) -> Iterator[Finding]:
    """A chunk in use whose size is what fills the block below, and that has chunks in it."""
    columns, word = segment.columns, places.word
    least = 2 * places.layout.min_chunk
    used = bytes(columns.states).translate(_table(bytes([USED])))
    for base, view in places.heap.words.blocks(segment.first, segment.end, overlap=word):
        if (base - segment.first) % word:
            continue
        words = places.heap.words.buffer(base, view).words
        shift = word.bit_length() - 1
        first, last = columns.row_from(base + word), columns.row_from(base + len(words) * word)
        rows = zip(columns.addresses[first:last], columns.sizes[first:last])
        for chunk, size in compress(rows, used[first:last]):
            at = (chunk - base) >> shift
            if words[at] != size or words[at - 1] != size or size < least:
                continue
            inside = chain_inside(places, chunk)
            if inside is not None:
                text = f"size {size & ~SIZE_BITS:#x} covers chunks, from {inside:#x} on"
                found = Finding("size", chunk, text, segment.arena, next=inside)
                found.words = [Word(chunk + word, size, "size", f"{inside - chunk:#x} with flags")]
                yield found


def _neighbours(places: Places, segment: Segment) -> Iterator[Finding]:
    """Free chunks side by side, or before top: free would have merged them."""
    states, addresses = bytes(segment.columns.states), segment.columns.addresses
    for pair, text in (
        (bytes([FREE, FREE]), "two free chunks side by side were not merged"),
        (bytes([FREE, TOP]), "a free chunk before top was not merged with it"),
    ):
        at = -1
        while (at := states.find(pair, at + 1)) >= 0:
            chunk, behind = addresses[at], addresses[at + 1]
            if behind != chunk + (segment.columns.sizes[at] & ~SIZE_BITS):
                continue
            found = Finding("unmerged", chunk, text, segment.arena, next=behind)
            sizes = segment.columns.sizes
            found.words = [
                Word(chunk + places.word, sizes[at], "size"),
                Word(behind + places.word, sizes[at + 1], "size"),
            ]
            yield found


# --- both ends ------------------------------------------------------------------------------------


def _first(places: Places, segment: Segment) -> Iterator[Finding]:
    """Nothing lies before the first chunk: its P is set."""
    columns = segment.columns
    if columns.addresses[0] == segment.first and not columns.sizes[0] & PREV_INUSE:
        if columns.states[0] == CORRUPT:
            return
        chunk = columns.addresses[0]
        found = Finding("flags", chunk, "the first chunk of a heap has P clear", segment.arena)
        found.words = [Word(chunk + places.word, columns.sizes[0], "size", "P set")]
        yield found


def _end(places: Places, segment: Segment) -> Iterator[Finding]:
    if segment.top is not None:
        yield from _top(places, segment, segment.top)
        return
    last = segment.columns.states[-1] if segment.columns.states else None
    if last != FENCEPOST:
        text = f"the piece from {segment.start:#x} ends at {segment.end:#x} without fenceposts"
        chunk = segment.columns.addresses[-1]
        found = Finding("fencepost", chunk, text, segment.arena)
        word = segment.columns.sizes[-1]
        found.words = [Word(chunk + places.word, word, "size")]
        yield found


def _top(places: Places, segment: Segment, top: int) -> Iterator[Finding]:
    """P and the end of top."""
    field = places.size_word(top)
    if field is None:
        return
    size, said = field & ~SIZE_BITS, []
    expected = _end_of_heap(places, segment)
    if not field & PREV_INUSE:
        said.append("P of top is clear")
    if expected is not None and top + size != expected:
        said.append(f"top ends at {top + size:#x}, its heap at {expected:#x}")
    elif (top + size) % places.heap.page_size and expected is None:
        said.append(f"top ends at {top + size:#x}, not at the end of a page")
    if said:
        found = Finding("top", top, "; ".join(said), segment.arena)
        wanted = "" if expected is None else f"{expected - top | PREV_INUSE:#x}"
        found.words = [Word(top + places.word, field, "size", wanted)]
        yield found


def _end_of_heap(places: Places, segment: Segment) -> int | None:
    """Return where a heap ends by what is not in top: system_mem, or the heap_info's size."""
    if segment.kind == "heap":
        return segment.end
    main = places.heap.arenas[0]
    base = places.heap.params.get("sbrk_base")
    if segment.kind != "brk" or not main.contiguous or not base:
        return None
    return base + main.system_mem

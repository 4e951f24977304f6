"""`chunks` and `chunk`: every chunk in address order, filtered; one chunk in detail."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from ..analysis.selection import NO_TEST, Filters, Selection
from ..analysis.where import compile_where
from ..errors import BadRequest, MemoryFault, NotFound
from ..glibc.layout import SIZE_BITS, flag_letters
from ..heap.columns import MMAPPED, STATE_NAMES, UNKNOWN, read_size_field
from ..heap.heap import Chunk, Heap
from ..heap.mmapped import read_mmapped
from ..heap.target import Target
from ..table import (
    Absent,
    Address,
    Answer,
    Data,
    Fact,
    Facts,
    Kind,
    Lines,
    Part,
    Table,
    Tag,
)
from .cells import (
    CHUNK_COLUMNS,
    STATES,
    address,
    chunk_data,
    chunk_row,
    chunk_rows,
    finish,
    row_limit,
    state_cell,
    totals_data,
    totals_text,
)
from .origins import origin_facts

TEXT_LIMIT = 1000  # rows of a listing in text, if nothing else is said
MOST_RAW = 10_000  # chunks of a chain that nothing proves (--as-chunk)


def chunks(target: Target, request: Any) -> Answer:
    """Show every chunk in address order, or those that the filters let through."""
    heap = Heap(target)
    if request.as_chunk:
        return _raw_chain(heap, request)
    chosen = Selection(heap, _filters(heap, request))
    limit = row_limit(request, TEXT_LIMIT)
    rows = chunk_rows(heap, islice(chosen.chunks(), limit))
    count = chosen.count
    parts: list[Part] = [
        Table("chunks", CHUNK_COLUMNS, rows, empty="no such chunk"),
        Lines(_closing(chosen, count, limit)),
        Data("totals", totals_data(chosen.totals)),
        Data("matching", count),
    ]
    return finish(heap, "chunks", parts)


def _closing(chosen: Selection, count: int, limit: int | None) -> Iterator[list[Tag]]:
    if limit is not None and count > limit:
        yield [Tag(f"… {count - limit} more (--all, or --limit N)")]
    yield [Tag(totals_text(chosen.totals))]


def _filters(heap: Heap, request: Any) -> Filters:
    """Return what a request asks for.

    :raises BadRequest: if it asks for what cannot be.
    """
    where = compile_where(request.where) if request.where else NO_TEST
    _check_state(request.state)
    low, high = _range(heap, request)
    return Filters(
        low,
        high,
        arena=request.arena,
        states=frozenset(request.state.split(",")) - {""} if request.state else None,
        least=request.min,
        most=request.max,
        bin=request.bin,
        where=where,
        mmapped=not (request.back or request.count),
        order=request.sort or ("-size" if request.top else ""),
        top=request.top,
    )


def _check_state(states: str | None) -> None:
    for state in (states or "").split(","):
        if state and state not in (*STATES, "unknown"):
            raise BadRequest(
                f"--state {state}: no such state", f"states: {', '.join(STATES)}, unknown"
            )


def _range(heap: Heap, request: Any) -> tuple[int | None, int | None]:
    """Return the range of addresses that a request means: START, END, --count, --back."""
    low = request.start if request.start is not None else getattr(request, "from")
    high = request.end if request.end is not None else request.to
    if request.count is None and not request.back:
        return low, high
    if low is None:
        raise BadRequest("--count and --back need an address", "heap chunks ADDR --count N")
    place = heap.find(low)
    if place is None:
        raise NotFound(f"{low:#x} is in no chunk", "to read it as a chunk all the same: --as-chunk")
    segment, row = place
    columns = segment.columns
    first = max(row - (request.back or 0), 0)
    last = row if request.count is None else min(row + request.count, len(columns)) - 1
    end = columns.addresses[last] + 1 if last >= first else columns.addresses[first]
    return columns.addresses[first], end


# --- a chain that nothing proves ------------------------------------------------------------------


def _raw_chain(heap: Heap, request: Any) -> Answer:
    """Show what stands at START as if it were a chunk, and what follows by its size."""
    if request.start is None:
        raise BadRequest("--as-chunk needs an address", "heap chunks ADDR --as-chunk")
    limit = min(request.count or request.limit or 16, MOST_RAW)
    rows = []
    chunk = request.start
    layout = heap.layout
    for _ in range(limit):
        size_field = read_size_field(heap.words, chunk)
        if size_field is None:
            heap.problems.append(f"{chunk:#x}: its header cannot be read")
            break
        rows.append(chunk_row(heap, _proven(heap, chunk, size_field)))
        size = size_field & ~SIZE_BITS
        if size < layout.min_chunk or size % layout.alignment:
            heap.problems.append(f"{chunk:#x}: size {size:#x} cannot be a chunk's")
            break
        chunk += size
        if request.end is not None and chunk >= request.end:
            break
    heap.problems.append("read as chunks because you asked for it; nothing proves that they are")
    return finish(heap, "chunks", [Table("chunks", CHUNK_COLUMNS, rows)])


def _proven(heap: Heap, chunk: int, size_field: int) -> Chunk:
    """Return the chunk as the heap has it if one begins there, else with an unknown state."""
    place = heap.find(chunk)
    if place is not None and place[0].columns.addresses[place[1]] == chunk:
        return heap.chunk_at(*place)
    return Chunk(chunk, size_field, STATE_NAMES[UNKNOWN], None, heap.marks.get(chunk))


# --- one chunk ------------------------------------------------------------------------------------


def chunk(target: Target, request: Any) -> Answer:
    """Show one chunk in detail, its neighbours and its bin."""
    heap = Heap(target)
    asked = request.address
    found, before, after = _around(heap, asked, request.as_chunk)
    header = heap.layout.header
    offset = asked - found.address
    origin = origin_facts(target, found.address + header, request.trace)
    where = "the header" if offset == 0 else "mem" if offset == header else f"{offset:#x} in"
    parts: list[Part] = [
        Facts("", (Fact("asked", "address", Address(asked), Kind.ADDRESS, f"({where})"),)),
        Data("chunk", chunk_data(heap, found)),
        Facts("detail", [*_detail(heap, found), *origin], "chunk"),
        Data("previous", chunk_data(heap, before)),
        Data("next", chunk_data(heap, after)),
        Table(
            "",
            CHUNK_COLUMNS,
            [chunk_row(heap, near) for near in (before, found, after) if near is not None],
            "with its neighbours",
        ),
    ]
    return finish(heap, "chunk", parts)


def _around(heap: Heap, asked: int, force: bool) -> tuple[Chunk, Chunk | None, Chunk | None]:
    """Return the chunk that an address lies in, and the ones before and behind it."""
    if not force:
        place = heap.find(asked)
        if place is not None:
            segment, row = place
            last = len(segment.columns) - 1
            return (
                heap.chunk_at(segment, row),
                heap.chunk_at(segment, row - 1) if row else None,
                heap.chunk_at(segment, row + 1) if row < last else None,
            )
        mapped = heap.find_mmapped(asked)
        if mapped is not None:
            return heap.mmapped_as_chunk(mapped), None, None
        raise NotFound(
            f"{asked:#x} is in no chunk that is known",
            f"heap whatis {asked:#x} tells what it is; --as-chunk reads it as a chunk all the same",
        )
    size_field = read_size_field(heap.words, asked)
    if size_field is None:
        raise MemoryFault(asked + heap.words.size, heap.words.size)
    found = _proven(heap, asked, size_field)
    behind = asked + found.size
    after_field = read_size_field(heap.words, behind) if found.size else None
    after = None if after_field is None else _proven(heap, behind, after_field)
    heap.problems.append("read as a chunk because you asked for it")
    if read_mmapped(heap.words, asked, heap.page_size) is not None and found.state is None:
        return found._replace(state=STATE_NAMES[MMAPPED]), None, None
    return found, None, after


def _detail(heap: Heap, found: Chunk) -> list[Fact]:
    """Return the words of a chunk as facts; links only where they are links."""
    layout = heap.layout
    facts = [
        Fact("address", "chunk", Address(found.address), Kind.ADDRESS),
        Fact("user", "mem", Address(found.address + layout.header), Kind.ADDRESS),
        Fact("end", "end", _end(found), Kind.ADDRESS),
        Fact("size", "size", found.size, Kind.SIZE, f"({found.size} bytes)"),
        Fact("flags", "flags", flag_letters(found.size_field), note=_flags_words(found.size_field)),
        Fact("state", "state", state_cell(found.state)),
        Fact("usable", "usable", heap.usable_of(found), Kind.SIZE),
    ]
    prev_size = _try_word(heap, found.address)
    if not found.size_field & 1:
        note = "(offset in the mapping)" if found.state == "mmapped" else "(chunk before is free)"
        facts.append(Fact("prev_size", "prev_size", prev_size, Kind.SIZE, note))
    else:
        facts.append(
            Fact("prev_size", "prev_size", prev_size, Kind.SIZE, "(data of the chunk before)")
        )
    if found.listed is not None:
        facts += _links(heap, found)
    if found.owner:
        facts.append(Fact("owner", "owner", found.owner, note="(the allocator's own)"))
    facts.append(Fact("size_field", "size word", found.size_field, Kind.SIZE))
    facts.append(Fact("arena", "arena", address(found.arena), Kind.ADDRESS))
    return facts


def _end(found: Chunk) -> Any:
    if found.state == "corrupt":
        return Absent.UNKNOWN
    return Address(found.address + found.size)


def _flags_words(size_field: int) -> str:
    names = ((1, "PREV_INUSE"), (2, "IS_MMAPPED"), (4, "NON_MAIN_ARENA"))
    said = " | ".join(name for bit, name in names if size_field & bit)
    return f"({said})" if said else "(the chunk before is free)"


def _try_word(heap: Heap, at: int) -> Any:
    try:
        return heap.words.word(at)
    except MemoryFault:
        return Absent.UNREADABLE


def _links(heap: Heap, found: Chunk) -> list[Fact]:
    listed = found.listed
    assert listed is not None
    place = listed.chunks.index(found.address)
    facts = [
        Fact("bin", "bin", listed.label, note=f"({place + 1} of {len(listed.chunks)})"),
        Fact("position", "", place, Kind.COUNT),
    ]
    if listed.thread is not None:
        facts.append(Fact("thread", "thread", listed.thread))
    mem = found.address + heap.layout.header
    protected = heap.layout.has("safe_linking") and listed.kind in ("tcache", "fast")
    names = ["fd"] if listed.kind in ("tcache", "fast") else ["fd", "bk"]
    if listed.kind == "large":
        names += ["fd_nextsize", "bk_nextsize"]
    for number, name in enumerate(names):
        at = mem + number * heap.words.size
        value = _try_word(heap, at)
        shown = name if listed.kind != "tcache" else "next"
        if protected and isinstance(value, int):
            real = value ^ (at >> 12)
            facts.append(
                Fact(shown, shown, Address(real), Kind.ADDRESS, f"(stored {value:#x}, protected)")
            )
        elif isinstance(value, int):
            facts.append(Fact(shown, shown, Address(value), Kind.ADDRESS))
    return facts

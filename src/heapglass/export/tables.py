"""The tables of an export, in batches of columns; nothing is made for a single chunk.

The schema is SCHEMA, and docs/export.md says what each column means.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..analysis.check import check_heap
from ..analysis.leaks import graph_of
from ..analysis.roots import find_roots, root_buffers
from ..errors import NotFound
from ..glibc.layout import SIZE_BITS, flag_letters
from ..heap.columns import MMAPPED, STATE_NAMES, UNKNOWN, USED
from ..heap.heap import Heap
from ..native import Numbered, words_between

ROWS = 1 << 18  # of a batch
U64, I64, TEXT, BOOL = "uint64", "int64", "text", "bool"

SCHEMA: dict[str, dict[str, str]] = {
    "chunks": {
        "address": U64,
        "mem": U64,
        "size": U64,
        "usable": U64,
        "flags": TEXT,
        "state": TEXT,
        "arena": U64,
        "bin": TEXT,
        "thread": I64,
        "owner": TEXT,
    },
    "bins": {
        "arena": U64,
        "thread": I64,
        "kind": TEXT,
        "index": I64,
        "bin": TEXT,
        "position": I64,
        "chunk": U64,
    },
    "arenas": {
        "address": U64,
        "main": BOOL,
        "top": U64,
        "last_remainder": U64,
        "system_mem": U64,
        "max_system_mem": U64,
        "attached_threads": U64,
    },
    "edges": {"source": U64, "target": U64, "interior": BOOL},
    "roots": {
        "kind": TEXT,
        "thread": I64,
        "name": TEXT,
        "address": U64,
        "target": U64,
        "interior": BOOL,
    },
    "findings": {
        "rule": TEXT,
        "severity": TEXT,
        "address": U64,
        "arena": U64,
        "message": TEXT,
        "glibc_abort": TEXT,
        "cause": TEXT,
        "culprit": U64,
        "why": TEXT,
    },
}

Batch = dict[str, Sequence[Any]]  # columns by name, of one length
Tables = dict[str, Callable[[], Iterator[Batch]]]  # made when asked for


def read_tables(heap: Heap) -> Tables:
    """Return what makes the batches of each table of SCHEMA."""
    return {
        "chunks": lambda: _chunks(heap),
        "bins": lambda: _bins(heap),
        "arenas": lambda: _arenas(heap),
        "edges": lambda: _edges(graph_of(heap)),
        "roots": lambda: _roots(heap, graph_of(heap)),
        "findings": lambda: _findings(heap),
    }


# --- chunks ---------------------------------------------------------------------------------------


def _chunks(heap: Heap) -> Iterator[Batch]:
    listed = sorted(heap.marks)
    for segment in heap.segments:
        columns = segment.columns
        less = heap.layout.header - heap.words.size
        for low in range(0, len(columns), ROWS):
            rows = slice(low, low + ROWS)
            yield _batch(
                *(heap, listed, columns.addresses[rows], columns.sizes[rows]),
                *(columns.states[rows], segment.arena, less),
            )
    mapped = heap.mmapped
    states = bytearray(STATE_NAMES.index(heap.mmapped_as_chunk(chunk).state) for chunk in mapped)
    addresses = array("Q", [chunk.address for chunk in mapped])
    sizes = array("Q", [chunk.size_field for chunk in mapped])
    if mapped:
        yield _batch(heap, listed, addresses, sizes, states, None, heap.layout.header)


def _batch(
    heap: Heap,
    listed: Sequence[int],
    addresses: array[int],
    fields: array[int],
    states: bytearray,
    arena: int | None,
    less: int,
) -> Batch:
    header, count = heap.layout.header, len(addresses)
    sizes = array("Q", [field & ~SIZE_BITS for field in fields])
    letters = [flag_letters(flags) for flags in range(SIZE_BITS + 1)]
    in_use = (USED, MMAPPED)
    usable = [s - less if st in in_use else None for s, st in zip(sizes, states)]
    bins: list[str | None] = [None] * count
    threads: list[int | None] = [None] * count
    owners: list[str | None] = [None] * count
    first, last = (addresses[0], addresses[-1]) if count else (0, 0)
    for chunk in listed[bisect_left(listed, first) : bisect_left(listed, last + 1)]:
        row = bisect_left(addresses, chunk)
        if addresses[row] == chunk:
            bins[row], threads[row] = heap.marks[chunk].label, heap.marks[chunk].thread
    for chunk, owner in heap.owners.items():
        row = bisect_left(addresses, chunk)
        if row < count and addresses[row] == chunk:
            owners[row] = owner
    return {
        "address": addresses,
        "mem": array("Q", [address + header for address in addresses]),
        "size": sizes,
        "usable": usable,
        "flags": [letters[field & SIZE_BITS] for field in fields],
        "state": [STATE_NAMES[state] for state in states],
        "arena": [arena] * count,
        "bin": bins,
        "thread": threads,
        "owner": owners,
    }


# --- lists and arenas -----------------------------------------------------------------------------


def _bins(heap: Heap) -> Iterator[Batch]:
    """Yield the chunks of all lists. There may be a hundred thousand short lists, or a long one."""
    rows: list[tuple[Any, ...]] = []
    for found in heap.lists:
        label = found.arena, found.thread, found.kind, found.index, found.label
        for position, chunk in enumerate(found.chunks):
            rows.append((*label, position, chunk))
            if len(rows) == ROWS:
                yield _columns("bins", rows)
                rows = []
    if rows:
        yield _columns("bins", rows)


def _arenas(heap: Heap) -> Iterator[Batch]:
    arenas = heap.arenas
    yield {
        "address": [arena.address for arena in arenas],
        "main": [number == 0 for number in range(len(arenas))],
        "top": [arena.top for arena in arenas],
        "last_remainder": [arena.last_remainder or None for arena in arenas],
        "system_mem": [arena.system_mem for arena in arenas],
        "max_system_mem": [arena.max_system_mem for arena in arenas],
        "attached_threads": [arena.attached_threads for arena in arenas],
    }


def _findings(heap: Heap) -> Iterator[Batch]:
    """Yield what `check` finds, one row each."""
    rows = [
        (
            *(one.rule, one.severity, one.address, one.arena, one.message, one.abort),
            *(
                (one.cause.kind, one.cause.culprit, one.cause.text)
                if one.cause is not None
                else (None, None, None)
            ),
        )
        for one in check_heap(heap).findings
    ]
    for low in range(0, len(rows), ROWS):
        yield _columns("findings", rows[low : low + ROWS])


# --- references -----------------------------------------------------------------------------------


def _edges(graph: Numbered) -> Iterator[Batch]:
    """Yield the references between blocks that are in use, or may be."""
    chunks, wanted = _by_row(graph), bytearray(b"\1") * graph.count
    for rows in _in_use(graph):
        sources, ends, inside = graph.edges(rows, wanted)
        for at in range(0, len(sources), ROWS):
            part = slice(at, at + ROWS)
            yield {
                "source": array("Q", [chunks[row] for row in sources[part]]),
                "target": array("Q", [chunks[row] for row in ends[part]]),
                "interior": [bool(one) for one in inside[part]],
            }


def _in_use(graph: Numbered) -> Iterator[array[int]]:
    """Yield the rows of blocks that are in use, or may be."""
    for start, part in zip(graph.starts, graph.parts):
        for low in range(0, part.length, ROWS):
            first = part.first + low
            states = part.states[first : min(first + ROWS, part.first + part.length)]
            numbered = enumerate(states, start + low)
            yield array("I", [row for row, state in numbered if state in (USED, MMAPPED, UNKNOWN)])


def _by_row(graph: Numbered) -> array[int]:
    chunks = array("Q")
    for part in graph.parts:
        chunks.extend(part.addresses[part.first : part.first + part.length])
    return chunks


def _roots(heap: Heap, graph: Numbered) -> Iterator[Batch]:
    """Yield the references to blocks from registers, stacks and variables.

    :raises NotFound: if the mappings are not known.
    """
    try:
        roots = find_roots(heap)
    except NotFound as error:
        heap.problems.append(f"no roots: {error}")
        return
    low, high = (graph.parts[0].low, graph.parts[-1].high) if graph.parts else (0, 0)
    header, mask, word = heap.layout.header, heap.layout.address_mask, heap.words.size
    found: list[tuple[Any, ...]] = []
    for thread, name, value in roots.registers:
        found += _target(heap, ("register", thread.id, name, None), value & mask)
    for root, buffer in root_buffers(heap, roots):
        label = root.kind, root.thread, root.name or None
        for address in words_between(buffer, low + header, high + header, mask):
            value = int(buffer.words[(address - buffer.base) // word]) & mask
            found += _target(heap, (*label, address), value)
            if len(found) >= ROWS:
                yield _columns("roots", found)
                found = []
    if found:
        yield _columns("roots", found)


def _target(heap: Heap, label: tuple[Any, ...], value: int) -> list[tuple[Any, ...]]:
    """Return the row of a reference, none if it leads to no block in use."""
    place = heap.find(value)
    mapped = None if place is not None else heap.find_mmapped(value)
    if place is not None:
        chunk = heap.chunk_at(*place)
    elif mapped is not None:
        chunk = heap.mmapped_as_chunk(mapped)
    else:
        return []
    offset = value - chunk.address - heap.layout.header
    usable = heap.layout.usable(chunk.size, mapped is not None)
    if chunk.state not in ("used", "mmapped", None) or not 0 <= offset < usable:
        return []
    return [(*label, chunk.address, offset != 0)]


def _columns(table: str, rows: list[tuple[Any, ...]]) -> Batch:
    return dict(zip(SCHEMA[table], map(list, zip(*rows))))

"""Blocks that nothing leads to: marked from all roots, on the columns."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from ..errors import BadRequest
from ..glibc.layout import SIZE_BITS
from ..heap.columns import MMAPPED, UNKNOWN, USED, Columns
from ..heap.heap import Heap
from ..heap.mmapped import MmappedChunk
from ..heap.segments import Segment
from ..native import (
    BY_INTERIOR,
    BY_START,
    MOST_ROWS,
    NOT_REACHED,
    Numbered,
    Rows,
    make_graph,
)
from .mangled import Mangled, find_mangled
from .roots import Roots, as_words, buffers, find_roots, scanned

MOST_ROUNDS = 8  # of marking, because of mangled pointers that stand in blocks


class Sum(NamedTuple):
    """How many blocks, and their usable bytes."""

    blocks: int = 0
    bytes: int = 0


class Head(NamedTuple):
    """A leaked block that no other holds, or one of a leaked cycle, and what hangs off it."""

    row: int
    cycle: bool
    held: Sum  # itself and all that only leaks hold and it leads to; each block is counted once


@dataclass
class Leaks:
    """What was found. Rows are the graph's."""

    graph: Numbered
    roots: Roots
    mangled: Mangled
    interior: bool  # whether pointers to the inside of a block count
    leaked: array[int]  # rows, ascending
    possibly: array[int]  # rows that only an interior pointer holds
    unknown: array[int]  # rows that nothing leads to and that may be free
    totals: dict[str, Sum] = field(init=False)  # leaked, unreferenced, possibly, unknown
    links: Links = field(init=False)
    heads: list[Head] = field(init=False)

    def __post_init__(self) -> None:
        """Find the heads, and add up."""
        usable = self.graph.usables(self.leaked)
        self.links = Links(self)
        self.heads = _heads(self.links, usable)
        held = dict(zip(self.leaked, usable))
        alone = [held[head.row] for head in self.heads if not head.cycle]
        self.totals = {
            "leaked": Sum(len(self.leaked), sum(usable)),
            "unreferenced": Sum(len(alone), sum(alone)),
            "possibly": sum_of(self.graph, self.possibly),
        }
        if self.unknown:
            self.totals["unknown"] = sum_of(self.graph, self.unknown)


# --- the graph ------------------------------------------------------------------------------------


def heap_parts(heap: Heap) -> list[Rows]:
    """Return all chunks as rows with their bytes, ascending; what overlaps is left out and said."""
    found = [part for segment in heap.segments for part in _of_segment(heap, segment)]
    found += [part for chunk in heap.mmapped for part in _of_mmapped(heap, chunk)]
    found.sort(key=lambda part: part.low)
    parts: list[Rows] = []
    for part in found:
        if parts and part.low < parts[-1].high:
            heap.problems.append(f"{part.low:#x}: two heaps overlap here; one is left out")
            continue
        parts.append(part)
    if sum(part.length for part in parts) > MOST_ROWS:
        raise BadRequest(f"more than {MOST_ROWS} chunks: their references cannot be followed")
    return parts


def _of_segment(heap: Heap, segment: Segment) -> Iterator[Rows]:
    yield from _split(heap, segment.columns, segment.first, segment.end, heap.words.size)


def _of_mmapped(heap: Heap, chunk: MmappedChunk) -> Iterator[Rows]:
    if heap.mmapped_as_chunk(chunk).state != "mmapped":
        return
    columns = Columns(array("Q", [chunk.address]), array("Q", [chunk.size_field]))
    columns.states.append(MMAPPED)
    less = chunk.size - heap.layout.usable(chunk.size, mmapped=True)
    yield from _split(heap, columns, chunk.address, chunk.end, less)


def _split(heap: Heap, columns: Columns, low: int, high: int, less: int) -> Iterator[Rows]:
    """Yield a part for each readable piece; each goes to the first chunk of the next piece."""
    pieces = list(buffers(heap, low, high)) or [heap.words.buffer(low, memoryview(b""))]
    row, rows = 0, len(columns)
    for number, buffer in enumerate(pieces):
        behind = pieces[number + 1].base if number + 1 < len(pieces) else high
        following = columns.row_from(behind) if number + 1 < len(pieces) else rows
        if following > row:
            start = columns.addresses[row]
            end = columns.addresses[following] if following < rows else high
            yield Rows(
                *(buffer, columns.addresses, columns.sizes, columns.states),
                *(row, following - row, start, max(end, start), less),
            )
            row = following


def graph_of(heap: Heap) -> Numbered:
    """Return all blocks as the nodes of a graph, their references as its edges."""
    swap = heap.words.buffer(0, memoryview(b"")).swap
    heap.target.report("following pointers", 0, 0)
    return make_graph(heap_parts(heap), heap.words.size, swap, heap.layout.address_mask)


def usable_of(graph: Numbered, row: int) -> int:
    """Return the usable bytes of a row's block."""
    part, at = graph.place(row)
    return (part.sizes[at] & ~SIZE_BITS) - part.less


def chunk_of(graph: Numbered, row: int) -> int:
    """Return the address of a row's chunk."""
    part, at = graph.place(row)
    return part.addresses[at]


# --- marking --------------------------------------------------------------------------------------


def find_leaks(heap: Heap, interior: bool = True) -> Leaks:
    """Find the blocks in use that no root leads to.

    *interior*: a pointer to the inside of a block counts, too; what only such a pointer holds is
    `possibly` lost. Otherwise a pointer must lead to the start.

    :raises NotFound: if the mappings are not known.
    """
    graph = graph_of(heap)
    roots = find_roots(heap)
    mangled = find_mangled(heap, graph, roots)
    reached = _marked(heap, graph, (roots, mangled), interior)
    for row in own_rows(heap, graph):
        reached[row] = BY_START  # whatever leads to them
    heap.target.report("grouping what leaks", 0, 0)
    leaked, possibly = array("I"), array("I")
    for state in (USED, MMAPPED):
        leaked.extend(graph.select(reached, state, NOT_REACHED))
        possibly.extend(graph.select(reached, state, BY_INTERIOR))
    unknown = graph.select(reached, UNKNOWN, NOT_REACHED)
    leaked, possibly = (array("I", sorted(one)) for one in (leaked, possibly))
    return Leaks(graph, roots, mangled, interior, leaked, possibly, unknown)


def _marked(
    heap: Heap, graph: Numbered, sources: tuple[Roots, Mangled], interior: bool
) -> bytearray:
    """Return how each row is reached; mangled words count where they stand in what is reached."""
    roots, mangled = sources
    values, waiting = list(mangled.in_roots), mangled.in_blocks
    for _ in range(MOST_ROUNDS):
        words = as_words(heap, values)
        reached = graph.mark(chain(scanned(heap, roots), [words]), interior)
        ways = [(reached[row], value) for row, value in waiting]
        # what only an interior pointer leads to leads on as one
        more = [value if way == BY_START else value + 1 for way, value in ways if way]
        more = [value for value in more if _tells(graph, reached, value)]
        if not more:
            return reached
        values += more
    roots.notes.append("mangled pointers lead from block to block too often: not all were followed")
    return reached


def _tells(graph: Numbered, reached: bytearray, value: int) -> bool:
    """Whether a pointer to a block says more than is known."""
    found = graph.row_of(value)
    return found is not None and (
        not reached[found[0]] or (found[1] and reached[found[0]] != BY_START)
    )


def own_rows(heap: Heap, graph: Numbered) -> Iterator[int]:
    """Yield the rows of the allocator's own chunks."""
    for start, part in zip(graph.starts, graph.parts):
        for chunk in heap.owners:
            at = Columns(part.addresses, part.sizes, part.states).row_at(chunk)
            if at is not None and part.first <= at < part.first + part.length:
                yield start + at - part.first


def sum_of(graph: Numbered, rows: Sequence[int]) -> Sum:
    """Return how many blocks ascending rows are, and their usable bytes."""
    return Sum(len(rows), sum(graph.usables(rows)))


# --- what hangs off what --------------------------------------------------------------------------


class Links:
    """References among leaked blocks, by their places in the list of these."""

    def __init__(self, found: Leaks) -> None:
        self.rows = found.leaked
        wanted = bytearray(found.graph.count)
        for row in self.rows:
            wanted[row] = 1
        sources, ends, inside = found.graph.edges(self.rows, wanted)
        places = {row: place for place, row in enumerate(self.rows)}
        self.ends = array("I")
        self.first = array("I", [0])
        self.pointed = bytearray(len(self.rows))
        self._fill(sources, ends, inside, places, found.interior)

    def _fill(
        self,
        sources: array[int],
        ends: array[int],
        inside: bytearray,
        places: dict[int, int],
        interior: bool,
    ) -> None:
        """Sort the references, which come by source, into rows of *ends*."""
        at = 0
        for source, end, within in zip(sources, ends, inside):
            if source == end or (within and not interior):
                continue
            place = places[source]
            while at < place:
                self.first.append(len(self.ends))
                at += 1
            self.ends.append(places[end])
            self.pointed[places[end]] = 1
        self.first.extend([len(self.ends)] * (len(self.rows) - at))

    def flood(self, start: int, seen: bytearray) -> list[int]:
        """Return what a block leads to and was not seen before, itself first."""
        seen[start] = 1
        found = [start]
        for place in found:
            for end in self.ends[self.first[place] : self.first[place + 1]]:
                if not seen[end]:
                    seen[end] = 1
                    found.append(end)
        return found


def _heads(links: Links, usable: Sequence[int]) -> list[Head]:
    """Return what no leak points to, then one block of each cycle that no leak leads to.

    Of the blocks that are left, those that start a flood are noted; from the last of them on, one
    that no later one leads to is in a cycle with all that leads to it.
    """
    seen = bytearray(len(links.rows))

    def head(place: int, cycle: bool) -> Head:
        if links.first[place] == links.first[place + 1]:
            seen[place] = 1
            return Head(links.rows[place], cycle, Sum(1, usable[place]))
        held = links.flood(place, seen)
        return Head(links.rows[place], cycle, Sum(len(held), sum([usable[one] for one in held])))

    places = range(len(links.rows))
    heads = [head(place, False) for place in places if not links.pointed[place]]
    trial = bytearray(seen)
    started = []
    for place in places:
        if not trial[place]:
            links.flood(place, trial)
            started.append(place)
    return heads + [head(place, True) for place in reversed(started) if not seen[place]]


# --- what blocks hold ----------------------------------------------------------------------------


def first_bytes(graph: Numbered, row: int, most: int | None) -> bytes:
    """Return the first bytes of a block, all of them without *most*; as far as they are known."""
    part, at = graph.place(row)
    length = (part.sizes[at] & ~SIZE_BITS) - part.less
    offset = part.addresses[at] + 2 * graph.word - part.buffer.base
    if offset < 0:
        return b""
    return bytes(
        part.buffer.data[offset : offset + (length if most is None else min(length, most))]
    )

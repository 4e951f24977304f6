"""Why a block is alive, and what lives by it: a shortest chain from a root; what it dominates."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from ..errors import BadRequest
from ..heap.columns import MMAPPED, UNKNOWN, USED, Columns
from ..heap.heap import Heap
from ..native import FROM_ROOT, Buffer, Numbered, words_between
from .dominators import immediate_dominators
from .leaks import MOST_ROUNDS, Sum, chunk_of, graph_of, sum_of, usable_of
from .mangled import Mangled, find_mangled
from .refs import Reference, find_mangled_references, find_root_references
from .roots import Roots, as_words, find_roots, scanned

MOST_IN_TREE = 1 << 20  # blocks whose tree is made; more of them are counted
NOT_REACHED_ONLY = bytes([1]) + bytes(255)  # from how a row was reached to whether it was not


class Link(NamedTuple):
    """A block on the way, and where in it the pointer to the next one stands."""

    chunk: int
    usable: int
    offset: int | None  # in its mem; None: it is the last


class Path(NamedTuple):
    """A shortest way from a root to a block."""

    root: Reference | None  # None: no longer there (the target runs)
    links: list[Link]


class Branch(NamedTuple):
    """A block that lives by another one alone, and all that lives by it."""

    chunk: int
    usable: int
    depth: int  # 0: the block that was asked for
    held: Sum  # with itself: free it, and so much goes


class Held(NamedTuple):
    """What a block keeps alive: nothing else that is alive leads there."""

    total: Sum  # with itself
    branches: list[Branch] | None  # the tree, what weighs most first; None: it is too large


def find_path(heap: Heap, chunk: int) -> Path | None:
    """Return a shortest chain of pointers from a root to a block; None if there is none.

    Where no other leads there, a mangled pointer counts as a root, in whatever it stands.

    :raises BadRequest: if the chunk holds no block in use.
    :raises NotFound: if the mappings are not known.
    """
    graph = graph_of(heap)
    roots = find_roots(heap)
    rows = _way(heap, graph, roots, _row(graph, chunk))
    if not rows:
        return None
    links = [_link(graph, row, after) for row, after in zip(rows, [*rows[1:], None])]
    mem = links[0].chunk + heap.layout.header
    asked = heap, roots, mem, mem + links[0].usable
    references = chain(find_root_references(*asked), find_mangled_references(*asked))
    return Path(next(references, None), links)


def _way(heap: Heap, graph: Numbered, roots: Roots, target: int) -> list[int]:
    """Return the rows on a shortest way from a root to *target*; empty if there is none."""
    ways = graph.ways_to(scanned(heap, roots), target)
    values: set[int] = set()
    mangled = Mangled(False, "") if ways[target] else find_mangled(heap, graph, roots)
    for _ in range(MOST_ROUNDS):
        stand = [value for row, value in mangled.in_blocks if ways[row]]
        known, values = values, {*mangled.in_roots, *stand}
        if values == known:
            break
        words = as_words(heap, sorted(values))
        ways = graph.ways_to(chain(scanned(heap, roots), [words]), target)
        if ways[target]:
            break
    if not ways[target]:
        return []
    rows = [target]
    while ways[rows[-1]] != FROM_ROOT:
        rows.append(ways[rows[-1]] - 1)
    return rows[::-1]


def _link(graph: Numbered, row: int, after: int | None) -> Link:
    usable = usable_of(graph, row)
    offset = None if after is None else next(_pointers(graph, row, after), None)
    return Link(chunk_of(graph, row), usable, offset)


def _pointers(graph: Numbered, row: int, end: int) -> Iterator[int]:
    """Yield the offsets in a row's block at which pointers to another row's stand."""
    part, _ = graph.place(row)
    low = chunk_of(graph, end) + 2 * graph.word
    mem = chunk_of(graph, row) + 2 * graph.word
    start = mem - part.buffer.base
    data = part.buffer.data[max(start, 0) : start + usable_of(graph, row)]
    block = Buffer(data, mem, graph.word, part.buffer.order)
    for address in words_between(block, low, low + usable_of(graph, end), graph.mask):
        yield address - mem


def _row(graph: Numbered, chunk: int) -> int:
    for start, part in zip(graph.starts, graph.parts):
        if part.low <= chunk < part.high:
            at = Columns(part.addresses, part.sizes, part.states).row_at(chunk)
            if at is not None and part.states[at] in (USED, MMAPPED, UNKNOWN):
                return start + at - part.first
    raise BadRequest(f"{chunk:#x} is no block in use: no way leads to it", "heap refs ADDR")


# --- what lives by a block ------------------------------------------------------------------------


def find_held(heap: Heap, chunk: int, depth: int) -> Held:
    """Return what goes if a block goes: all that the roots lead to only through it.

    :raises BadRequest: if the chunk holds no block in use.
    :raises NotFound: if the mappings are not known.
    """
    graph = graph_of(heap)
    top = _row(graph, chunk)
    reached = graph.mark(scanned(heap, find_roots(heap)), True, top)
    rows = _members(graph, top, bytearray(reached.translate(NOT_REACHED_ONLY)))
    total = sum_of(graph, rows)
    if len(rows) > MOST_IN_TREE:
        return Held(total, None)
    return Held(total, list(_tree(graph, rows, depth)))


def _members(graph: Numbered, top: int, wanted: bytearray) -> array[int]:
    """Return a row and all that it leads to, of those that are wanted."""
    rows, frontier = array("I", [top]), array("I", [top])
    wanted[top] = 0
    while frontier:
        _, ends, _ = graph.edges(frontier, wanted)
        frontier = array("I")
        for row in ends:
            if wanted[row]:
                wanted[row] = 0
                frontier.append(row)
        rows += frontier
    return rows


def _tree(graph: Numbered, rows: array[int], depth: int) -> Iterator[Branch]:
    """Yield the tree of dominators below the first row, to a depth."""
    wanted = bytearray(graph.count)
    for row in rows:
        wanted[row] = 1
    numbers = {row: number for number, row in enumerate(rows)}
    after: list[list[int]] = [[] for _ in rows]
    sources, ends, _ = graph.edges(rows, wanted)
    for source, end in zip(sources, ends):
        after[numbers[source]].append(numbers[end])
    order, above = immediate_dominators(after)
    counts, sizes = [1] * len(rows), [usable_of(graph, row) for row in rows]
    below: list[list[int]] = [[] for _ in rows]
    for number in reversed(order[1:]):
        counts[above[number]] += counts[number]
        sizes[above[number]] += sizes[number]
        below[above[number]].append(number)
    waiting = [(0, 0)]
    while waiting:
        number, level = waiting.pop()
        row = rows[number]
        held = Sum(counts[number], sizes[number])
        yield Branch(chunk_of(graph, row), usable_of(graph, row), level, held)
        if level < depth:
            found = sorted(below[number], key=lambda one: (sizes[one], -one))
            waiting += [(one, level + 1) for one in found]

"""Blocks in use by type: told on the columns, counted in groups, and the groups named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ...errors import NotFound
from ...heap.columns import MMAPPED, UNKNOWN, USED
from ...heap.heap import Heap
from ...native import Group, Kinds, Numbered, Requests, make_kinds
from ...native import kinds as told
from ..leaks import graph_of, own_rows, usable_of
from ..roots import Roots, find_roots, scanned
from .recognisers import RECOGNISERS, keys_of
from .tables import Named, table_name

MOST_NAMED = 1 << 13  # tables that are looked up, those that hold most first
IN_USE = (USED, MMAPPED, UNKNOWN)
OWN = 1  # the key of malloc's own blocks: no address


NAMES = {
    told.TREE: Named("map or set node", "shape"),
    told.LIST: Named("list node", "shape"),
    told.VECTOR: Named("vector's buffer", "holder"),
    told.STRING: Named("string's buffer", "holder"),
    told.DEQUE_MAP: Named("deque's map", "holder"),
    told.DEQUE_PART: Named("deque's part", "holder"),
    told.BUCKETS: Named("hash table's buckets", "holder"),
    told.HASH_NODE: Named("hash table's node", "holder"),
    told.TEXT: Named("text", "bytes"),
    told.POINTERS: Named("pointers to blocks", "bytes"),
    told.ZEROS: Named("zeros", "bytes"),
}


class TypeGroup(NamedTuple):
    """All blocks of one type; of those that nothing tells, all of one size."""

    name: str
    how: str  # "vtable", "rtti", "symbol", "file", "holder", "shape", "bytes", "python", "none", …
    blocks: int
    bytes: int  # usable
    least: int  # usable bytes of the smallest and the largest
    most: int
    row: int  # one of them
    keys: tuple[tuple[int, int], ...]  # kind and key of each group of the loops that is in it


@dataclass
class Types:
    """What was told. *untold*: blocks in more groups than are counted."""

    kinds: Kinds
    groups: list[TypeGroup]  # what takes most first
    tally: list[Group]
    untold: int = 0
    notes: list[str] = field(default_factory=list)


def find_types(heap: Heap) -> Types:
    """Tell the type of every block in use, as far as anything does."""
    graph = graph_of(heap)
    roots, notes = _roots(heap)
    kinds = make_kinds(graph, requests_of(heap))
    own = _mark_own(heap, kinds)
    if roots is not None:
        kinds.held_by(scanned(heap, roots))
    heap.target.report("telling types", 0, 0)
    kinds.held_by_blocks()
    namer = Namer(heap, {**own, **tell(heap, kinds, graph, roots)})
    groups, untold = kinds.tally()
    return Types(kinds, _named(namer, kinds, groups), groups, untold, notes)


def requests_of(heap: Heap) -> Requests:
    """Return what tells whether a chunk can be the answer to a request."""
    return Requests(heap.layout.alignment, heap.layout.min_chunk, heap.page_size)


def tell(heap: Heap, kinds: Kinds, graph: Numbered, roots: Roots | None) -> dict[int, Named]:
    """Tell blocks by their own words and bytes; return what the keys of recognisers mean.

    *graph*: all blocks of the heap, where *kinds* may be of a part of them.
    """
    names: dict[int, Named] = {}
    for recogniser in RECOGNISERS:
        keys = recogniser(heap, graph, roots)
        if keys is not None:
            names.update({key: Named(name, keys.how) for key, name in keys.names.items()})
            for offset in keys.offsets:
                kinds.by_key(offset, keys_of(keys))
    regions = heap.target.memory.regions()
    for writable in (False, True):  # tables are read only, but where there is no RELRO
        files = (r for r in regions if not r.anonymous and ("w" in r.perms) == writable)
        kinds.by_words([(region.start, region.end) for region in files])
    kinds.by_contents()
    return names


def _roots(heap: Heap) -> tuple[Roots | None, list[str]]:
    try:
        roots = find_roots(heap)
    except NotFound:
        return None, ["the mappings are not known: only what blocks hold is told by its holders"]
    return roots, []


def _mark_own(heap: Heap, kinds: Kinds) -> dict[int, Named]:
    """Mark malloc's own chunks; return what they are called."""
    for row in own_rows(heap, kinds.graph):
        kinds.kind[row], kinds.key[row] = told.KEYED, OWN
    return {OWN: Named("malloc's own (tcache)", "malloc")}


# --- names ----------------------------------------------------------------------------------------


class Namer:
    """Names what the loops told; a table is looked up once, and so many tables at most."""

    def __init__(self, heap: Heap, keys: dict[int, Named]) -> None:
        self._heap = heap
        self._keys = keys
        self._tables: dict[int, Named] = {}

    def name(self, kind: int, key: int) -> Named | None:
        """Return the type of a kind and key; None if they tell nothing."""
        if kind == told.KEYED:
            return self._keys[key]
        if kind != told.TABLE:
            return NAMES.get(kind)
        if key not in self._tables and len(self._tables) >= MOST_NAMED:
            return _OTHER
        return self._tables.setdefault(key, table_name(self._heap, key))


def _named(namer: Namer, kinds: Kinds, groups: list[Group]) -> list[TypeGroup]:
    """Return the groups by name; the tables that hold most are looked up first."""
    for table in _largest(groups):
        namer.name(told.TABLE, table)
    merged: dict[tuple[str, str], TypeGroup] = {}
    for group in groups:
        part, _ = kinds.graph.place(group.row)
        usable = group.size - part.less
        named = namer.name(group.kind, group.key) or Named(_unknown(usable, group.state), "none")
        one = TypeGroup(
            *(*named, group.blocks, group.blocks * usable, usable, usable, group.row),
            ((group.kind, group.key),),
        )
        before = merged.get(named)
        merged[named] = one if before is None else _joined(before, one)
    return sorted(merged.values(), key=lambda one: (-one.bytes, one.name, one.how))


_OTHER = Named("begins with a pointer into a file", "file")


def _unknown(usable: int, state: int) -> str:
    return f"{usable:#x} bytes{', mapped' if state == MMAPPED else ''}"


def _largest(groups: list[Group]) -> list[int]:
    """Return the tables, those that hold most first."""
    held: dict[int, int] = {}
    for group in groups:
        if group.kind == told.TABLE:
            held[group.key] = held.get(group.key, 0) + group.blocks * group.size
    return sorted(held, key=lambda key: (-held[key], key))


def _joined(one: TypeGroup, other: TypeGroup) -> TypeGroup:
    return one._replace(
        blocks=one.blocks + other.blocks,
        bytes=one.bytes + other.bytes,
        least=min(one.least, other.least),
        most=max(one.most, other.most),
        row=min(one.row, other.row),
        keys=tuple(dict.fromkeys((*one.keys, *other.keys))),
    )


# --- members --------------------------------------------------------------------------------------


def members(types: Types, group: TypeGroup) -> Iterator[int]:
    """Yield the rows of a group, ascending."""
    kinds, keys = types.kinds, {key for _, key in group.keys}
    kind = group.keys[0][0]
    row = kinds.kind.find(kind)
    while row >= 0:
        if kinds.key[row] in keys and (kind != told.NO_KIND or _is_of(kinds, row, group)):
            yield row
        row = kinds.kind.find(kind, row + 1)


BY_BYTES = (told.NO_KIND, told.TEXT, told.POINTERS, told.ZEROS)


def of_usable(types: Types, usable: int) -> tuple[int, Iterator[int]]:
    """Return how many blocks of so many bytes only their bytes tell, and their rows."""
    kinds = types.kinds
    count = sum(
        group.blocks
        for group in types.tally
        if group.kind in BY_BYTES and usable_of(kinds.graph, group.row) == usable
    )

    def rows() -> Iterator[int]:
        for row in range(kinds.graph.count):
            if kinds.kind[row] in BY_BYTES and usable_of(kinds.graph, row) == usable:
                part, at = kinds.graph.place(row)
                if part.states[at] in IN_USE:
                    yield row

    return count, rows()


def _is_of(kinds: Kinds, row: int, group: TypeGroup) -> bool:
    """Whether a block that nothing tells is in use and of the group's size."""
    part, at = kinds.graph.place(row)
    state = part.states[at]
    if state not in IN_USE or (state == MMAPPED) != group.name.endswith("mapped"):
        return False
    return usable_of(kinds.graph, row) == group.least

"""Blocks in use by type: told on the columns, counted in groups, and the groups named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ...errors import NotFound
from ...heap.columns import MMAPPED, UNKNOWN, USED
from ...heap.heap import Heap
from ...native import Group, Kinds, Requests, make_kinds
from ...native import kinds as told
from ..leaks import graph_of, own_rows, usable_of
from ..roots import Roots, find_roots, scanned
from .recognisers import RECOGNISERS, keys_of
from .tables import Named, table_name

MOST_NAMED = 1 << 13  # tables that are looked up, those that hold most first
IN_USE = (USED, MMAPPED, UNKNOWN)
OWN = 1  # the key of malloc's own blocks: no address


class Kind(NamedTuple):
    """What a kind of the loops is called."""

    name: str
    how: str


NAMES = {
    told.TREE: Kind("map or set node", "shape"),
    told.LIST: Kind("list node", "shape"),
    told.VECTOR: Kind("vector's buffer", "holder"),
    told.STRING: Kind("string's buffer", "holder"),
    told.DEQUE_MAP: Kind("deque's map", "holder"),
    told.DEQUE_PART: Kind("deque's part", "holder"),
    told.BUCKETS: Kind("hash table's buckets", "holder"),
    told.HASH_NODE: Kind("hash table's node", "holder"),
    told.TEXT: Kind("text", "bytes"),
    told.POINTERS: Kind("pointers to blocks", "bytes"),
    told.ZEROS: Kind("zeros", "bytes"),
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
    requests = Requests(heap.layout.alignment, heap.layout.min_chunk, heap.page_size)
    kinds = make_kinds(graph, requests)
    names = _mark_own(heap, kinds)
    if roots is not None:
        kinds.held_by(scanned(heap, roots))
    heap.target.report("telling types", 0, 0)
    kinds.held_by_blocks()
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
    groups, untold = kinds.tally()
    return Types(kinds, _named(heap, kinds, groups, names), groups, untold, notes)


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


def _named(
    heap: Heap, kinds: Kinds, groups: list[Group], names: dict[int, Named]
) -> list[TypeGroup]:
    tables = _tables(heap, groups)
    merged: dict[tuple[str, str], TypeGroup] = {}
    for group in groups:
        part, _ = kinds.graph.place(group.row)
        usable = group.size - part.less
        if group.kind == told.TABLE:
            name, how = tables.get(group.key, _OTHER)
        elif group.kind == told.KEYED:
            name, how = names[group.key]
        else:
            name, how = NAMES.get(group.kind, (_unknown(usable, group.state), "none"))
        one = TypeGroup(
            *(name, how, group.blocks, group.blocks * usable, usable, usable, group.row),
            ((group.kind, group.key),),
        )
        before = merged.get((name, how))
        merged[name, how] = one if before is None else _joined(before, one)
    return sorted(merged.values(), key=lambda one: (-one.bytes, one.name, one.how))


_OTHER = Named("begins with a pointer into a file", "file")


def _unknown(usable: int, state: int) -> str:
    return f"{usable:#x} bytes{', mapped' if state == MMAPPED else ''}"


def _tables(heap: Heap, groups: list[Group]) -> dict[int, Named]:
    """Name the tables, those that hold most first, up to a bound."""
    held: dict[int, int] = {}
    for group in groups:
        if group.kind == told.TABLE:
            held[group.key] = held.get(group.key, 0) + group.blocks * group.size
    largest = sorted(held, key=lambda key: (-held[key], key))[:MOST_NAMED]
    return {key: table_name(heap, key) for key in largest}


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

"""`refs`: who points to a chunk, why it is alive, and what lives by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..analysis.paths import Branch, Path, find_held, find_path
from ..analysis.refs import Reference, find_references, named
from ..errors import BadRequest, MemoryFault
from ..heap.heap import Heap
from ..heap.target import Target
from ..table import (
    Absent,
    Address,
    Answer,
    Column,
    Data,
    Fact,
    Facts,
    Kind,
    Lines,
    Part,
    Table,
    Tag,
)
from .cells import address, finish, more_rows, row_limit, state_cell, thread_text

TEXT_ROWS = 20  # of each table
DEPTH = 3  # of the tree, if nothing else is said

_REF_COLUMNS = (
    Column("kind", "what"),
    Column("address", "at", Kind.ADDRESS),
    Column("name", "name", in_text=False),
    Column("symbol", "symbol", in_text=False),
    Column("thread", "thread", in_text=False),
    Column("chunk", "chunk", Kind.ADDRESS, in_text=False),
    Column("offset", "offset", Kind.COUNT, in_text=False),
    Column("state", "state"),
    Column("value", "value", Kind.ADDRESS),
    Column("into", "into mem", Kind.COUNT),
    Column("mangled", "mangled", in_text=False),
    Column("", "where", in_json=False),
)


def refs(target: Target, request: Any) -> Answer:
    """Show who points to a chunk."""
    heap = Heap(target)
    heap.target.require_main_arena()
    if request.path or request.tree:
        _ = heap.segments  # the graph needs every row
    chunk, mem, usable, state = _asked(heap, request.address)
    facts = [
        Fact("address", "chunk", Address(chunk), Kind.ADDRESS),
        Fact("user", "mem", Address(mem), Kind.ADDRESS),
        Fact("usable", "usable", usable, Kind.SIZE),
        Fact("state", "state", state_cell(state)),
    ]
    found = list(find_references(heap, mem, mem + usable))
    limit = row_limit(request, TEXT_ROWS)
    rows = [_reference_row(heap, named(heap, one), mem) for one in found[:limit]]
    parts: list[Part] = [
        Facts("chunk", facts),
        Table("refs", _REF_COLUMNS, rows, "who points to it", "nothing points to it"),
        more_rows(len(found), limit),
    ]
    if request.path:
        parts += _path(heap, find_path(heap, chunk))
    if request.tree:
        depth = DEPTH if request.depth is None else request.depth
        parts += _tree(heap, chunk, depth, limit)
    return finish(heap, "refs", parts)


def _asked(heap: Heap, asked: int) -> tuple[int, int, int, str | None]:
    """Return chunk, mem, usable bytes and state of the chunk that an address lies in."""
    chunk = heap.holding(asked)
    mapped = None if chunk is not None else heap.find_mmapped(asked)
    if mapped is not None:
        chunk = heap.mmapped_as_chunk(mapped)
    if chunk is None:
        raise BadRequest(f"{asked:#x} is in no chunk", "heap whatis ADDR, heap find --into ADDR")
    usable = heap.layout.usable(chunk.size, mapped is not None)
    return chunk.address, chunk.address + heap.layout.header, max(usable, 0), chunk.state


def _reference_row(heap: Heap, one: Reference, mem: int) -> Sequence[Any]:
    return (
        one.kind,
        address(one.address),
        one.name or Absent.NONE,
        one.symbol or Absent.NONE,
        Absent.NONE if one.thread is None else one.thread,
        address(one.chunk.address if one.chunk else None),
        Absent.NONE if one.offset is None else one.offset,
        state_cell(one.chunk.state) if one.chunk else Absent.NONE,
        Address(one.value),
        (one.value & heap.layout.address_mask) - mem,
        one.mangled,
        _where(heap, one),
    )


def _where(heap: Heap, one: Reference) -> str:
    """Return the place of a reference in words, and whether it is stored there as it is."""
    return f"{_place(heap, one)} (mangled)" if one.mangled else _place(heap, one)


def _place(heap: Heap, one: Reference) -> str:
    if one.kind == "register":
        return f"{one.name} of thread {thread_text(heap, one.thread)}"
    if one.kind == "stack":
        place = f"stack of thread {thread_text(heap, one.thread)}, sp + {one.offset or 0:#x}"
        return f"{place}: {one.symbol}" if one.symbol else place
    if one.kind == "global":
        place = f"{one.name.rpartition('/')[2]}+{one.offset or 0:#x}"
        return f"{one.symbol} ({place})" if one.symbol else place
    if one.chunk is not None and one.offset is not None:
        inside = f"mem + {one.offset:#x}" if one.offset >= 0 else f"mem - {-one.offset:#x}"
        return f"chunk {one.chunk.address:#x}, {inside}"
    return "between the chunks" if one.kind == "heap" else "memory of no file"


# --- why it is alive ------------------------------------------------------------------------------

_PATH_COLUMNS = (
    Column("chunk", "chunk", Kind.ADDRESS, in_text=False),
    Column("user", "mem", Kind.ADDRESS),
    Column("usable", "usable", Kind.SIZE),
    Column("offset", "points on at", Kind.SIZE),
)


def _path(heap: Heap, path: Path | None) -> Iterator[Part]:
    """Yield the chain from a root: where it begins, then each block and where it points on."""
    title = "a shortest way from a root"
    if path is None:
        yield Data("root", None)
        yield Table("path", _PATH_COLUMNS, (), title, "no root leads to it: it is leaked")
        return
    one = None if path.root is None else named(heap, path.root)
    if one is None:
        yield Data("root", None)
    else:
        root = {"kind": one.kind, "address": address(one.address), "name": one.name or None}
        root |= {"symbol": one.symbol or None, "thread": one.thread, "mangled": one.mangled}
        yield Data("root", root)
        yield Lines([[Tag("from "), Tag(_where(heap, one))]], title)
    header = heap.layout.header
    rows = (
        (
            Address(link.chunk),
            Address(link.chunk + header),
            link.usable,
            Absent.NONE if link.offset is None else link.offset,
        )
        for link in path.links
    )
    yield Table("path", _PATH_COLUMNS, rows, "" if one is not None else title)


# --- what lives by it -----------------------------------------------------------------------------

_TREE_COLUMNS = (
    Column("depth", "depth", Kind.COUNT, in_text=False),
    Column("chunk", "chunk", Kind.ADDRESS, in_text=False),
    Column("", "mem", in_json=False),
    Column("user", "mem", Kind.ADDRESS, in_text=False),
    Column("usable", "usable", Kind.SIZE),
    Column("count", "blocks", Kind.COUNT),
    Column("bytes", "bytes", Kind.BYTES),
    Column("", "begins", in_json=False),
)


def _tree(heap: Heap, chunk: int, depth: int, limit: int | None) -> Iterator[Part]:
    """Yield what goes with a block, as a tree of what lives by what."""
    held = find_held(heap, chunk, depth)
    total = {"count": held.total.blocks, "bytes": held.total.bytes}
    yield Data("held", total)
    title = f"free it, and {held.total.blocks} blocks with {held.total.bytes} bytes can go"
    if held.branches is None:
        yield Lines(
            [[Tag("more blocks than a tree is made of; --path of one tells its way")]], title
        )
        yield Data("tree", None)
        return
    rows = (_branch_row(heap, branch) for branch in held.branches[:limit])
    yield Table("tree", _TREE_COLUMNS, rows, title)
    yield more_rows(len(held.branches), limit)


def _branch_row(heap: Heap, branch: Branch) -> tuple[Any, ...]:
    mem = branch.chunk + heap.layout.header
    return (
        branch.depth,
        Address(branch.chunk),
        f"{'  ' * branch.depth}{mem:#x}",
        Address(mem),
        branch.usable,
        *branch.held,
        _begins(heap, mem, branch.usable),
    )


def _begins(heap: Heap, mem: int, usable: int) -> Any:
    """Return the first bytes of a block as text, if they are text."""
    try:
        data = heap.target.memory.read(mem, min(usable, 16)).rstrip(b"\0")
    except MemoryFault:
        return Absent.UNREADABLE
    text = data.decode("ascii", "replace")
    return text if len(text) > 3 and text.isprintable() else ""

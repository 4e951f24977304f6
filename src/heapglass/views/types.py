"""`types`: what fills the heap, by type."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import Any

from ..analysis.leaks import chunk_of, first_bytes, usable_of
from ..analysis.types import TypeGroup, Types, find_types, members, of_usable
from ..errors import BadRequest
from ..heap.heap import Heap
from ..heap.target import Target
from ..table import Absent, Address, Answer, Column, Data, Kind, Lines, Part, Table, Tag
from .cells import finish, more_rows, printed, row_limit

TEXT_ROWS = 30
START = 24  # bytes of a block that are shown
MOST_PRINTED = 1 << 14  # characters of a block as a type

_GROUP_COLUMNS = (
    Column("type", "type"),
    Column("how", "told by"),
    Column("count", "blocks", Kind.COUNT),
    Column("bytes", "bytes", Kind.BYTES),
    Column("usable", "usable", in_json=False),
    Column("least", "usable", Kind.SIZE, in_text=False),
    Column("most", "usable", Kind.SIZE, in_text=False),
    Column("example", "for example (mem)", Kind.ADDRESS),
    Column("content", "begins"),
)
_BLOCK_COLUMNS = (
    Column("address", "chunk", Kind.ADDRESS, in_text=False),
    Column("user", "mem", Kind.ADDRESS),
    Column("usable", "usable", Kind.SIZE),
    Column("content", "begins"),
)


def types(target: Target, request: Any) -> Answer:
    """Show the blocks in use by type, or those of one type."""
    heap = Heap(target)
    heap.target.require_main_arena()
    found = find_types(heap)
    heap.problems += found.notes
    if found.untold:
        heap.problems.append(f"{found.untold} blocks are in more groups than are counted")
    limit = row_limit(request, TEXT_ROWS)
    as_type = vars(request)["as"]
    if as_type or request.type:
        parts = _of_type(heap, found, (request.type, as_type), limit)
    else:
        parts = _all(heap, found, limit)
    return finish(heap, "types", parts)


def _all(heap: Heap, found: Types, limit: int | None) -> list[Part]:
    total = sum(group.bytes for group in found.groups)
    told = sum(group.bytes for group in found.groups if group.how != "none")
    count = sum(group.blocks for group in found.groups)
    share = f" ({100 * told // total} %)" if total else ""
    return [
        Table(
            "types",
            _GROUP_COLUMNS,
            (_group_row(heap, found, group) for group in found.groups[:limit]),
            "blocks in use by type, what takes most first",
            "no block is in use",
        ),
        more_rows(len(found.groups), limit),
        Data("totals", {"count": count, "bytes": total, "told_bytes": told}),
        Lines([[Tag(f"{count} blocks, {total:#x} bytes; of {told:#x}{share} the type was told")]]),
    ]


def _group_row(heap: Heap, found: Types, group: TypeGroup) -> tuple[Any, ...]:
    mem = Address(chunk_of(found.kinds.graph, group.row) + heap.layout.header)
    sizes = f"{group.least:#x}" + (f"…{group.most:#x}" if group.most > group.least else "")
    content = _content(found, group.row)
    return (
        *(group.name, group.how, group.blocks, group.bytes),
        *(sizes, group.least, group.most, mem, content),
    )


def _content(found: Types, row: int) -> str:
    return printed(first_bytes(found.kinds.graph, row, START))


# --- one type -------------------------------------------------------------------------------------


def _of_type(
    heap: Heap, found: Types, asked: tuple[str | None, str | None], limit: int | None
) -> list[Part]:
    """Return the blocks of a type, or those that are printed as one."""
    wanted, as_type = asked
    name = wanted or as_type or ""
    groups = [group for group in found.groups if group.name == name]
    if not groups and wanted:
        near = [group.name for group in found.groups if name in group.name][:4]
        hint = f"there is {', '.join(near)}" if near else "heap types lists them"
        raise BadRequest(f"no block in use is of type {name!r}", hint)
    if not as_type:
        return _blocks(heap, found, groups, limit)
    printer = heap.target.types
    if printer is None:
        raise BadRequest(
            f"--as {as_type}: only gdb knows types of debug information",
            "open the core in gdb, and its program: heap types --as TYPE",
        )
    if groups:
        rows: Iterable[int] = chain.from_iterable(members(found, group) for group in groups)
        title = f"{sum(group.blocks for group in groups)} blocks"
    else:
        usable = heap.layout.usable(heap.layout.request2size(printer.size(as_type)))
        count, rows = of_usable(found, usable)
        title = f"{count} blocks, by size: only their bytes tell what they are"
    return _as_type(heap, found, rows, (as_type, title), limit)


def _blocks(heap: Heap, found: Types, groups: list[TypeGroup], limit: int | None) -> list[Part]:
    graph = found.kinds.graph
    rows = (row for group in groups for row in members(found, group))
    count = sum(group.blocks for group in groups)
    header = heap.layout.header
    cells = (
        (
            Address(chunk_of(graph, row)),
            Address(chunk_of(graph, row) + header),
            usable_of(graph, row),
            _content(found, row),
        )
        for row in islice(rows, limit)
    )
    title = f"{groups[0].name}: {count} blocks"
    return [Table("blocks", _BLOCK_COLUMNS, cells, title), more_rows(count, limit)]


def _as_type(
    heap: Heap, found: Types, rows: Iterable[int], asked: tuple[str, str], limit: int | None
) -> list[Part]:
    """Return blocks as a type of the program's debug information; *asked*: the type, the title."""
    printer, graph = heap.target.types, found.kinds.graph
    assert printer is not None
    name, title = asked
    columns = Column("user", "mem", Kind.ADDRESS), Column("value", f"as {name}")
    chosen = list(islice(rows, None if limit is None else limit + 1))
    mems = (chunk_of(graph, row) + heap.layout.header for row in chosen[:limit])
    cells = ((Address(mem), _cut(printer.text(name, mem)) or Absent.UNREADABLE) for mem in mems)
    over = limit is not None and len(chosen) > limit
    more = [[Tag("… more (--all, or --limit N)")]] if over else []
    return [Table("blocks", columns, cells, title, "no block can be of this type"), Lines(more)]


def _cut(text: str) -> str:
    said = " ".join(text.split())
    return said if len(said) <= MOST_PRINTED else f"{said[:MOST_PRINTED]}…"

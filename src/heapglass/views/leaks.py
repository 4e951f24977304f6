"""`leaks`: blocks that nothing leads to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..analysis.leaks import (
    Group,
    Head,
    Leaks,
    Sum,
    chunk_of,
    find_leaks,
    first_bytes,
    group_leaks,
    usable_of,
)
from ..analysis.roots import name_of
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
    Part,
    Table,
)
from .cells import finish, more_rows, printed, row_limit

TEXT_ROWS = 20  # of each table
START = 16  # bytes of a block that are shown
INTERIOR = ("any", "start")
CONTENT = ("start", "none", "full")


def leaks(target: Target, request: Any) -> Answer:
    """Show the blocks that no register, stack or variable leads to."""
    heap = Heap(target)
    heap.target.require_main_arena()
    interior = request.interior or INTERIOR[0]
    found = find_leaks(heap, interior == INTERIOR[0])
    heap.problems += found.roots.notes
    if found.roots.unread:
        heap.problems.append(
            f"{found.roots.unread:#x} bytes of writable mappings cannot be read: what only they "
            "hold is taken for leaked (was the core made with all of coredump_filter's bits?)"
        )
    limit = row_limit(request, TEXT_ROWS)
    parts: list[Part] = [
        Facts("", [Fact("interior", "pointers that count", interior, note=_MEANING[interior])]),
        Table("", _TOTAL_COLUMNS, _total_rows(found), "totals, bytes as malloc_usable_size"),
        Data("totals", {name: _sum_data(total) for name, total in found.totals.items()}),
        *_tables(heap, found, request.content or CONTENT[0], limit),
    ]
    answer = finish(heap, "leaks", parts)
    answer.status = 1 if request.fail and found.totals["leaked"].blocks else 0
    return answer


_MEANING = {
    "any": "(to anywhere in a block; what only the inside holds is possibly lost)",
    "start": "(to the start of a block alone)",
}
_TOTAL_COLUMNS = (
    Column("name", ""),
    Column("count", "blocks", Kind.COUNT),
    Column("bytes", "bytes", Kind.BYTES),
    Column("note", "", in_json=False),
)
_NOTES = {
    "leaked": "nothing leads to them",
    "unreferenced": "of these: no other leaked block points to them",
    "possibly": "only pointers to the inside of a block lead to them",
    "unknown": "nothing leads to them; they may be leaked, or cached and free",
}
_GROUP_COLUMNS = (
    Column("count", "blocks", Kind.COUNT),
    Column("bytes", "bytes", Kind.BYTES),
    Column("usable", "usable", Kind.SIZE),
    Column("words", "first words", Kind.LIST),
    Column("example", "for example (mem)", Kind.ADDRESS),
    Column("content", "begins"),
)
_HEAD_COLUMNS = (
    Column("address", "chunk", Kind.ADDRESS, in_text=False),
    Column("user", "mem", Kind.ADDRESS),
    Column("usable", "usable", Kind.SIZE),
    Column("cycle", "cycle", in_text=False),
    Column("", "is", in_json=False),
    Column("count", "with all it holds", Kind.COUNT),
    Column("bytes", "bytes", Kind.BYTES),
    Column("content", "begins"),
)
_POSSIBLY_COLUMNS = (
    Column("address", "chunk", Kind.ADDRESS, in_text=False),
    Column("user", "mem", Kind.ADDRESS),
    Column("usable", "usable", Kind.SIZE),
    Column("content", "begins"),
)


def _sum_data(total: Sum) -> dict[str, int]:
    return {"count": total.blocks, "bytes": total.bytes}


def _total_rows(found: Leaks) -> list[tuple[Any, ...]]:
    return [(name, *total, _NOTES[name]) for name, total in found.totals.items()]


def _tables(heap: Heap, found: Leaks, content: str, limit: int | None) -> Iterator[Part]:
    """Yield the groups, the heads and the possibly lost, each up to the limit."""
    regions = heap.target.memory.regions()
    code = [(r.start, r.end) for r in regions if not r.anonymous]
    groups = group_leaks(found, code)
    yield Table(
        "groups",
        _GROUP_COLUMNS,
        (_group_row(heap, found, group, content) for group in groups[:limit]),
        "leaked, by size and first words",
        "nothing is leaked",
    )
    yield more_rows(len(groups), limit)
    heads = sorted(found.heads, key=lambda head: (-head.held.bytes, head.row))
    title = "heads: free one, and what it holds can go"
    rows = (_head_row(heap, found, head, content) for head in heads[:limit])
    yield Table("heads", _HEAD_COLUMNS, rows, title if heads else "")
    yield more_rows(len(heads), limit)
    lost = (_block_row(heap, found, row, content) for row in found.possibly[:limit])
    title = "possibly lost" if found.possibly else ""
    yield Table("possibly", _POSSIBLY_COLUMNS, lost, title)
    yield more_rows(len(found.possibly), limit)


def _content(found: Leaks, row: int, content: str) -> Any:
    """Return what a block begins with; bytes that are no plain text as \\xNN."""
    if content == "none":
        return Absent.NONE
    return printed(first_bytes(found.graph, row, START if content == "start" else None))


def _mem(heap: Heap, found: Leaks, row: int) -> Address:
    return Address(chunk_of(found.graph, row) + heap.layout.header)


def _group_row(heap: Heap, found: Leaks, group: Group, content: str) -> tuple[Any, ...]:
    words = [_named(heap, word) if word.startswith("0x") else word for word in group.words]
    mem = _mem(heap, found, group.example)
    return (*group.blocks, group.usable, words, mem, _content(found, group.example, content))


def _named(heap: Heap, word: str) -> str:
    path, offset = name_of(heap.target.memory.regions(), int(word, 16))
    return f"{path.rpartition('/')[2]}+{offset:#x}" if path else word


def _head_row(heap: Heap, found: Leaks, head: Head, content: str) -> tuple[Any, ...]:
    chunk, mem, usable, begins = _block_row(heap, found, head.row, content)
    kind = "a cycle" if head.cycle else "a block"
    return chunk, mem, usable, head.cycle, kind, *head.held, begins


def _block_row(heap: Heap, found: Leaks, row: int, content: str) -> tuple[Any, ...]:
    chunk = Address(chunk_of(found.graph, row))
    mem, usable = _mem(heap, found, row), usable_of(found.graph, row)
    return chunk, mem, usable, _content(found, row, content)

"""`leaks`: blocks that nothing leads to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..analysis.leakgroups import Group, LeakTypes, group_leaks
from ..analysis.leaks import Head, Leaks, Sum, chunk_of, find_leaks, first_bytes, usable_of
from ..analysis.suppress import Suppressed, read_rules, suppress
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
    rules = read_rules(request.suppress) if request.suppress else []
    found = find_leaks(heap, interior == INTERIOR[0])
    types = LeakTypes(heap, found)
    taken = suppress(found, rules, [types.names_of]) if rules else Suppressed(found)
    found = taken.left
    heap.problems += found.roots.notes
    if found.roots.unread:
        heap.problems.append(
            f"{found.roots.unread:#x} bytes of writable mappings cannot be read: what only they "
            "hold is taken for leaked (was the core made with all of coredump_filter's bits?)"
        )
    totals = {**found.totals, **({"suppressed": taken.total} if rules else {})}
    limit = row_limit(request, TEXT_ROWS)
    parts: list[Part] = [
        Facts("", _facts(found, interior)),
        Table("", _TOTAL_COLUMNS, _total_rows(totals), "totals, bytes as malloc_usable_size"),
        Data("totals", {name: _sum_data(total) for name, total in totals.items()}),
        *_Tables(heap, found, types, request.content or CONTENT[0]).parts(limit),
        *(_suppressed(taken, limit) if rules else ()),
    ]
    answer = finish(heap, "leaks", parts)
    answer.status = 1 if request.fail and found.totals["leaked"].blocks else 0
    return answer


def _facts(found: Leaks, interior: str) -> list[Fact]:
    mangled = found.mangled
    number = len(mangled.in_roots) + len(mangled.in_blocks)
    said = f"({mangled.note}{f'; {number} lead to blocks' if number else ''})"
    followed = "followed" if mangled.known else "not followed"
    return [
        Fact("interior", "pointers that count", interior, note=_MEANING[interior]),
        Fact("mangled", "mangled ones", followed, note=said),
    ]


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
    "suppressed": "of none of the above: a rule takes them out, or what they hang off",
}
_GROUP_COLUMNS = (
    Column("count", "blocks", Kind.COUNT),
    Column("bytes", "bytes", Kind.BYTES),
    Column("usable", "usable", Kind.SIZE),
    Column("type", "type"),
    Column("how", "told by", in_text=False),
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
    Column("type", "type"),
    Column("content", "begins"),
)
_POSSIBLY_COLUMNS = (
    Column("address", "chunk", Kind.ADDRESS, in_text=False),
    Column("user", "mem", Kind.ADDRESS),
    Column("usable", "usable", Kind.SIZE),
    Column("type", "type"),
    Column("content", "begins"),
)
_SUPPRESSED_COLUMNS = (
    Column("count", "blocks", Kind.COUNT),
    Column("bytes", "bytes", Kind.BYTES),
    Column("rule", "rule"),
)


def _sum_data(total: Sum) -> dict[str, int]:
    return {"count": total.blocks, "bytes": total.bytes}


def _total_rows(totals: dict[str, Sum]) -> list[tuple[Any, ...]]:
    return [(name, *total, _NOTES[name]) for name, total in totals.items()]


def _suppressed(taken: Suppressed, limit: int | None) -> Iterator[Part]:
    """Yield what each rule took."""
    rows = (
        (*held, printed(rule.text.encode("utf-8", "surrogateescape")))
        for rule, held in taken.by_rule[:limit]
    )
    yield Table("suppressed", _SUPPRESSED_COLUMNS, rows, "suppressed", "no rule matches anything")
    yield more_rows(len(taken.by_rule), limit)


class _Tables:
    """The groups, the heads and the possibly lost, each up to a limit."""

    def __init__(self, heap: Heap, found: Leaks, types: LeakTypes, content: str) -> None:
        self._heap, self._found, self._types = heap, found, types
        self._content = content

    def parts(self, limit: int | None) -> Iterator[Part]:
        """Yield the tables."""
        groups = group_leaks(self._found, self._types)
        yield Table(
            "groups",
            _GROUP_COLUMNS,
            (self._group_row(group) for group in groups[:limit]),
            "leaked, by size, type and first words",
            "nothing is leaked",
        )
        yield more_rows(len(groups), limit)
        heads = sorted(self._found.heads, key=lambda head: (-head.held.bytes, head.row))
        title = "heads: free one, and what it holds can go"
        rows = (self._head_row(head) for head in heads[:limit])
        yield Table("heads", _HEAD_COLUMNS, rows, title if heads else "")
        yield more_rows(len(heads), limit)
        possibly = self._found.possibly
        lost = ((*self._place(row), self._type(row), self._begins(row)) for row in possibly[:limit])
        title = "possibly lost" if possibly else ""
        yield Table("possibly", _POSSIBLY_COLUMNS, lost, title)
        yield more_rows(len(possibly), limit)

    def _begins(self, row: int) -> Any:
        """Return what a block begins with; bytes that are no plain text as \\xNN."""
        if self._content == "none":
            return Absent.NONE
        most = START if self._content == "start" else None
        return printed(first_bytes(self._found.graph, row, most))

    def _type(self, row: int) -> Any:
        named = self._types.type_of(self._types.told(row))
        return Absent.NONE if named is None else named.name

    def _mem(self, row: int) -> Address:
        return Address(chunk_of(self._found.graph, row) + self._heap.layout.header)

    def _place(self, row: int) -> tuple[Any, ...]:
        chunk = Address(chunk_of(self._found.graph, row))
        return chunk, self._mem(row), usable_of(self._found.graph, row)

    def _group_row(self, group: Group) -> tuple[Any, ...]:
        how = Absent.NONE if group.type is None else group.type.how
        mem, begins = self._mem(group.example), self._begins(group.example)
        kind = self._type(group.example)
        return (*group.blocks, group.usable, kind, how, list(group.words), mem, begins)

    def _head_row(self, head: Head) -> tuple[Any, ...]:
        kind = "a cycle" if head.cycle else "a block"
        of_all = (*head.held, self._type(head.row), self._begins(head.row))
        return (*self._place(head.row), head.cycle, kind, *of_all)

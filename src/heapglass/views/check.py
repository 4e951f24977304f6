"""`check`: every rule of the heap, and what is broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..analysis.check import RULES, Checked, check_heap
from ..heap.heap import Heap
from ..heap.target import Target
from ..table import Answer, Column, Data, Lines, Part, Style, Table, Tag
from .cells import finish, more_rows, row_limit
from .findings import finding_data, finding_lines, unsaid

TEXT_ROWS = 10  # findings

_RULE_COLUMNS = (Column("rule", "rule"), Column("holds", "what must be true"))


def check(target: Target, request: Any) -> Answer:
    """Show which rules of the heap do not hold, and why."""
    heap = Heap(target)
    checked = check_heap(heap)
    limit = row_limit(request, TEXT_ROWS)
    shown = checked.findings[:limit]
    parts: list[Part] = []
    if request.rules:
        parts.append(Table("rules", _RULE_COLUMNS, list(RULES.items())))
    parts += [
        Lines(_lines(heap, checked, limit)),
        more_rows(len(checked.findings), limit),
        Data("findings", [finding_data(heap, finding) for finding in shown]),
        Data("checked", _looked_at(heap)),
    ]
    answer = finish(heap, "check", parts)
    answer.warnings[:] = [*unsaid(answer.warnings, checked.findings), *checked.notes]
    answer.status = 1 if checked.findings else 0
    return answer


def _looked_at(heap: Heap) -> dict[str, int]:
    """Return how much was looked at."""
    return {
        "arenas": len(heap.arenas),
        "chunks": sum(len(segment.columns) for segment in heap.segments),
        "lists": sum(1 for found in heap.lists if found.chunks),
        "mmapped": len(heap.mmapped),
        "rules": len(RULES),
    }


def _counted(count: int, name: str) -> str:
    return f"{count} {name[:-1] if count == 1 and name.endswith('s') else name}"


def _lines(heap: Heap, checked: Checked, limit: int | None) -> Iterator[list[Tag]]:
    looked = ", ".join(_counted(count, name) for name, count in _looked_at(heap).items())
    count = len(checked.findings)
    if not count:
        yield [Tag("no fault was found", Style.GOOD), Tag(f" ({looked})")]
        return
    faults = "1 fault" if count == 1 else f"{count} faults"
    yield [Tag(faults, Style.BAD), Tag(f" ({looked})")]
    for number, finding in enumerate(checked.findings[:limit], 1):
        yield []
        yield from finding_lines(heap, finding, number)

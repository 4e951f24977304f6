"""An answer as one JSON document, in pieces: long arrays are never kept whole in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..table import Absent, Address, Answer, Data, Facts, Raw, Table, Tag
from .pieces import remembered

FORMAT = 1


def json_pieces(answer: Answer) -> Iterator[str]:
    """Yield the text of the document, the last piece with a newline.

    Warnings come last: they may grow while rows are made. All text is ASCII, so that no control
    character or invalid sequence of the target gets out.
    """
    yield f'{{"heapglass": {FORMAT}, "command": {_dump(answer.command)}, '
    yield f'"target": {_dump(answer.target)}'
    seen: set[str] = set()
    for part in answer.parts:
        if isinstance(part, Table) and part.key:
            yield f", {_dump(part.key)}: "
            yield from _rows(part)
        elif isinstance(part, Facts):
            yield from _facts(part, seen)
        elif isinstance(part, Data):
            yield f", {_dump(part.key)}: {_dump(part.value)}"
        elif isinstance(part, Raw):
            yield f", {_dump(part.key)}: {_dump(part.text)}"
    yield f', "warnings": {_dump(list(dict.fromkeys(answer.warnings)))}}}\n'


def _rows(table: Table) -> Iterator[str]:
    shown = [(n, c) for n, c in enumerate(table.columns) if c.in_json and c.key]
    columns = [(n, f"{_dump(c.key)}: ", remembered(_dump)) for n, c in shown]
    start = "[\n{"
    for row in table.rows:
        yield start + ", ".join([key + dump(row[n]) for n, key, dump in columns]) + "}"
        start = ",\n{"
    yield "[]" if start == "[\n{" else "\n]"


def _facts(part: Facts, seen: set[str]) -> Iterator[str]:
    members = {fact.key: fact.value for fact in part.facts if fact.key}
    if part.key:
        yield f", {_dump(part.key)}: {_dump(members)}"
        return
    for key, value in members.items():
        if key not in seen:
            seen.add(key)
            yield f", {_dump(key)}: {_dump(value)}"


def _dump(value: Any) -> str:
    if value.__class__ is Address:
        return f'"{value:#x}"'
    return json.dumps(plain(value), ensure_ascii=True)


def plain(value: Any) -> Any:
    """Return a value as JSON has it: addresses as strings, what is absent as null."""
    if isinstance(value, Address):
        return hex(value)
    if isinstance(value, Tag):
        return value.text
    if value is None or isinstance(value, Absent):
        return None
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    raise TypeError(f"no JSON for {type(value).__name__}")

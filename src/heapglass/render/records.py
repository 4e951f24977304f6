"""The rows of one listing alone, one a line: JSON Lines or CSV, for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import BadRequest
from ..table import Absent, Address, Answer, Column, Table
from .document import plain
from .pieces import remembered

FORMATS = ("jsonl", "csv")


def listings(answer: Answer) -> list[str]:
    """Return the names of the listings that an answer has."""
    return [part.key for part in answer.parts if isinstance(part, Table) and part.key]


def record_pieces(answer: Answer, form: str, name: str | None = None) -> Iterator[str]:
    """Yield the lines of a listing, CSV with a line of names first; *form* is one of FORMATS.

    *name*: of the listing; None: the first. Addresses are hexadecimal, what is unknown or absent is
    null or empty, lists in CSV are joined with blanks. Nothing of the target gets out unescaped.

    :raises BadRequest: if the answer has no such listing.
    """
    names = listings(answer)
    wanted = name or (names[0] if names else "")
    tables = [p for p in answer.parts if isinstance(p, Table) and p.key == wanted]
    if not wanted or not tables:
        there = f"it has {', '.join(names)}" if names else "--json has all of it"
        raise BadRequest(f"{answer.command} has no listing{f' {name!r}' if name else ''}", there)
    table = tables[0]
    shown = [(n, c) for n, c in enumerate(table.columns) if c.in_json and c.key]
    yield from (_jsonl if form == "jsonl" else _csv)(table, shown)


def _jsonl(table: Table, shown: Sequence[tuple[int, Column]]) -> Iterator[str]:
    columns = [(n, f"{json.dumps(c.key)}: ", remembered(_dumped)) for n, c in shown]
    for row in table.rows:
        yield "{" + ", ".join([key + dump(row[n]) for n, key, dump in columns]) + "}\n"


def _dumped(value: Any) -> str:
    return f'"{value:#x}"' if value.__class__ is Address else json.dumps(plain(value))


def _csv(table: Table, shown: Sequence[tuple[int, Column]]) -> Iterator[str]:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for _, column in shown])
    numbers = [number for number, _ in shown]
    yield _taken(out)
    for row in table.rows:
        writer.writerow([_cell(row[number]) for number in numbers])
        yield _taken(out)


def _taken(out: io.StringIO) -> str:
    text = out.getvalue()
    out.seek(0)
    out.truncate()
    return text


def _cell(value: Any) -> str:
    if value is None or isinstance(value, Absent):
        return ""
    found = plain(value)
    if isinstance(found, list):
        return " ".join(_cell(item) for item in found)
    if isinstance(found, (dict, bool)):
        return json.dumps(found)
    text = str(found)
    return text if text.isascii() and text.isprintable() else json.dumps(text)[1:-1]

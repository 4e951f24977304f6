"""An answer as lines of text: aligned, cut at the width, never kept whole in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from ..table import Absent, Address, Answer, Column, Facts, Kind, Lines, Raw, Style, Table, Tag
from .colour import Paint, plain
from .escape import visible

FIRST = 512  # rows that are looked at for the widths of the columns
_RIGHT = {Kind.SIZE, Kind.BYTES, Kind.COUNT, Kind.PERCENT}
_GAP = "  "  # between two columns
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def text_lines(answer: Answer, width: int | None = None, paint: Paint = plain) -> Iterator[str]:
    """Yield the lines of an answer, without newlines; warnings come last, as `! …`.

    *width*: columns of the terminal, None for no limit. Rows are taken from their iterators while
    lines are yielded.
    """
    shown = False
    for part in answer.parts:
        lines = _part(part, width, paint)
        first = next(lines, None)
        if first is None:
            continue
        title = getattr(part, "title", "")
        if title:
            if shown:
                yield ""
            yield paint(visible(title), Style.STRONG)
        yield first
        yield from lines
        shown = True
    seen = set()
    for warning in answer.warnings:
        if warning not in seen:
            seen.add(warning)
            yield paint("! " + visible(warning), Style.WARN)


def _part(part: object, width: int | None, paint: Paint) -> Iterator[str]:
    if isinstance(part, Table):
        yield from _table(part, width, paint)
    elif isinstance(part, Facts):
        yield from _facts(part, width, paint)
    elif isinstance(part, Lines):
        for line in part.lines:
            yield _line(line, width, paint)
    elif isinstance(part, Raw):
        yield from part.text.splitlines()


def _line(pieces: Sequence[Tag], width: int | None, paint: Paint) -> str:
    left = width
    made = []
    for text, style in pieces:
        shown = visible(text)
        if left is not None:
            shown = _cut(shown, left)
            left -= len(shown)
        made.append(paint(shown, style))
    return "".join(made).rstrip()


def _facts(part: Facts, width: int | None, paint: Paint) -> Iterator[str]:
    facts = [fact for fact in part.facts if fact.label]
    label_width = max((len(fact.label) for fact in facts), default=0)
    for fact in facts:
        value, style = cell_text(fact.value, fact.kind)
        note = f"  {visible(fact.note)}" if fact.note else ""
        room = None if width is None else max(width - label_width - 2, 8)
        shown = value if room is None else _cut(value, room)
        rest = note if room is None else _cut(note, max(room - len(shown), 0))
        line = f"{visible(fact.label):<{label_width}}  {paint(shown, style)}"
        yield (line + paint(rest, Style.DIM)).rstrip()


# --- tables -------------------------------------------------------------------------------------


def _table(table: Table, width: int | None, paint: Paint) -> Iterator[str]:
    columns = [(number, c) for number, c in enumerate(table.columns) if c.in_text]
    rows = iter(table.rows)
    first = [_cells(row, columns) for row in islice(rows, FIRST)]
    if not first:
        if table.empty:
            yield paint(visible(table.empty), Style.DIM)
        return
    used = [n for n in range(len(columns)) if _is_used(first, n) or len(first) == FIRST]
    widths = [max(len(columns[n][1].title), *(len(row[n][0]) for row in first)) for n in used]
    kept = [columns[n][1] for n in used]
    yield paint(_row([(c.title, Style.PLAIN) for c in kept], kept, widths, width, plain), Style.DIM)
    for every in chain(first, (_cells(row, columns) for row in rows)):
        cells = [every[n] for n in used]
        for number, (text, _) in enumerate(cells):  # a later row may have more to say
            if len(text) > widths[number]:
                widths[number] = len(text)
        yield _row(cells, kept, widths, width, paint)


def _is_used(rows: Iterable[Sequence[tuple[str, Style]]], number: int) -> bool:
    """Whether any row has something to say in this column."""
    return any(row[number][0] not in ("", Absent.NONE.value) for row in rows)


def _cells(row: Sequence[Any], columns: Sequence[tuple[int, Column]]) -> list[tuple[str, Style]]:
    return [cell_text(row[number], column.kind) for number, column in columns]


def _row(
    cells: Sequence[tuple[str, Style]],
    columns: Sequence[Column],
    widths: Sequence[int],
    width: int | None,
    paint: Paint,
) -> str:
    """Put cells side by side; the last one is cut at the width, and others only if they must."""
    made: list[str] = []
    used = 0
    for (text, style), column, wide in zip(cells, columns, widths):
        room = max(wide, len(text)) if width is None else width - used
        if room <= 0:
            break
        shown = _cut(text, room)
        blanks = " " * min(max(wide - len(shown), 0), room - len(shown))
        painted = paint(shown, style)
        made.append(blanks + painted if column.kind in _RIGHT else painted + blanks)
        used += len(shown) + len(blanks) + len(_GAP)
    return _GAP.join(made).rstrip()


def _cut(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    return text[: room - 1] + "…" if room > 0 else ""


# --- cells ----------------------------------------------------------------------------------------


def cell_text(value: Any, kind: Kind) -> tuple[str, Style]:
    """Return a value as text, and its style."""
    if isinstance(value, Tag):
        return visible(value.text), value.style
    if value is None:
        return Absent.NONE.value, Style.DIM
    if isinstance(value, Absent):
        return value.value, Style.DIM if value is Absent.NONE else Style.WARN
    if isinstance(value, bool):
        return ("yes" if value else "no"), Style.PLAIN
    if isinstance(value, Address):
        return hex(value), Style.PLAIN
    if isinstance(value, (list, tuple)):
        return ", ".join(cell_text(item, Kind.TEXT)[0] for item in value), Style.PLAIN
    if isinstance(value, int):
        return _number(value, kind), Style.PLAIN
    if isinstance(value, float):
        return f"{value:.1f} %" if kind is Kind.PERCENT else f"{value:g}", Style.PLAIN
    return visible(str(value)), Style.PLAIN


def _number(value: int, kind: Kind) -> str:
    if kind in (Kind.SIZE, Kind.ADDRESS):
        return hex(value)
    if kind is Kind.BYTES:
        return bytes_for_people(value)
    return str(value)


def bytes_for_people(size: int) -> str:
    """Return "132.0 KiB" for 135168; exact below 1024 bytes."""
    amount, unit = float(size), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount /= 1024
        unit += 1
    return f"{size} B" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"

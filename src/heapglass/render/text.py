"""An answer as lines of text: aligned, cut at the width, never kept whole in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from ..table import Absent, Address, Answer, Column, Facts, Kind, Lines, Raw, Style, Table, Tag
from .colour import Paint, plain
from .escape import visible
from .pieces import MOST_REMEMBERED

AT_ONCE = 512  # rows whose widths are looked at together
_NUMBERS = {int, bool, float}
_PLAIN_KINDS = {*_NUMBERS, str, type(None), Tag, Absent}
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
    lines: _Lines | None = None
    while block := list(islice(rows, AT_ONCE)):
        if lines is None:
            lines = _Lines(_used(block, columns), width, paint)
            found = lines.lines(block)
            yield lines.heading()
            yield from found
        else:
            yield from lines.lines(block)
    if lines is None and table.empty:
        yield paint(visible(table.empty), Style.DIM)


def _used(
    rows: Sequence[Sequence[Any]], columns: Sequence[tuple[int, Column]]
) -> list[tuple[int, Column]]:
    """Return the columns in which a row has something to say; all if there may be more rows."""
    if len(rows) == AT_ONCE:
        return list(columns)
    empty = ("", Absent.NONE.value)
    return [
        (number, column)
        for number, column in columns
        if any(cell_text(row[number], column.kind)[0] not in empty for row in rows)
    ]


class _Lines:
    """Puts cells side by side. A column grows where a later row has more to say."""

    def __init__(
        self, columns: Sequence[tuple[int, Column]], width: int | None, paint: Paint
    ) -> None:
        self._columns = [(number, _Texts(column.kind)) for number, column in columns]
        self._titles = [column.title for _, column in columns]
        self._right = [column.kind in _RIGHT for _, column in columns]
        self._widths = [len(title) for title in self._titles]
        self._width = width
        self._paint = paint

    def heading(self) -> str:
        """Return the line of titles."""
        cells = [(title, Style.PLAIN) for title in self._titles]
        return self._paint(self._line(cells, plain), Style.DIM)

    def lines(self, rows: Sequence[Sequence[Any]]) -> Iterator[str]:
        """Yield rows; the last cell of one is cut at the width, and others only if they must.

        Where nothing is coloured they are made column by column.
        """
        columns = [texts.of([row[number] for row in rows]) for number, texts in self._columns]
        for number, texts in enumerate(columns):
            self._widths[number] = max(self._widths[number], *map(len, texts))
        room = sum(self._widths) + len(_GAP) * (len(self._widths) - 1)
        if self._paint is plain and (self._width is None or room <= self._width):
            places = zip(columns, self._widths, self._right)
            return map(str.rstrip, map(_GAP.join, zip(*[_padded(*place) for place in places])))
        return (self._line(self._cells(row), self._paint) for row in rows)

    def _cells(self, row: Sequence[Any]) -> list[tuple[str, Style]]:
        return [cell_text(row[number], texts.kind) for number, texts in self._columns]

    def _line(self, cells: Sequence[tuple[str, Style]], paint: Paint) -> str:
        made: list[str] = []
        used, width = 0, self._width
        for (text, style), right, wide in zip(cells, self._right, self._widths):
            room = max(wide, len(text)) if width is None else width - used
            if room <= 0:
                break
            shown = _cut(text, room)
            blanks = " " * min(max(wide - len(shown), 0), room - len(shown))
            painted = paint(shown, style)
            made.append(blanks + painted if right else painted + blanks)
            used += len(shown) + len(blanks) + len(_GAP)
        return _GAP.join(made).rstrip()


def _padded(texts: Sequence[str], wide: int, right: bool) -> Sequence[str]:
    if min(map(len, texts)) == wide:
        return texts
    return [text.rjust(wide) for text in texts] if right else [text.ljust(wide) for text in texts]


class _Texts:
    """The texts of a column's values; few values come again and again, but for addresses."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._known: dict[frozenset[type], _Known] = {}

    def of(self, values: Sequence[Any]) -> list[str]:
        """Return the text of each value."""
        kinds = set(map(type, values))
        if kinds == {Address}:
            return list(map(hex, values))
        numbers = frozenset(kinds & _NUMBERS)  # 1, 1.0 and True are one key
        if not kinds <= _PLAIN_KINDS or len(numbers) > 1:
            return [cell_text(value, self.kind)[0] for value in values]
        known = self._known.setdefault(numbers, _Known(self.kind))
        return [known[value] for value in values]


class _Known(dict[Any, str]):
    """Texts by value, made when first asked for."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self._kind = kind

    def __missing__(self, value: Any) -> str:
        if len(self) >= MOST_REMEMBERED:
            self.clear()
        text = self[value] = cell_text(value, self._kind)[0]
        return text


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

"""Answers without a look: typed columns, rows, facts, problems.

A view makes an `Answer`; `render/` turns it into text or JSON. The JSON document is made from the
same parts as the text, so that both doors and both forms say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Union


class Address(int):
    """An address: `0x…` in text, the string "0x…" in JSON."""

    __slots__ = ()


class Kind(Enum):
    """What a cell is, and so how it is written in text. JSON has the value itself."""

    TEXT = "text"
    ADDRESS = "address"  # hex, left
    SIZE = "size"  # bytes in hex, right
    BYTES = "bytes"  # bytes in decimal with a binary unit for people ("132 KiB"), right
    COUNT = "count"  # decimal, right
    PERCENT = "percent"  # a float 0…100, right
    LIST = "list"  # a sequence, joined with ", "


class Style(Enum):
    """How a piece of text is meant, never the only carrier of what it says."""

    PLAIN = "plain"
    DIM = "dim"
    STRONG = "strong"
    GOOD = "good"
    NOTE = "note"
    WARN = "warn"
    BAD = "bad"
    ONE = "one"  # six hues to tell neighbours apart
    TWO = "two"
    THREE = "three"
    FOUR = "four"
    FIVE = "five"
    SIX = "six"


class Tag(NamedTuple):
    """Text with a style; JSON has the text alone."""

    text: str
    style: Style = Style.PLAIN


class Absent(Enum):
    """Why a cell is empty. JSON has null for all of them."""

    UNKNOWN = "?"  # could not be found out
    NONE = "-"  # there is none
    UNREADABLE = "unreadable"  # the memory is missing


@dataclass(frozen=True)
class Column:
    """A column of a table. *key* is its name in JSON, *title* its heading in text."""

    key: str
    title: str
    kind: Kind = Kind.TEXT
    in_text: bool = True
    in_json: bool = True


@dataclass
class Table:
    """Rows under columns. *rows* may be an iterator, made while it is printed, and is used once.

    *key* is the name of the array in the JSON document; empty: in text only.
    """

    key: str
    columns: Sequence[Column]
    rows: Iterable[Sequence[Any]]
    title: str = ""
    empty: str = ""  # said in text if there is no row


class Fact(NamedTuple):
    """One thing and its value: a line in text, a member in JSON (none if *key* is empty)."""

    key: str
    label: str
    value: Any
    kind: Kind = Kind.TEXT
    note: str = ""  # text only, behind the value


@dataclass
class Facts:
    """Label and value, line by line. With *key* an object of that name, else of the document."""

    key: str
    facts: Sequence[Fact]
    title: str = ""


@dataclass
class Data:
    """A member of the JSON document, shown in text otherwise: Address, int, str, None, lists, …"""

    key: str
    value: Any


@dataclass
class Lines:
    """Lines of styled pieces, text only. May be an iterator, used once."""

    lines: Iterable[Sequence[Tag]]
    title: str = ""


@dataclass
class Raw:
    """Text that goes out as it is (an XML document, say); in JSON a string under *key*."""

    key: str
    text: str


Part = Union[Table, Facts, Data, Lines, Raw]


@dataclass
class Answer:
    """What a command found: parts in the order of the text, and what the reader must be told.

    *warnings* may grow while rows are produced; renderers write it after the parts.
    *status* is the exit status of the shell door: 1 if a command that looks for faults found some.
    """

    command: str
    parts: list[Part] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    target: dict[str, Any] = field(default_factory=dict)
    status: int = 0

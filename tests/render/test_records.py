"""The rows of a listing alone: JSON Lines and CSV."""

from __future__ import annotations

import csv
import io
import json

import pytest

from heapglass.errors import BadRequest
from heapglass.render import listings, record_pieces
from heapglass.table import Absent, Address, Answer, Column, Facts, Kind, Table, Tag

COLUMNS = (
    Column("address", "chunk", Kind.ADDRESS),
    Column("", "note", in_json=False),
    Column("state", "state"),
    Column("list", "list", Kind.LIST),
    Column("text", "text"),
    Column("flag", "flag"),
)
ROWS = [
    (Address(0x1000), "never", Tag("used"), [Address(1), 2, None], 'a "b", c', True),
    (Address(0x2000), "never", Absent.UNKNOWN, [], "\x1b[31m\nü", False),
    (Absent.NONE, "never", None, ["x"], "", None),
]


def answer() -> Answer:
    rows = iter(ROWS)
    parts = [
        Facts("facts", []),
        Table("", COLUMNS, []),
        Table("chunks", COLUMNS, rows),
        Table("others", COLUMNS[:1], [(Address(5),)]),
    ]
    return Answer("chunks", parts, [], {})


def test_json_lines():
    text = "".join(record_pieces(answer(), "jsonl"))
    assert text.isascii()
    assert [json.loads(line) for line in text.splitlines()] == [
        {
            "address": "0x1000",
            "state": "used",
            "list": ["0x1", 2, None],
            "text": 'a "b", c',
            "flag": True,
        },
        {"address": "0x2000", "state": None, "list": [], "text": "\x1b[31m\nü", "flag": False},
        {"address": None, "state": None, "list": ["x"], "text": "", "flag": None},
    ]


def test_csv():
    text = "".join(record_pieces(answer(), "csv"))
    assert text.isascii()
    assert "\x1b" not in text
    rows = list(csv.reader(io.StringIO(text)))
    assert rows == [
        ["address", "state", "list", "text", "flag"],
        ["0x1000", "used", "0x1 2 ", 'a "b", c', "true"],
        ["0x2000", "", "", "\\u001b[31m\\n\\u00fc", "false"],
        ["", "", "x", "", ""],
    ]


def test_another_listing_by_its_name():
    assert listings(answer()) == ["chunks", "others"]
    assert "".join(record_pieces(answer(), "csv", "others")) == "address\n0x5\n"
    with pytest.raises(BadRequest, match="chunks has no listing 'nothing'") as raised:
        list(record_pieces(answer(), "csv", "nothing"))
    assert raised.value.hint == "it has chunks, others"
    with pytest.raises(BadRequest, match="vis has no listing"):
        list(record_pieces(Answer("vis", []), "jsonl"))

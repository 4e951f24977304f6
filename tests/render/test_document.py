"""Answers as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from heapglass.render import json_pieces
from heapglass.table import (
    Absent,
    Address,
    Answer,
    Column,
    Data,
    Fact,
    Facts,
    Kind,
    Lines,
    Raw,
    Table,
    Tag,
)


def document(*parts: Any, **more: Any) -> dict[str, Any]:
    made = json.loads("".join(json_pieces(Answer("bins", list(parts), **more))))
    assert isinstance(made, dict)
    return made


def test_a_document_says_what_it_is_and_whose():
    assert document(target={"abi": "x86_64", "pid": 7}) == {
        "heapglass": 1,
        "command": "bins",
        "target": {"abi": "x86_64", "pid": 7},
        "warnings": [],
    }


def test_the_order_is_that_of_the_parts_and_warnings_are_last():
    parts = [Data("b", 1), Data("a", 2)]

    assert list(document(*parts)) == ["heapglass", "command", "target", "b", "a", "warnings"]


def test_a_table_is_an_array_of_objects():
    columns = (
        Column("address", "chunk", Kind.ADDRESS),
        Column("size", "size", Kind.SIZE),
        Column("state", "state"),
        Column("", "text only", in_json=False),
        Column("none", "none"),
        Column("chunks", "chunks", Kind.LIST, in_text=False),
    )
    rows = [(Address(16), 16, Tag("used"), "…", Absent.UNKNOWN, [Address(1), [Address(2)]])]

    assert document(Table("bins", columns, rows))["bins"] == [
        {
            "address": "0x10",
            "size": 16,
            "state": "used",
            "none": None,
            "chunks": ["0x1", ["0x2"]],
        }
    ]


def test_an_empty_table_is_an_empty_array_and_one_without_a_key_is_left_out():
    tables = [Table("bins", (), []), Table("", (Column("a", "a"),), [(1,)])]

    assert document(*tables)["bins"] == []
    assert len(document(*tables)) == 5


@pytest.mark.parametrize("absent", [None, *Absent])
def test_what_is_absent_is_null(absent: object):
    assert document(Data("value", {"x": [absent]}))["value"] == {"x": [None]}


def test_facts_are_members_of_the_document_or_of_an_object():
    facts = [Fact("a", "a", Address(1), note="text only"), Fact("", "text only", 2)]
    made = document(Facts("", facts), Facts("mp_", facts), Facts("", [Fact("a", "again", 9)]))

    assert made["a"] == "0x1"
    assert made["mp_"] == {"a": "0x1"}


def test_raw_text_is_a_string_and_lines_are_left_out():
    made = document(Raw("malloc_info", "<a>\n</a>\n"), Lines([(Tag("drawn"),)]))

    assert made["malloc_info"] == "<a>\n</a>\n"
    assert len(made) == 5


def test_control_and_invalid_characters_are_escaped_and_come_back():
    evil = "\x1b[2J\n\x00\u202e\udc80é"
    text = "".join(json_pieces(Answer("find", [Data("found", evil)], [evil])))

    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text)["found"] == evil
    assert json.loads(text)["warnings"] == [evil]


def test_pieces_are_made_while_rows_are_taken():
    taken = []

    def rows() -> Iterator[tuple[int]]:
        for number in range(1_000_000):
            taken.append(number)
            yield (number,)

    pieces = json_pieces(Answer("x", [Table("rows", (Column("n", "n"),), rows())]))
    while not taken or taken[-1] < 5:
        next(pieces)

    assert len(taken) == 6


def test_warnings_made_with_the_rows_are_there_once_each():
    warnings = ["early"]

    def rows() -> Iterator[tuple[int]]:
        warnings.extend(["late", "early"])
        yield (1,)

    made = document(Table("rows", (Column("n", "n"),), rows()), warnings=warnings)

    assert made["warnings"] == ["early", "late"]


def test_a_value_that_json_cannot_have_is_refused():
    with pytest.raises(TypeError, match="no JSON for object"):
        document(Data("x", object()))

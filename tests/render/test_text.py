"""Answers as text: aligned, cut at the width, nothing of a target steers the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapglass.render import in_blocks, text_lines
from heapglass.render.colour import ansi, wants_colour
from heapglass.render.text import AT_ONCE, bytes_for_people, cell_text
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
    Style,
    Table,
    Tag,
)

COLUMNS = (
    Column("address", "chunk", Kind.ADDRESS),
    Column("size", "size", Kind.SIZE),
    Column("note", "note"),
)
ROWS = [(Address(0x5000), 0x20, "first"), (Address(0x123450), 0x1000, "second and last")]


def shown(*parts: object, width: int | None = None, warnings: list[str] | None = None) -> list[str]:
    answer = Answer("chunks", list(parts), warnings or [])  # type: ignore[arg-type]
    return list(text_lines(answer, width))


def test_columns_stand_under_each_other_numbers_to_the_right():
    assert shown(Table("chunks", COLUMNS, ROWS)) == [
        "chunk       size  note",
        "0x5000      0x20  first",
        "0x123450  0x1000  second and last",
    ]


def test_the_last_column_is_cut_at_the_width_and_no_line_is_longer():
    lines = shown(Table("chunks", COLUMNS, ROWS), width=25)

    assert lines[-1] == "0x123450  0x1000  second…"
    assert max(map(len, lines)) == 25
    for width in range(1, 40):
        assert max(map(len, shown(Table("chunks", COLUMNS, ROWS), width=width))) <= width


def test_without_a_width_nothing_is_cut():
    long = "x" * 5000

    assert shown(Table("", COLUMNS, [(Address(0), 0, long)]))[-1].endswith(long)


def test_rows_are_taken_while_lines_are_made():
    taken = 0

    def rows() -> Iterator[tuple[object, ...]]:
        nonlocal taken
        for number in range(1_000_000):
            taken = number
            yield (Address(number), 16, "")

    lines = text_lines(Answer("chunks", [Table("chunks", COLUMNS, rows())]))
    for _ in range(10):
        next(lines)

    assert taken == AT_ONCE - 1


def test_a_column_grows_when_a_later_row_needs_it():
    rows = [(Address(1), 1, "a")] * AT_ONCE + [(Address(1), 1 << 40, "a"), (Address(1), 1, "b")]
    lines = shown(Table("chunks", COLUMNS, rows))

    assert lines[AT_ONCE].index("a") < lines[AT_ONCE + 1].index("a")
    assert lines[AT_ONCE + 1].index("a") == lines[AT_ONCE + 2].index("b")


VALUES = st.one_of(
    st.sampled_from([None, True, False, 0, 1, 1.0, 0.0, *Absent]),
    st.integers(-5, 1 << 70),
    st.text(max_size=6),
    st.integers(0, 1 << 64).map(Address),
    st.sampled_from(["used", "\x1b[2J"]).map(lambda text: Tag(text, Style.BAD)),
    st.lists(st.integers(0, 9), max_size=3),
)


@given(
    st.sampled_from([Kind.TEXT, Kind.SIZE, Kind.BYTES, Kind.COUNT, Kind.ADDRESS]),
    st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=40),
)
def test_a_column_made_at_once_says_what_each_cell_says(kind: Kind, rows: list[tuple[Any, Any]]):
    columns = (Column("one", "one", kind), Column("two", "two"))
    rows = [("says", "something"), *rows]  # a column that says nothing is left out
    answer = Answer("x", [Table("", columns, rows)])

    at_once = list(text_lines(answer))
    line_by_line = list(text_lines(answer, paint=lambda text, _: text))

    assert at_once == line_by_line
    for line, row in zip(at_once[1:], rows):
        said = [cell_text(row[0], kind)[0], cell_text(row[1], Kind.TEXT)[0]]
        assert line.split() == " ".join(said).split()


def test_text_goes_out_in_blocks_that_grow():
    blocks = list(in_blocks(str(number % 10) for number in range(5000)))

    assert [len(block) for block in blocks[:11]] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512]
    assert "".join(blocks) == "0123456789" * 500


def test_a_column_with_nothing_to_say_is_left_out():
    rows = [(Address(1), Absent.NONE, ""), (Address(2), None, "")]

    assert shown(Table("chunks", COLUMNS, rows)) == ["chunk", "0x1", "0x2"]


def test_columns_of_json_only_are_not_shown():
    hidden = Column("index", "index", Kind.COUNT, in_text=False)

    assert shown(Table("x", (*COLUMNS[:1], hidden), [(Address(1), 99)])) == ["chunk", "0x1"]


def test_an_empty_table_says_so():
    assert shown(Table("chunks", COLUMNS, [], empty="no chunk")) == ["no chunk"]
    assert shown(Table("chunks", COLUMNS, [], title="never seen")) == []


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (Address(0x10), Kind.TEXT, "0x10"),
        (0x10, Kind.ADDRESS, "0x10"),
        (0x10, Kind.SIZE, "0x10"),
        (16, Kind.COUNT, "16"),
        (-16, Kind.SIZE, "-0x10"),
        (135168, Kind.BYTES, "132.0 KiB"),
        (12.345, Kind.PERCENT, "12.3 %"),
        (0.5, Kind.TEXT, "0.5"),
        ([Address(1), "b", 3], Kind.LIST, "0x1, b, 3"),
        (True, Kind.TEXT, "yes"),
        (False, Kind.TEXT, "no"),
        (None, Kind.SIZE, "-"),
        (Absent.NONE, Kind.SIZE, "-"),
        (Absent.UNKNOWN, Kind.SIZE, "?"),
        (Absent.UNREADABLE, Kind.TEXT, "unreadable"),
        (Tag("used", Style.GOOD), Kind.TEXT, "used"),
        ("", Kind.TEXT, ""),
    ],
)
def test_a_cell_is_written_by_its_kind(value: object, kind: Kind, text: str):
    assert shown(Facts("", [Fact("key", "label", value, kind)])) == [f"label  {text}".rstrip()]


def test_bytes_for_people_keep_what_is_exact():
    assert [bytes_for_people(size) for size in (0, 1023, 1024, 1 << 20, 1 << 62, 1 << 80)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.0 MiB",
        "4096.0 PiB",
        "1073741824.0 PiB",
    ]


def test_facts_are_aligned_and_their_notes_cut_first():
    facts = [Fact("a", "short", "value", note="behind it"), Fact("b", "much longer", 1)]

    assert shown(Facts("", facts)) == ["short        value  behind it", "much longer  1"]
    assert shown(Facts("", facts), width=22)[0] == "short        value  b…"
    assert shown(Facts("", [Fact("json only", "", 1)])) == []


def test_lines_are_pieces_side_by_side_cut_at_the_width():
    lines = [(Tag("ab", Style.ONE), Tag("cdef")), ()]

    assert shown(Lines(lines)) == ["abcdef", ""]
    assert shown(Lines(lines), width=4) == ["abc…", ""]


def test_titles_and_blank_lines_stand_between_parts():
    parts = [
        Facts("", [Fact("a", "a", 1)], title="first"),
        Table("x", COLUMNS, [], title="left out"),
        Table("y", COLUMNS[:1], [(Address(1),)], title="second"),
        Data("z", 3),
    ]

    assert shown(*parts) == ["first", "a  1", "", "second", "chunk", "0x1"]


def test_raw_text_goes_out_as_it_is():
    assert shown(Raw("xml", "<a>\n  <b/>\n</a>\n"), width=3) == ["<a>", "  <b/>", "</a>"]


def test_warnings_come_last_also_those_made_with_the_rows_and_once_each():
    warnings = ["early"]

    def rows() -> Iterator[tuple[object, ...]]:
        warnings.extend(["late", "early"])
        yield (Address(1), 2, "x")

    lines = shown(Table("chunks", COLUMNS, rows()), warnings=warnings)

    assert lines[-2:] == ["! early", "! late"]


EVIL = "\x1b[2Jx\r\n\t\x00\x7f\x9b\u202e\u2066\udc80\u2028\U000e0041"
HARMLESS = (
    r"\x1b[2Jx\x0d\x0a\x09\x00\x7f\x9b\u202e\u2066\udc80\u2028\U000e0041"  # each where it stood
)


@pytest.mark.parametrize(
    "part",
    [
        Table("t", COLUMNS[2:], [(EVIL,)], title=EVIL),
        Table("t", COLUMNS[2:], [(Tag(EVIL),)]),
        Table("t", (Column("l", "l", Kind.LIST),), [([EVIL],)]),
        Table("t", COLUMNS, [], empty=EVIL),
        Facts("", [Fact("a", EVIL, EVIL, note=EVIL)], title=EVIL),
        Lines([(Tag(EVIL),)], title=EVIL),
    ],
)
def test_nothing_of_a_target_steers_the_terminal(part: object):
    lines = shown(part, warnings=[EVIL])

    assert HARMLESS in "".join(lines)
    assert all(char.isprintable() for line in lines for char in line)


def test_text_that_is_only_foreign_stays_as_it_is():
    assert shown(Table("t", COLUMNS[2:], [("Grüße 世界",)]))[-1] == "Grüße 世界"


def test_colour_is_around_the_text_and_says_nothing_that_the_text_does_not():
    table = Table("t", COLUMNS[2:], [(Tag("used", Style.GOOD),), ("plain",)])
    coloured = list(text_lines(Answer("x", [table], ["careful"]), None, ansi))

    assert coloured[1:] == ["\x1b[32mused\x1b[0m", "plain", "\x1b[33m! careful\x1b[0m"]


def test_colour_does_not_count_for_the_width():
    rows = [(Tag("used", Style.GOOD), "x"), (Tag("f", Style.NOTE), "y")]
    columns = (Column("a", "a"), Column("b", "b"))
    plain = shown(Table("t", columns, rows))
    coloured = text_lines(Answer("x", [Table("t", columns, rows)]), 80, ansi)

    stripped = [line.replace("\x1b[0m", "") for line in coloured]
    for code in ("\x1b[2m", "\x1b[32m", "\x1b[36m"):
        stripped = [line.replace(code, "") for line in stripped]
    assert stripped == plain


@pytest.mark.parametrize(
    ("choice", "terminal", "environment", "wanted"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", True, {"TERM": "dumb"}, False),
        ("always", False, {"NO_COLOR": "1", "TERM": "dumb"}, True),
        ("never", True, {}, False),
    ],
)
def test_when_colours_are_wanted(
    choice: str, terminal: bool, environment: dict[str, str], wanted: bool
):
    assert wants_colour(choice, terminal, environment) is wanted


def test_every_style_has_a_colour():
    for style in Style:
        assert "x" in ansi("x", style)
    assert ansi("", Style.BAD) == ""

"""The language of --where: what it means, and what it refuses."""

from __future__ import annotations

import pytest

from heapglass.analysis.where import compile_where
from heapglass.errors import BadRequest

ROW = {
    "address": 0x1000,
    "user": 0x1010,
    "size": 0x30,
    "usable": 0x28,
    "flags": "P",
    "state": "used",
    "bin": None,
    "arena": 0x7000,
    "thread": None,
    "owner": None,
}


def holds(text):
    where = compile_where(text)
    return all(test(ROW) for test in (*where.of_pair, *where.of_chunk))


@pytest.mark.parametrize(
    "text",
    [
        "size == 0x30",
        "size > 0x20 and state == 'used'",
        "state != 'free' or size < 1",
        "not (size < 48)",
        "0x20 < size <= 0x30",
        "address % 0x1000 == 0",
        "user - address == 16",
        "size & 0x10",
        "'P' in flags",
        "state in 'used free'",
        "-size < 0",
        "size * 2 == 96 and size // 2 == 24 and size ^ 0x30 == 0 and size | 1 == 0x31",
    ],
)
def test_what_holds(text):
    assert holds(text)


@pytest.mark.parametrize(
    "text", ["size == 1", "thread == 7", "thread != 7", "bin < 3", "size % 0 == 0", "size < 'a'"]
)
def test_what_does_not_hold_and_what_is_not_known(text):
    assert not holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "size >",
        "nosuch == 1",
        "__import__('os')",
        "size.real",
        "size ** 9999",
        "1 << 99999999",
        "[x for x in flags]",
        "lambda: 1",
        "size if 1 else 2",
        "f'{size}'",
        "1.5 < size",
        "9" * 200,
        "size is None",
        "(" * 500,
        "\0",
    ],
)
def test_what_is_refused_in_one_line_with_a_hint(text):
    with pytest.raises(BadRequest) as caught:
        compile_where(text)

    assert "--where" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "names: address" in caught.value.hint


def test_numbers_stay_small():
    text = "size" + " * 0xffffffffffffffff" * 50 + " >= 0"

    assert holds(text)


@pytest.mark.parametrize(
    ("text", "of_pair", "of_chunk"),
    [
        ("size > 1 and state == 'used' and address > 2", 2, 1),
        ("(size > 1 and 'P' in flags) and (bin == 'fast' and usable < 9)", 3, 1),
        ("size > 1 or address > 2", 0, 1),
        ("size > address", 0, 1),
        ("not (size > 1 and owner == 'tcache')", 0, 1),
        ("arena == 7", 1, 0),
    ],
)
def test_what_is_asked_of_kinds_and_what_of_each_chunk(text, of_pair, of_chunk):
    where = compile_where(text)
    assert (len(where.of_pair), len(where.of_chunk)) == (of_pair, of_chunk)

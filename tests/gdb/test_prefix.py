"""`heapglass` and `hg` always; `heap` only where nobody else has it."""

from __future__ import annotations

import pytest

from tests.gdb.sessions import LOAD, OTHERS, batch

GEF = f"source {OTHERS / 'takes_heap.py'}"
PWNDBG = f"source {OTHERS / 'minds_heap.py'}"
LINE = "heapglass: `heap` belongs to another extension; use `heapglass` or `hg`"
ASK = "size 24 --glibc 2.36"


def test_alone_it_has_three_prefixes_with_one_answer():
    said = batch([LOAD, f"heapglass {ASK}", f"hg {ASK}", f"heap {ASK}"])

    assert said.err == ""
    third = len(said.out) // 3
    assert said.out[:third] == said.out[third : 2 * third] == said.out[2 * third :]
    assert "chunk size" in said.out


@pytest.mark.parametrize("order", [(GEF, LOAD), (LOAD, GEF)], ids=["before", "after"])
def test_an_extension_with_commands_under_heap_stays_whole(order):
    said = batch([*order, "heap", "heap chunks", f"hg {ASK}", f"heapglass {ASK}"])

    assert said.out.startswith("the other extension's heap\nthe other extension's chunks\n")
    assert said.out.count("chunk size") == 2
    assert said.err.count(LINE) == 1
    assert "Error" not in said.err


@pytest.mark.parametrize("order", [(PWNDBG, LOAD), (LOAD, PWNDBG)], ids=["before", "after"])
def test_an_extension_that_looks_for_taken_names_starts_and_stays_whole(order):
    said = batch([*order, "heap", f"hg {ASK}", f"heapglass {ASK}"])

    assert said.out.startswith("the other extension's heap\n")
    assert said.out.count("chunk size") == 2
    assert said.err.count(LINE) == 1
    assert "Exception" not in said.err


def test_the_line_about_heap_is_not_in_the_answer():
    said = batch([LOAD, GEF, f"hg {ASK} --json"])

    assert said.out.startswith('{"heapglass": 1')
    assert LINE in said.err


def test_heap_is_taken_on_purpose():
    taken = batch([GEF, LOAD, "set heapglass prefix heap", f"heap {ASK}", "help heap chunks"])
    kept = batch([GEF, LOAD, "set heapglass prefix auto", "heap chunks"])

    assert "chunk size" in taken.out
    assert "heap chunks [START]" in taken.out
    assert kept.out == "the other extension's chunks\n"


def test_the_prefix_is_one_of_two():
    said = batch([LOAD, "set heapglass prefix hip", "show heapglass prefix"])

    assert 'Undefined item: "hip"' in said.err
    assert "auto" in said.out


def test_a_short_name_that_somebody_has_stays_theirs():
    said = batch(["alias hg = echo", LOAD, "hg theirs\\n", f"heap {ASK}"])

    assert said.out.startswith("theirs\n")
    assert "chunk size" in said.out


def test_sourcing_twice_is_sourcing_once():
    said = batch([LOAD, "set heapglass limit 3", "set heapglass color never", LOAD, f"heap {ASK}"])
    settings = batch(
        [LOAD, "set heapglass limit 3", LOAD, "show heapglass limit", "show heapglass color"]
    )

    assert said.err == ""
    assert said.out.count("chunk size") == 1
    assert settings.out.splitlines() == [
        "How many rows a listing shows: 3.",
        "When to use colours: auto.",
    ]


def test_sourcing_again_brings_what_has_changed():
    """The second time it is new code that runs and that checks settings."""
    lines = [
        *(LOAD, "python import heapglass.errors as first", LOAD, "set heapglass glibc new"),
        "python import heapglass.errors as second; print(first is second)",
        *("set heapglass prefix heap", LOAD, LOAD, f"heap {ASK}", f"heapglass {ASK}"),
    ]
    said = batch(lines)

    assert "no glibc release in 'new'" in said.err
    assert "Python Exception" not in said.err
    assert said.out.startswith("False\n")
    assert said.out.count("chunk size") == 2


def test_sourcing_twice_with_another_extension_says_so_each_time():
    said = batch([LOAD, GEF, LOAD, "heap chunks"])

    assert said.out == "the other extension's chunks\n"
    assert said.err.count(LINE) == 1

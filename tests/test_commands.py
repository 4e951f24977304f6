"""COMMANDS and the parser that both doors use; the page that is made from them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from heapglass.arguments import (
    COMMON,
    completions,
    evaluate,
    find_command,
    first_plain,
    help_text,
    parse,
    takes_value,
    typed,
    usage,
)
from heapglass.commands import COMMANDS, Argument, Command
from heapglass.errors import BadRequest
from heapglass.table import Answer
from heapglass.views import View

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference.md"
IDS = [command.name for command in COMMANDS]


def view(*_: object) -> Answer:
    return Answer("made")


MADE = Command(
    "made",
    "a command made for these tests",
    view,
    (
        Argument("start", "an address", "address"),
        Argument("kind", "a kind", choices=("tcache", "fast")),
        Argument("--from", "an address", "address"),
        Argument("--where", "a text"),
        Argument("--sort", "an order", choices=("size", "-size")),
        Argument("--top-most", "a number", "number", metavar="N"),
        Argument("--name", "a text, again and again", many=True),
        Argument("--raw", "a flag, 100 %", "flag"),
    ),
    help="More words. " * 20,
    examples=("made 1 fast",),
)


# --- COMMANDS -------------------------------------------------------------------------------------


def test_names_are_unique_and_lower_case():
    assert len(set(IDS)) == len(IDS)
    assert all(name == name.lower() and name.isidentifier() for name in IDS)


@pytest.mark.parametrize("command", COMMANDS, ids=IDS)
def test_every_command_says_what_it_does(command: Command):
    assert command.summary == command.summary.strip()
    assert "\n" not in command.summary
    assert not command.summary.endswith(".")
    assert len(command.summary) <= 85
    view = command.view
    assert isinstance(view, View)
    assert getattr(import_module(f"heapglass.views.{view.module}"), view.name).__doc__
    for argument in command.arguments:
        assert argument.help
        assert argument.kind in ("text", "address", "number", "flag", "rest")
        assert not argument.choices or argument.kind == "text"


def test_commands_are_known_without_their_views():
    script = (
        "import sys, heapglass.commands\n"
        "print(*[n for n in sys.modules if n.startswith('heapglass.') or n == 'elftools'])"
    )
    words = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {
        *("heapglass.commands", "heapglass.table", "heapglass.views"),
    }


@pytest.mark.parametrize("command", COMMANDS, ids=IDS)
def test_every_example_can_be_parsed(command: Command):
    assert command.examples
    for example in command.examples:
        name, *words = shlex.split(example)
        assert name == command.name
        parse(command, words)


@pytest.mark.parametrize("command", COMMANDS, ids=IDS)
def test_no_option_hides_one_that_every_command_has(command: Command):
    names = [argument.name for argument in (*command.arguments, *COMMON)]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize("command", COMMANDS, ids=IDS)
def test_every_command_is_on_the_page(command: Command):
    page = PAGE.read_text()
    section = page.split(f"\n## {command.name}\n")[1].split("\n## ")[0]

    assert usage(command, "heapglass" if command.door == "shell" else "heap") in section
    assert f"$ heapglass {command.name} " in section or command.door
    for argument in command.arguments:
        assert f"- `{typed(argument)}`: {argument.help}" in section


def test_the_page_is_up_to_date():
    done = subprocess.run(
        [sys.executable, "tools/make_docs.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src", "HEAPGLASS_NATIVE": "1"},  # `info` says which loops
        check=False,
    )

    assert done.returncode == 0, "run `make docs`"


def test_words_behind_two_dashes_are_kept_as_they_are():
    (record,) = (command for command in COMMANDS if command.name == "record")
    request = parse(record, ["-o", "t", "--", "ls", "--json", "--", "-o"])

    assert request.program == ["ls", "--json", "--", "-o"]
    assert (request.o, request.json) == ("t", False)
    assert parse(record, ["-o", "t"]).program == []


# --- words ----------------------------------------------------------------------------------------


def test_a_request_has_every_argument_and_what_the_doors_need():
    request = parse(MADE, [])

    texts = ("start", "kind", "from", "where", "sort", "top_most", "name")
    doors = {"json": False, "color": None, "limit": None, "all": False, "width": None}
    doors = {**doors, "format": None, "table": None, "evaluate": evaluate}
    assert vars(request) == {**dict.fromkeys(texts), "raw": False, **doors}


@pytest.mark.parametrize(
    "line",
    [
        "0x10 fast --raw --from 32 --top-most 3 --sort -size --name a --name b",
        "--raw 0x10 --from=0x20 --sort=-size fast --name a --top-most 3 --name b",
        "--from 32 --name a 16 --sort -size --name b --top-most=3 fast --raw",
    ],
)
def test_options_stand_anywhere(line: str):
    request = parse(MADE, line.split())

    assert (request.start, request.kind, request.raw) == (16, "fast", True)
    assert (getattr(request, "from"), request.top_most, request.sort) == (32, 3, "-size")
    assert request.name == ["a", "b"]


@pytest.mark.parametrize("word", ["-1", "-0x1", "-0X1"])
def test_a_negative_number_is_a_value(word: str):
    assert parse(MADE, [word]).start == -1
    assert getattr(parse(MADE, ["--from", word]), "from") == -1


def test_addresses_and_numbers_go_through_the_door():
    seen: list[str] = []

    def convert(text: str) -> int:
        seen.append(text)
        return len(seen)

    request = parse(MADE, ["p->next", "--from", "q + 1", "--where", "size > 1"], convert)

    assert sorted(seen) == ["p->next", "q + 1"]
    assert request.where == "size > 1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 fast 2", "made: unrecognized arguments: 2"),
        ("1 slow", "made: argument kind: invalid choice: 'slow'"),
        ("--nothing", "made: unrecognized arguments: --nothing"),
        ("--ra", "made: unrecognized arguments: --ra"),
        ("--from", "made: argument --from: expected one argument"),
        ("--limit -1", "--limit -1: must not be negative"),
        ("--limit 0x", "'0x' is no number"),
        ("ten", "'ten' is no number"),
        ("--raw=1", "made: argument --raw: ignored explicit argument '1'"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(line: str, message: str):
    with pytest.raises(BadRequest) as caught:
        parse(MADE, line.split())

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value) + caught.value.hint
    if str(caught.value).startswith("made: "):
        assert caught.value.hint == f"usage: {usage(MADE)}"


@pytest.mark.parametrize(
    ("text", "number"),
    [("10", 10), ("010", 10), ("0x10", 16), ("-0x10", -16), (" 7 ", 7), ("1_000", 1000)],
)
def test_numbers(text: str, number: int):
    assert evaluate(text) == number


@pytest.mark.parametrize("text", ["", "x", "0xg", "1.5", "²", "1 2", "--1", "1e3"])
def test_what_is_no_number(text: str):
    with pytest.raises(BadRequest, match="is no number"):
        evaluate(text)


def test_an_unknown_command_is_suggested_or_all_are_named():
    with pytest.raises(BadRequest) as near:
        find_command("chunsk")
    with pytest.raises(BadRequest) as far:
        find_command("xyz")

    assert near.value.hint in ("did you mean chunks?", "did you mean chunk?")
    assert far.value.hint == f"commands: {', '.join(IDS)}"


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("", None),
        ("--raw", None),
        ("core", 0),
        ("--raw core", 1),
        ("--where core more", 2),
        ("--where=size core", 1),
        ("--where", None),
        ("-1 core", 1),
    ],
)
def test_the_first_word_that_is_no_option(line: str, place: int | None):
    assert first_plain(line.split(), takes_value(MADE.arguments)) == place


# --- help and completion --------------------------------------------------------------------------


def test_usage_and_help():
    assert usage(MADE, "heap") == (
        "heap made [START] [KIND] [--from ADDR] [--where WHERE] [--sort size|-size] [--top-most N]"
        " [--name NAME] [--raw]"
    )
    lines = help_text(MADE, "heap").splitlines()

    assert lines[0] == "A command made for these tests."
    assert lines[2] == usage(MADE, "heap")
    assert "  START                     an address" in lines
    assert "  --raw                     a flag, 100 %" in lines
    assert "  --limit N                 rows of a listing" in lines
    assert lines[-1] == "  heap made 1 fast"
    assert max(map(len, lines[3:])) <= 90


@pytest.mark.parametrize(
    ("before", "last", "expected"),
    [
        ("", "", None),
        ("", "p->n", None),
        ("", "--na", ["--name"]),
        ("", "--", [*(a.name for a in (*MADE.arguments[2:], *COMMON))]),
        ("1", "", ["tcache", "fast"]),
        ("1", "f", ["fast"]),
        ("1 fast", "", [*(a.name for a in (*MADE.arguments[2:], *COMMON))]),
        ("--raw 1", "t", ["tcache"]),
        ("--from", "p", None),
        ("--from 1 2", "", ["tcache", "fast"]),
        ("--sort", "", ["size", "-size"]),
        ("--sort", "-", ["-size"]),
        ("--color", "n", ["never"]),
        ("--where", "s", []),
    ],
)
def test_completion(before: str, last: str, expected: list[str] | None):
    assert completions(MADE, before.split(), last) == expected

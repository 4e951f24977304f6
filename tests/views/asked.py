"""A command asked of a heap made by hand: its answer as the JSON document and as text."""

from __future__ import annotations

import json
import shlex
from typing import Any

from heapglass.arguments import find_command, parse
from heapglass.commands import ask
from heapglass.heap.target import Target
from heapglass.render import json_pieces, text_lines
from heapglass.table import Answer


def _words(line: str) -> list[str]:
    """Return the words of a line; with double quotes a word may have blanks."""
    return shlex.split(line) if '"' in line else [word for word in line.split(" ") if word]


def answer_of(target: Target | None, line: str) -> Answer:
    """Return what a command line answers, before it is rendered."""
    name, *words = _words(line)
    command = find_command(name)
    return ask(command, target, parse(command, words))


def document(target: Target | None, line: str) -> dict[str, Any]:
    """Return the JSON document of a command line such as "chunks --state free"."""
    name, *words = _words(line)
    command = find_command(name)
    request = parse(command, [*words, "--json"])
    found: dict[str, Any] = json.loads("".join(json_pieces(ask(command, target, request))))
    return found


def lines(target: Target | None, line: str) -> list[str]:
    """Return the lines of text of a command line."""
    return list(text_lines(answer_of(target, line)))

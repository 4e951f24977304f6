"""A command asked of a heap made by hand: its answer as the JSON document and as text."""

from __future__ import annotations

import json
from typing import Any

from heapglass.arguments import find_command, parse
from heapglass.commands import ask
from heapglass.heap.target import Target
from heapglass.render import json_pieces, text_lines


def document(target: Target | None, line: str) -> dict[str, Any]:
    """Return the JSON document of a command line such as "chunks --state free"."""
    name, *words = line.split(" ")
    command = find_command(name)
    request = parse(command, [*[word for word in words if word], "--json"])
    found: dict[str, Any] = json.loads("".join(json_pieces(ask(command, target, request))))
    return found


def lines(target: Target | None, line: str) -> list[str]:
    """Return the lines of text of a command line."""
    name, *words = line.split(" ")
    command = find_command(name)
    request = parse(command, [word for word in words if word])
    return list(text_lines(ask(command, target, request)))

"""COMMANDS: every command once, for gdb, the shell, help, completion and the docs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .table import Answer

Evaluate = Callable[[str], int]


@dataclass(frozen=True)
class Argument:
    """A positional (no dashes in *name*) or an option of a command.

    *kind*: "address" and "number" go through the door's evaluator (decimal, 0x hex; in gdb any
    expression), "text" is kept, "flag" is there or not. *choices* restricts "text".
    """

    name: str
    help: str
    kind: str = "text"
    required: bool = False
    choices: tuple[str, ...] = ()
    metavar: str = ""
    many: bool = False  # an option that may be repeated


@dataclass(frozen=True)
class Command:
    """A command: its name, arguments, view and help."""

    name: str
    summary: str  # one line
    view: Callable[..., Answer]
    arguments: tuple[Argument, ...] = ()
    help: str = ""  # more than the line, plain text
    examples: tuple[str, ...] = ()  # as typed behind `heap`
    needs_target: bool = True

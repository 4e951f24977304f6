"""COMMANDS as gdb commands: words in, lines through gdb's pager out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gdb

from heapglass.arguments import COMMON, Request, evaluate, help_text, parse
from heapglass.commands import Command
from heapglass.errors import BadRequest, HeapglassError
from heapglass.locate import locate
from heapglass.render import json_pieces, text_lines
from heapglass.render.colour import ansi, plain, wants_colour
from heapglass.render.escape import visible
from heapglass.table import Answer

from .parameters import Settings
from .source import NO_TARGET, open_source


class HeapCommand(gdb.Command):
    """A command of heapglass, as gdb wants it."""

    def __init__(self, prefix: str, command: Command, settings: Settings) -> None:
        self._command = command
        self._settings = settings
        self.__doc__ = help_text(command, prefix)  # before gdb reads it, in __init__
        super().__init__(f"{prefix} {command.name}", gdb.COMMAND_DATA)

    def invoke(self, line: str, _from_tty: bool) -> None:
        """Run the command; every failure is one line."""
        self.dont_repeat()
        try:
            self._run(line)
        except HeapglassError as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise gdb.GdbError(visible(f"{error}{hint}")) from error
        except KeyboardInterrupt:
            raise gdb.GdbError("Quit") from None

    def complete(self, text: str, word: str) -> Any:
        """Complete options by name, all else as an expression."""
        last = text.split(" ")[-1]
        if last.startswith("-"):
            names = [a.name for a in (*self._command.arguments, *COMMON) if a.name.startswith("-")]
            start = last[: len(last) - len(word)]
            return [n[len(start) :] for n in names if n.startswith(last)]
        return gdb.COMPLETE_EXPRESSION

    def _run(self, line: str) -> None:
        words = gdb.string_to_argv(line)
        if "--help" in words or "-h" in words:
            gdb.write(f"{self.__doc__}\n")
            return
        request = parse(self._command, _joined(self._command, words), evaluate_in_gdb)
        if request.limit is None:
            request.limit = self._settings.limit
        answer = self._command.view(self._target(), request)
        for text in _output(answer, request, self._settings):
            gdb.write(text)

    def _target(self) -> Any:
        """Return the located target; None if the command can do without one and there is none."""
        try:
            return locate(open_source(), self._settings.overrides())
        except HeapglassError as error:
            if not self._command.needs_target and str(error) == NO_TARGET:
                return None
            raise


def _joined(command: Command, words: list[str]) -> list[str]:
    """Make one word of an expression with blanks, where a command takes a single positional."""
    positionals = [a for a in command.arguments if not a.name.startswith("-")]
    if len(positionals) != 1:
        return words
    valued = {
        a.name for a in (*command.arguments, *COMMON) if a.kind != "flag" and a.name[:1] == "-"
    }
    options: list[str] = []
    expression: list[str] = []
    queue = iter(words)
    for word in queue:
        if word in valued:
            options += [word, *list(next(queue, "").splitlines())]
        elif word.startswith("--"):
            options.append(word)
        else:
            expression.append(word)
    return [*options, " ".join(expression)] if expression else options


def _output(answer: Answer, request: Request, settings: Settings) -> Iterator[str]:
    """Yield the pieces of text that the command prints."""
    if request.json:
        yield from json_pieces(answer)
        return
    styled = bool(gdb.parameter("style enabled")) and os.isatty(1)
    choice = request.color or settings.color
    paint = ansi if wants_colour(choice, styled, os.environ) else plain
    width = gdb.parameter("width")
    for line in text_lines(answer, width or None, paint):
        yield line + "\n"


# --- expressions ----------------------------------------------------------------------------------


def evaluate_in_gdb(text: str) -> int:
    """Return the number that an expression of the program's language means.

    Nothing is called and nothing is written in the program by it.

    :raises BadRequest: if it cannot be evaluated.
    """
    try:
        return evaluate(text)
    except BadRequest:
        pass
    try:
        with _harmless():
            return _number(gdb.parse_and_eval(text))
    except gdb.error as error:
        raise BadRequest(f"{text}: {error}") from error


def _number(value: gdb.Value) -> int:
    kind = value.type.strip_typedefs()
    if kind.code in (gdb.TYPE_CODE_ARRAY, gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        value = value.address
    if kind.code in (gdb.TYPE_CODE_REF, gdb.TYPE_CODE_RVALUE_REF):
        value = value.referenced_value()
    return int(value)


@contextmanager
def _harmless() -> Iterator[None]:
    """Keep an expression from calling into the program or writing to it."""
    changed = []
    for name in ("may-call-functions", "may-write-memory", "may-write-registers"):
        try:
            if gdb.parameter(name):
                gdb.execute(f"set {name} off", to_string=True)
                changed.append(name)
        except (gdb.error, RuntimeError):
            continue  # a gdb without this setting
    try:
        yield
    finally:
        for name in changed:
            gdb.execute(f"set {name} on", to_string=True)

"""The words of a command, parsed the same way for both doors; usage and help from COMMANDS."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from .commands import COMMANDS, Argument, Command
from .errors import BadRequest

Evaluate = Callable[[str], int]
COLOURS = ("auto", "always", "never")
COMMON = (
    Argument("--json", "one JSON document, nothing else", "flag"),
    Argument("--color", "colours in text", choices=COLOURS),
    Argument("--limit", "rows of a listing", "number", metavar="N"),
    Argument("--all", "the whole listing; for bins also the empty ones", "flag"),
)
Request = argparse.Namespace


def evaluate(text: str) -> int:
    """Return the number that a user typed: decimal or 0x hex, maybe negative.

    :raises BadRequest: if it is neither.
    """
    try:
        return int(text.replace("_", ""), 0) if not text.lstrip("-+").isdigit() else int(text)
    except ValueError as error:
        raise BadRequest(f"{text!r} is no number", "give it in decimal or as 0x hex") from error


def find_command(name: str) -> Command:
    """Return the command of this name.

    :raises BadRequest: if there is none; suggests what was meant.
    """
    for command in COMMANDS:
        if command.name == name:
            return command
    names = [command.name for command in COMMANDS]
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"commands: {', '.join(names)}"
    raise BadRequest(f"no command {name!r}", hint)


class _Parser(argparse.ArgumentParser):
    """A parser that raises instead of printing and leaving."""

    said = ""  # the usage, for the hint

    def error(self, message: str) -> NoReturn:
        raise BadRequest(f"{self.prog}: {message}", self.said)


def parser(command: Command, convert: Evaluate = evaluate) -> argparse.ArgumentParser:
    """Return the parser of a command; *convert* turns addresses and numbers into integers."""
    made = _Parser(prog=command.name, add_help=False, allow_abbrev=False)
    made.said = f"usage: {usage(command)}"
    for argument in (*command.arguments, *COMMON):
        _add(made, argument, convert)
    return made


def _add(made: argparse.ArgumentParser, argument: Argument, convert: Evaluate) -> None:
    words: dict[str, Any] = {"help": argument.help.replace("%", "%%")}
    option = argument.name.startswith("-")
    if argument.kind == "flag":
        words["action"] = "store_true"
    else:
        if argument.kind in ("address", "number"):
            words["type"] = _converter(convert, argument)
        if argument.choices:
            words["choices"] = argument.choices
        if argument.metavar or option:
            words["metavar"] = argument.metavar or argument.name.lstrip("-").upper()
        if argument.many:
            words["action"] = "append"
        if not option and not argument.required:
            words["nargs"] = "?"
    made.add_argument(argument.name, **words)


def _converter(convert: Evaluate, argument: Argument) -> Callable[[str], int]:
    """Wrap *convert*: its error is the message, and addresses and counts are not negative."""

    def apply(text: str) -> int:
        value = convert(text)
        if value < 0 and argument.name in _NOT_NEGATIVE:
            raise BadRequest(f"{argument.name} {text}: must not be negative")
        return value

    return apply


_NOT_NEGATIVE = {"--limit", "--top", "--count", "--back", "--min", "--max", "count"}


def parse(command: Command, words: Sequence[str], convert: Evaluate = evaluate) -> Request:
    """Return a command's request: an attribute for each argument, dashes as underscores.

    :raises BadRequest: if the words make no sense; one line, the usage as hint.
    """
    return parser(command, convert).parse_args(list(words))


# --- help -----------------------------------------------------------------------------------------


def usage(command: Command, before: str = "heap") -> str:
    """Return a line such as `heap chunk ADDRESS [--as-chunk] …`."""
    words = [before, command.name]
    for argument in command.arguments:
        shown = _shown(argument)
        words.append(shown if argument.required else f"[{shown}]")
    return " ".join(words)


def _shown(argument: Argument) -> str:
    value = argument.metavar or argument.name.lstrip("-").upper()
    if not argument.name.startswith("-"):
        return value
    if argument.kind == "flag":
        return argument.name
    return f"{argument.name} {'|'.join(argument.choices) if argument.choices else value}"


def help_text(command: Command, before: str = "heap") -> str:
    """Return a command's help: summary, usage, every argument, more, examples."""
    lines = [f"{command.summary[0].upper()}{command.summary[1:]}.", "", usage(command, before), ""]
    lines += _argument_lines((*command.arguments, *COMMON))
    if command.help:
        lines += ["", *_wrapped(command.help)]
    if command.examples:
        lines += ["", "Examples:", *(f"  {before} {example}" for example in command.examples)]
    return "\n".join(lines)


def _argument_lines(arguments: Iterable[Argument]) -> list[str]:
    shown = [(_shown(argument), argument.help) for argument in arguments]
    width = min(max(len(name) for name, _ in shown), 24)
    return [
        f"  {name:<{width}}  {said}" if len(name) <= width else f"  {name}\n  {'':<{width}}  {said}"
        for name, said in shown
    ]


def _wrapped(text: str, width: int = 78) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) + 1 > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]

"""The words of a command, parsed the same way for both doors; usage and help from COMMANDS."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn

from .commands import COMMANDS, Argument, Command
from .errors import BadRequest

Evaluate = Callable[[str], int]
COLOURS = ("auto", "always", "never")
COMMON = (
    Argument("--json", "one JSON document, nothing else", "flag"),
    Argument(
        "--format",
        "a listing alone, one row a line",
        choices=("jsonl", "csv"),
    ),
    Argument("--table", "with --format: which one, as JSON names it", metavar="NAME"),
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
        if argument.kind != "rest":
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
            words["metavar"] = _value_name(argument)
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


_NEGATIVE_HEX = re.compile(r"-0[xX][0-9a-fA-F]+")
_NOT_NEGATIVE = {"--limit", "--top", "--count", "--back", "--min", "--max", "count"}


def parse(command: Command, words: Sequence[str], convert: Evaluate = evaluate) -> Request:
    """Return a command's request: an attribute for each argument, dashes as underscores.

    Options may stand before, behind and between the positionals. Beside the command's own, the
    request has json (also set by --format), format, table, color, limit, all, evaluate (*convert*),
    and width (columns of the terminal, None: no limit), which a door sets.

    :raises BadRequest: if the words make no sense; one line, the usage as hint.
    """
    rest = next((a.name for a in command.arguments if a.kind == "rest"), "")
    words, behind = split_rest(words) if rest else (words, [])
    words = _glued(words, takes_value((*command.arguments, *COMMON)))
    # argparse knows decimal negative numbers only; with a blank, a word is no option.
    words = [f" {word}" if _NEGATIVE_HEX.fullmatch(word) else word for word in words]
    request = parser(command, convert).parse_intermixed_args(words)
    if request.table and not request.format:
        raise BadRequest("--table needs --format", "--format jsonl --table NAME")
    request.json = request.json or request.format is not None
    request.width = None
    request.evaluate = convert
    if rest:
        setattr(request, rest, behind)
    return request


def split_rest(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words before the first `--`, and those behind it."""
    at = list(words).index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def _glued(words: Sequence[str], valued: Collection[str]) -> list[str]:
    """Make one word of an option and a value such as `-size`, which argparse takes for options."""
    glued: list[str] = []
    for word in words:
        if glued and glued[-1] in valued and word.startswith("-") and not word.startswith("--"):
            glued[-1] = f"{glued[-1]}={word}"
        else:
            glued.append(word)
    return glued


def takes_value(arguments: Iterable[Argument]) -> set[str]:
    """Return the names of the options whose value is the next word."""
    return {a.name for a in arguments if a.name.startswith("-") and a.kind != "flag"}


def first_plain(words: Sequence[str], valued: Collection[str]) -> int | None:
    """Return where the first word stands that is neither an option nor the value of one.

    *valued*: options whose value is the next word. None if there is no such word.
    """
    skip = False
    for number, word in enumerate(words):
        if skip:
            skip = False
        elif word.startswith("-") and word != "-":
            skip = word in valued
        else:
            return number
    return None


def completions(command: Command, before: Sequence[str], last: str) -> list[str] | None:
    """Return what *last*, the word behind *before*, can become; None: an address or a number.

    Options where a dash was typed, else the choices of the option or positional it stands for.
    """
    arguments = (*command.arguments, *COMMON)
    argument = _stands_for(command, before)
    if argument is None or (last.startswith("-") and before[-1:] != [argument.name]):
        return [a.name for a in arguments if a.name.startswith("-") and a.name.startswith(last)]
    if argument.kind in ("address", "number"):
        return None
    return [choice for choice in argument.choices if choice.startswith(last)]


def _stands_for(command: Command, before: Sequence[str]) -> Argument | None:
    """Return the argument that the word behind *before* is for; None if none is left."""
    arguments = (*command.arguments, *COMMON)
    valued = takes_value(arguments)
    if before and before[-1] in valued:
        return next(a for a in arguments if a.name == before[-1])
    positionals = [a for a in command.arguments if not a.name.startswith("-")]
    rest, plain = list(before), 0
    while (found := first_plain(rest, valued)) is not None:
        rest, plain = rest[found + 1 :], plain + 1
    return positionals[plain] if plain < len(positionals) else None


# --- help -----------------------------------------------------------------------------------------


def usage(command: Command, before: str = "heapglass") -> str:
    """Return a line such as `heap chunk ADDRESS [--as-chunk] …`."""
    words = [before, command.name]
    for argument in command.arguments:
        shown = typed(argument)
        words.append(shown if argument.required else f"[{shown}]")
    return " ".join(words)


def typed(argument: Argument) -> str:
    """Return an argument as it is typed: `ADDRESS`, `--limit N`, `--color auto|always|never`."""
    if argument.kind == "rest":
        return f"-- {_value_name(argument)} …"
    if not argument.name.startswith("-"):
        return _value_name(argument)
    if argument.kind == "flag":
        return argument.name
    return f"{argument.name} {'|'.join(argument.choices) or _value_name(argument)}"


def _value_name(argument: Argument) -> str:
    """Return what stands for the value in usage and help."""
    own = argument.name.lstrip("-").upper()
    if argument.metavar or not argument.name.startswith("-"):
        return argument.metavar or own
    return {"address": "ADDR", "number": "N"}.get(argument.kind, own)


def help_text(command: Command, before: str = "heapglass") -> str:
    """Return a command's help: summary, usage, every argument, more, examples."""
    lines = [f"{command.summary[0].upper()}{command.summary[1:]}.", "", usage(command, before), ""]
    lines += _argument_lines((*command.arguments, *COMMON))
    if command.help:
        lines += ["", *_wrapped(command.help)]
    if command.examples:
        lines += ["", "Examples:", *(f"  {before} {example}" for example in command.examples)]
    return "\n".join(lines)


def _argument_lines(arguments: Iterable[Argument]) -> list[str]:
    shown = [(typed(argument), argument.help) for argument in arguments]
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

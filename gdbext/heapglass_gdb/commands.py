"""COMMANDS as gdb commands: words in, lines through gdb's pager out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gdb

from heapglass.arguments import (
    COMMON,
    Request,
    completions,
    find_command,
    help_text,
    parse,
    takes_value,
)
from heapglass.commands import COMMANDS, Command, ask
from heapglass.errors import BadRequest, HeapglassError
from heapglass.progress import Progress
from heapglass.render import in_blocks, json_pieces, record_pieces, text_lines
from heapglass.render.colour import ansi, plain, wants_colour
from heapglass.render.escape import visible
from heapglass.table import Answer

from .expressions import evaluate_in_gdb
from .kept import kept
from .parameters import Settings
from .printed import GdbTypes
from .stopped import NO_TARGET, Stopped
from .threads import selected_thread

if TYPE_CHECKING:
    from heapglass.heap.target import Target

    from .source import GdbSource


def _trace(request: Request) -> Answer:
    from .tracing import tracing

    return tracing().answer(request)


def _origins(block: int) -> list[tuple[str, str]]:
    """Who gave a block and who took it back, if anything is recorded."""
    if f"{__package__}.tracing" not in sys.modules:
        return []
    from .tracing import tracing

    return tracing().origins(block)


# What only gdb can do.
OWN: dict[str, Callable[[Request], Answer]] = {"trace": _trace}
DEBUG = "HEAPGLASS_DEBUG"  # in the environment: a fault of heapglass is shown as Python has it


class HeapCommand(gdb.Command):
    """A command of heapglass, as gdb wants it. What it does is looked up, each time, in *table*.

    gdb keeps it for good: gdb 16 and later crash when a command under a prefix is defined anew.
    """

    def __init__(self, name: str, table: dict[str, Runner]) -> None:
        self._name = name
        self._table = table
        self.__doc__ = table[name].help  # before gdb reads it, in __init__
        super().__init__(name, gdb.COMMAND_DATA)

    def invoke(self, line: str, _from_tty: bool) -> None:
        """Run the command."""
        self.dont_repeat()
        self._table[self._name].run(line)

    def complete(self, text: str, word: str | None) -> Any:
        """Complete options and choices by name, addresses and numbers as expressions."""
        return self._table[self._name].complete(text, word)


class Runner:
    """What a command does. *notice* is called first, each time."""

    def __init__(
        self,
        prefix: str,
        command: Command,
        settings: Settings,
        stopped: Stopped,
        notice: Callable[[], None],
    ) -> None:
        self._command = command
        self._settings = settings
        self._stopped = stopped
        self._notice = notice
        self.help = help_text(command, prefix)

    def run(self, line: str) -> None:
        """Run the command; every failure is one line."""
        self._notice()
        try:
            self._run(line)
        except HeapglassError as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise gdb.GdbError(visible(f"{error}{hint}")) from error
        except KeyboardInterrupt:
            raise gdb.GdbError("Quit") from None
        except gdb.error as error:
            raise gdb.GdbError(visible(str(error))) from error
        except Exception as error:
            self._stopped.drop()
            if os.environ.get(DEBUG):
                raise
            said = visible(f"a fault in heapglass: {type(error).__name__}: {error}")
            raise gdb.GdbError(f"{said} ({DEBUG}=1 shows where; please report)") from error

    def complete(self, text: str, word: str | None) -> Any:
        """Return how *text* can go on. *word*: what gdb replaces, None when it only asks where."""
        *before, last = text.split(" ")
        found = completions(self._command, [typed for typed in before if typed], last)
        if found is None:
            return gdb.COMPLETE_EXPRESSION
        start = len(last) - len(word or "")  # gdb replaces what is behind the last dash or such
        return [name[start:] for name in found]

    def _run(self, line: str) -> None:
        words = gdb.string_to_argv(line)
        if "--help" in words or "-h" in words:
            gdb.write(f"{self.help}\n")
            return
        request = self._request(words)
        with Progress(sys.__stderr__) as progress:  # gdb's own is for its main thread alone
            answer = self._ask(request, progress)
            for text in in_blocks(_output(answer, request, self._settings)):
                progress.stop()
                gdb.write(text)
        for warning in dict.fromkeys(answer.warnings) if request.format else ():
            gdb.write(f"heapglass: {visible(warning)}\n", gdb.STDERR)

    def _ask(self, request: Request, progress: Progress) -> Answer:
        if self._command.door == "gdb":
            return OWN[self._command.name](request)
        return ask(self._command, self._target(progress), request)

    def _request(self, words: list[str]) -> Request:
        request = parse(self._command, _joined(self._command, words), evaluate_in_gdb)
        if request.limit is None and not request.all and not request.json:
            request.limit = self._settings.limit
        request.width = gdb.parameter("width") or None
        request.open = self._opened
        return request

    def _target(self, progress: Progress) -> Target | None:
        source = self._source()
        if source is None:
            return None
        from heapglass.locate import locate  # with the first command, not with gdb

        target = locate(source, self._settings.overrides())
        target.tools = {"gdb": gdb.VERSION}
        target.types = GdbTypes()
        target.current = selected_thread()
        target.origins = _origins
        target.kept = kept("snapshots")
        target.report = progress
        return target

    @contextmanager
    def _opened(self, spec: str) -> Iterator[Target]:
        """Open and locate a target that a command names itself."""
        from heapglass.locate import locate
        from heapglass.targets import open_target

        from .source import open_options

        with open_target(spec, open_options()) as source:
            yield locate(source, self._settings.overrides())

    def _source(self) -> GdbSource | None:
        """Return the target; None if the command can do without one and there is none."""
        try:
            return self._stopped.open(self._settings.memory_limit)
        except HeapglassError as error:
            if not self._command.needs_target and str(error) == NO_TARGET:
                return None
            raise


class Prefix(gdb.Command):
    """The prefix of all commands; alone it lists them. *said* is its help."""

    def __init__(self, name: str, said: str) -> None:
        self._name = name
        self.__doc__ = said
        super().__init__(name, gdb.COMMAND_DATA, gdb.COMPLETE_COMMAND, True)

    def invoke(self, line: str, _from_tty: bool) -> None:
        """Say what there is, or that what was asked for is not."""
        self.dont_repeat()
        words = line.split()
        if not words:
            gdb.write(f"{self.__doc__}\n\n")
            for command in (one for one in COMMANDS if one.door != "shell"):
                gdb.write(f"  {command.name:<9} {command.summary}\n")
            return
        try:
            command = find_command(words[0])
            raise BadRequest(f"{command.name} works in a shell", f"heapglass {command.name} --help")
        except HeapglassError as error:
            raise gdb.GdbError(visible(f"heapglass: {error} ({error.hint})")) from error


def _joined(command: Command, words: list[str]) -> list[str]:
    """Make one word of an expression with blanks, where a command takes a single positional."""
    if len([a for a in command.arguments if not a.name.startswith("-")]) != 1:
        return words
    valued = takes_value((*command.arguments, *COMMON))
    options: list[str] = []
    expression: list[str] = []
    queue = iter(words)
    for word in queue:
        if word in valued:
            options += [word, *(value for value in [next(queue, None)] if value is not None)]
        elif word.startswith("--") and word != "--":
            options.append(word)
        else:
            expression.append(word)
    return [*options, " ".join(expression)] if expression else options


def _output(answer: Answer, request: Request, settings: Settings) -> Iterator[str]:
    """Yield the pieces of text that the command prints."""
    if request.format:
        yield from record_pieces(answer, request.format, request.table)
        return
    if request.json:
        yield from json_pieces(answer)
        return
    styled = bool(gdb.parameter("style enabled")) and os.isatty(1)
    coloured = wants_colour(request.color or settings.color, styled, os.environ)
    for line in text_lines(answer, request.width, ansi if coloured else plain):
        yield line + "\n"

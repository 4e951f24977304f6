"""The shell door: `heapglass NAME TARGET [arguments]`. The one place that prints."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from . import __version__
from .arguments import (
    COMMON,
    evaluate,
    find_command,
    first_plain,
    help_text,
    parse,
    split_rest,
    takes_value,
)
from .commands import COMMANDS, Command, ask
from .errors import BadRequest, HeapglassError
from .locate import Overrides, locate
from .progress import Progress
from .render import in_blocks, json_pieces, record_pieces, text_lines
from .render.colour import ansi, plain, wants_colour
from .render.escape import visible
from .table import Answer
from .targets import OpenOptions, open_target

UNUSABLE = 2  # exit status: the request or the target cannot be used
INTERRUPTED = 130
DEBUG = "HEAPGLASS_DEBUG"  # set: a fault of heapglass itself is shown with where it happened

USAGE = """\
usage: heapglass NAME TARGET [arguments]

Reads the heap of a glibc process or core. TARGET is a core file (plain, .gz, .xz, .zst, .lz4)
or a process id.

commands:
{commands}

where the files of the dead machine are:
  --exe FILE          the program itself
  --sysroot DIR       where the target's paths are looked up
  --debug-dir DIR     separate debug files (default /usr/lib/debug; may be given again)
  --memory-limit N    bytes of a process that are in memory at once; a larger heap is read in
                      windows (without: a quarter of this machine's memory)
  --unpack-limit N    bytes that a compressed core may unpack to

what is known better than can be found:
  --glibc VERSION     the release, 2.23 to 2.44
  --main-arena ADDR   where main_arena is
  --mp ADDR           where mp_ is
  --tcache THREAD=ADDR  a thread's tcache (may be given again)

heapglass NAME --help tells more of a command; heapglass --version, --completion bash|zsh.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 1 if it found faults, 2 if it could not run."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may know fewer characters than we use
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(list(sys.argv[1:] if words is None else words))
    except HeapglassError as error:
        _say(error)
        return UNUSABLE
    except BrokenPipeError:
        _drop_output()  # whoever read it has gone
        return 0
    except KeyboardInterrupt:
        _drop_output()
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        _say(unforeseen(error))
        return UNUSABLE


def unforeseen(error: Exception) -> HeapglassError:
    """Return what a user reads of a fault of heapglass itself, or of a lack of memory."""
    if isinstance(error, MemoryError):
        return HeapglassError("there is not enough memory for this", "narrow it, or use --limit")
    said = f"{type(error).__name__}: {error}"
    return HeapglassError(f"a fault in heapglass: {said}", f"{DEBUG}=1 shows where; please report")


def _say(error: HeapglassError) -> None:
    hint = f" ({error.hint})" if error.hint else ""
    line = visible(f"heapglass: {error}{hint}".replace("\n", " "))
    if sys.stderr is not None:
        print(line, file=sys.stderr)


def _drop_output() -> None:
    """Let what is not yet written go to nowhere: Python would try once more, and complain."""
    if sys.stdout is not None:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(text: str, flush: bool = False) -> None:
    """Write to standard output.

    :raises BadRequest: if it cannot be written: a full disk, a closed output.
    """
    if sys.stdout is None:
        raise BadRequest("cannot write the answer: standard output is closed")
    try:
        sys.stdout.write(text)
        if flush:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise BadRequest(f"cannot write the answer: {error.strerror}") from error


def _run(words: list[str]) -> int:
    valued = {*_TARGET_OPTIONS, *takes_value(COMMON)}
    at = first_plain(words, valued)
    said = _said(split_rest(words)[0], at)
    if said is not None:
        _write(said, flush=True)
        return 0
    if at is None:
        raise BadRequest("no command was given", "heapglass --help lists them")
    command, rest = find_command(words[at]), words[:at] + words[at + 1 :]
    return _answer(command, rest)


def _said(words: Sequence[str], at: int | None) -> str | None:
    """Return what is said without a target: help, version, completion; None if it is a command."""
    name = words[at] if at is not None else ""
    if name == "help" or (at is None and _HELP.intersection(words)):
        following = words[at + 1 :] if at is not None else []
        if not following:
            return USAGE.format(commands=_command_lines())
        return help_text(find_command(following[0]), "heapglass") + "\n"
    if "--completion" in words[:at]:
        return completion(name or "bash")
    if at is None:
        return f"heapglass {__version__}\n" if "--version" in words else None
    if _HELP.intersection(words):
        return help_text(find_command(name), "heapglass") + "\n"
    return None


_HELP = {"-h", "--help"}


def _command_lines() -> str:
    return "\n".join(f"  {command.name:<10} {command.summary}" for command in COMMANDS)


# --- options --------------------------------------------------------------------------------


@dataclass
class _Options:
    """Where files are, and what the user knows better."""

    open: OpenOptions
    overrides: Overrides


_TARGET_OPTIONS = (
    "--exe",
    "--sysroot",
    "--debug-dir",
    "--memory-limit",
    "--unpack-limit",
    "--glibc",
    "--main-arena",
    "--mp",
    "--tcache",
)


def _target_options(words: list[str], own: Collection[str]) -> tuple[_Options, list[str]]:
    """Take the options of the shell door out of the words, wherever they stand.

    *own*: names that the command has for itself (`size --glibc`).
    """
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    queue = iter(words)
    for word in queue:
        name, equals, value = word.partition("=")
        if name not in _TARGET_OPTIONS or name in own:
            rest.append(word)
            continue
        if not equals:
            following = next(queue, None)
            if following is None:
                raise BadRequest(f"{name} needs a value", "heapglass --help")
            value = following
        found.setdefault(name, []).append(value)
    return _options(found), rest


def _options(found: dict[str, list[str]]) -> _Options:
    def last(name: str) -> str:
        return found.get(name, [""])[-1]

    def number(name: str) -> int | None:
        return evaluate(last(name)) if last(name) else None

    default = OpenOptions()
    opened = OpenOptions(
        exe=last("--exe"),
        sysroot=last("--sysroot"),
        debug_dirs=tuple(found.get("--debug-dir", default.debug_dirs)),
        memory_limit=number("--memory-limit"),
        unpack_limit=number("--unpack-limit"),
    )
    overrides = Overrides(
        glibc=last("--glibc") or None,
        main_arena=number("--main-arena"),
        mp=number("--mp"),
        tcaches=dict(_tcache(text) for text in found.get("--tcache", [])),
    )
    return _Options(opened, overrides)


def _tcache(text: str) -> tuple[int, int]:
    thread, equals, address = text.partition("=")
    if not equals:
        raise BadRequest(f"--tcache {text}: expected THREAD=ADDR", "--tcache 1234=0x55555555a010")
    return evaluate(thread), evaluate(address)


# --- answers --------------------------------------------------------------------------------


def _answer(command: Command, words: list[str]) -> int:
    words, behind = split_rest(words)
    options, words = _target_options(words, [argument.name for argument in command.arguments])
    words += ["--", *behind] if behind else []
    if not command.needs_target:
        request = _parse(command, words)
        request.open = partial(_opened, options)
        return _show(ask(command, None, request), request)
    at = first_plain(words, takes_value((*command.arguments, *COMMON)))
    if at is None:
        example = f"heapglass {command.name} CORE (or a process id)"
        raise BadRequest(f"{command.name} needs a target", example)
    request = _parse(command, words[:at] + words[at + 1 :])
    with Progress(sys.stderr) as progress:
        opened = replace(options.open, report=progress)
        with open_target(words[at], opened) as source:
            target = locate(source, options.overrides)
            target.report = progress
            return _show(ask(command, target, request), request, progress)


@contextmanager
def _opened(options: _Options, spec: str) -> Iterator[Any]:
    """Open and locate a target that a command names itself."""
    with open_target(spec, options.open) as source:
        yield locate(source, options.overrides)


def _parse(command: Command, words: Sequence[str]) -> argparse.Namespace:
    request = parse(command, words)
    if sys.stdout is not None and sys.stdout.isatty():
        request.width = shutil.get_terminal_size().columns
    return request


def _show(answer: Answer, request: argparse.Namespace, progress: Progress | None = None) -> int:
    for piece in in_blocks(_pieces(answer, request)):
        if progress is not None and sys.stdout is not None and sys.stdout.isatty():
            progress.stop()
        _write(piece)
    _write("", flush=True)
    if request.format:
        for text in dict.fromkeys(answer.warnings):
            _say(HeapglassError(text))
    return answer.status


def _pieces(answer: Answer, request: argparse.Namespace) -> Iterator[str]:
    if request.format:
        return record_pieces(answer, request.format, request.table)
    return json_pieces(answer) if request.json else _text(answer, request)


def _text(answer: Answer, request: argparse.Namespace) -> Iterator[str]:
    terminal = sys.stdout is not None and sys.stdout.isatty()
    coloured = wants_colour(request.color or "auto", terminal, os.environ)
    for line in text_lines(answer, request.width, ansi if coloured else plain):
        yield line + "\n"


def completion(shell: str) -> str:
    """Return a completion script for a shell, made from COMMANDS.

    :raises BadRequest: for a shell that is not known.
    """
    if shell not in ("bash", "zsh"):
        raise BadRequest(f"no completion for {shell!r}", "--completion bash or zsh")
    names = " ".join(command.name for command in COMMANDS)
    cases = "\n".join(
        f'    {command.name}) words="{_option_words(command)}" ;;' for command in COMMANDS
    )
    script = _BASH.format(names=names, cases=cases, options=" ".join(_TARGET_OPTIONS))
    return script if shell == "bash" else f"autoload -U +X bashcompinit && bashcompinit\n{script}"


def _option_words(command: Command) -> str:
    own = [argument.name for argument in command.arguments if argument.name.startswith("-")]
    return " ".join([*own, *(argument.name for argument in COMMON)])


_BASH = """\
_heapglass() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ] && [[ "$current" != -* ]]; then
    COMPREPLY=($(compgen -W "{names}" -- "$current"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "$current" in
    -*) COMPREPLY=($(compgen -W "$words {options}" -- "$current")) ;;
    *) COMPREPLY=($(compgen -f -- "$current")) ;;
  esac
}}
complete -F _heapglass heapglass
"""

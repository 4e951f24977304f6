"""The shell door: `heapglass NAME TARGET [arguments]`. The one place that prints."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import __version__
from .arguments import evaluate, find_command, help_text, parse
from .commands import COMMANDS, Command
from .errors import BadRequest, HeapglassError
from .locate import Overrides, locate
from .render import json_pieces, text_lines
from .render.colour import ansi, plain, wants_colour
from .render.escape import visible
from .table import Answer
from .targets import OpenOptions, open_target

UNUSABLE = 2  # exit status: the request or the target cannot be used
INTERRUPTED = 130

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
  --unpack-limit N    bytes that a compressed core may unpack to

what is known better than can be found:
  --glibc VERSION     the release, 2.23 to 2.44
  --main-arena ADDR   where main_arena is
  --mp ADDR           where mp_ is
  --tcache THREAD=ADDR  a thread's tcache (may be given again)

heapglass NAME --help tells more of a command; heapglass --version, --completion bash.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 1 if it found faults, 2 if it could not run."""
    try:
        return _run(list(sys.argv[1:] if words is None else words))
    except HeapglassError as error:
        _say(error)
        return UNUSABLE
    except BrokenPipeError:
        # Whoever read our output has gone; nothing of what is left can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        _say(BadRequest(f"cannot write the answer: {error.strerror}"))
        return UNUSABLE


def _say(error: HeapglassError) -> None:
    hint = f" ({error.hint})" if error.hint else ""
    line = visible(f"heapglass: {error}{hint}".replace("\n", " "))
    print(line, file=sys.stderr)


def _run(words: list[str]) -> int:
    options, rest = _target_options(words)
    if not rest or rest[0] in ("-h", "--help", "help"):
        print(USAGE.format(commands=_command_lines()), end="")
        return 0 if rest else UNUSABLE
    if rest[0] == "--version":
        print(f"heapglass {__version__}")
        return 0
    if rest[0] == "--completion":
        print(completion(rest[1] if len(rest) > 1 else "bash"), end="")
        return 0
    command, rest = find_command(rest[0]), rest[1:]
    if "--help" in rest or "-h" in rest:
        print(help_text(command, "heapglass"))
        return 0
    return _answer(command, rest, options)


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
    "--unpack-limit",
    "--glibc",
    "--main-arena",
    "--mp",
    "--tcache",
)


def _target_options(words: list[str]) -> tuple[_Options, list[str]]:
    """Take the options of the shell door out of the words, wherever they stand."""
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    queue = iter(words)
    for word in queue:
        name, equals, value = word.partition("=")
        if name not in _TARGET_OPTIONS or (name == "--glibc" and _belongs_to_size(words)):
            rest.append(word)
            continue
        if not equals:
            following = next(queue, None)
            if following is None:
                raise BadRequest(f"{name} needs a value", "heapglass --help")
            value = following
        found.setdefault(name, []).append(value)
    return _options(found), rest


def _belongs_to_size(words: Sequence[str]) -> bool:
    """Whether --glibc is an argument of a command that needs no target."""
    names = {command.name for command in COMMANDS if not command.needs_target}
    return bool(words) and words[0] in names


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


def _answer(command: Command, words: list[str], options: _Options) -> int:
    if not command.needs_target:
        request = parse(command, words)
        return _show(command.view(None, request), request)
    spec, words = _spec(command, words)
    request = parse(command, words)
    with open_target(spec, options.open) as source:
        answer = command.view(locate(source, options.overrides), request)
        return _show(answer, request)


def _spec(command: Command, words: list[str]) -> tuple[str, list[str]]:
    """Return the target and the other words: it is the first that is no option."""
    for number, word in enumerate(words):
        if not word.startswith("-"):
            return word, words[:number] + words[number + 1 :]
    raise BadRequest(
        f"{command.name} needs a target", f"heapglass {command.name} CORE (or a process id)"
    )


def _show(answer: Answer, request: argparse.Namespace) -> int:
    if request.json:
        for piece in json_pieces(answer):
            sys.stdout.write(piece)
    else:
        for line in _text(answer, request):
            sys.stdout.write(line + "\n")
    sys.stdout.flush()
    return answer.status


def _text(answer: Answer, request: argparse.Namespace) -> Iterator[str]:
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else None
    coloured = wants_colour(request.color or "auto", terminal, os.environ)
    return text_lines(answer, width, ansi if coloured else plain)


def completion(shell: str) -> str:
    """Return a completion script for a shell, made from COMMANDS.

    :raises BadRequest: for a shell that is not known.
    """
    if shell != "bash":
        raise BadRequest(f"no completion for {shell!r}", "--completion bash (zsh: bashcompinit)")
    names = " ".join(command.name for command in COMMANDS)
    cases = "\n".join(
        f'    {command.name}) words="{_option_words(command)}" ;;' for command in COMMANDS
    )
    return _BASH.format(names=names, cases=cases, options=" ".join(_TARGET_OPTIONS))


def _option_words(command: Command) -> str:
    own = [argument.name for argument in command.arguments if argument.name.startswith("-")]
    return " ".join([*own, "--json", "--color", "--limit", "--all"])


_BASH = """\
_heapglass() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
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

"""Writes docs/reference.md from COMMANDS, with the real output of every command.

The output is what the shell door prints of small cores of this repository, so that it is the same
on every machine. `--check` writes nothing and ends with 1 if the page is not up to date.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from heapglass import cli
from heapglass.arguments import COMMON, typed, usage
from heapglass.commands import COMMANDS, Argument, Command

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference.md"
FOUND = 1  # the exit status of a command that looks for faults and found some
LINES = 24  # of an output that are shown
WIDTH = 118


class Sample(NamedTuple):
    """A call whose output is shown; *core* is the name of a small core, empty: none is needed."""

    words: tuple[str, ...]
    core: str = "2.36-amd64-threads"
    note: str = ""


SAMPLES: dict[str, tuple[Sample, ...]] = {
    "info": (Sample(()),),
    "arenas": (Sample(()),),
    "heaps": (Sample((), "2.36-amd64-foreign", "A foreign `sbrk` left the main heap in pieces:"),),
    "chunks": (
        Sample(("--limit", "8")),
        Sample(("--state", "free", "--min", "0x400", "--top", "5"), "2.36-amd64-bins"),
        Sample(("--where", 'size > 0x4000 and state == "used"'), "2.36-amd64-bins"),
    ),
    "chunk": (Sample(("0x5555555652e8",)),),
    "bins": (
        Sample((), "2.36-amd64-bins"),
        Sample(("large",), "2.43-amd64-bins", "glibc 2.43 has no fast bins; its large bins:"),
    ),
    "tcache": (Sample(("--thread", "15040")),),
    "params": (Sample(()),),
    "mmapped": (Sample((), "2.36-amd64-mmapped"),),
    "find": (Sample(("0x5555555652e0",)), Sample(("--into", "0x5555555652e0"))),
    "whatis": (Sample(("0x5555555652e8",)),),
    "size": (
        Sample(("24", "--glibc", "2.36", "--abi", "x86_64"), ""),
        Sample(("24", "--glibc", "2.42", "--abi", "i386"), ""),
    ),
    "link": (Sample(("0x5555555652e0",)), Sample(("--word", "0x55500000c7f9"))),
    "stats": (Sample(("--limit", "8")), Sample(("--malloc-info",), "2.36-amd64-mmapped")),
    "map": (Sample(("--columns", "48"), "2.36-amd64-bins"),),
    "check": (
        Sample(("fixtures/damage/overflow.jsonl",), "", "A string that is too long for its block:"),
        Sample(()),
    ),
    "explain": (
        Sample(
            ("fixtures/damage/overflow.jsonl", "--message", "double free or corruption (out)"),
            "",
            "The same heap, after `free` of the second block ended the program:",
        ),
    ),
    "leaks": (Sample(("--limit", "4")),),
    "refs": (
        Sample(("0x5555555652e0",)),
        Sample(
            ("0x7ffff00008e0", "--path", "--tree"),
        ),
    ),
    "export": (Sample(("-o", "tables", "--as", "csv", "--only", "chunks,bins,arenas")),),
    "types": (Sample(("--limit", "6")),),
    "try": (
        Sample(("a = malloc 0x500; free a; free a",), "2.36-amd64-bins"),
        Sample(("free 0x5555555652e0; malloc 300000; thread new: malloc 24",)),
    ),
    "snapshot": (Sample(("-o", "before.snap")),),
    "diff": (
        Sample(
            (
                "fixtures/cores/2.36-amd64-bins.core.xz",
                "fixtures/cores/2.36-amd64-mmapped.core.xz",
                *("--limit", "8", "--debug-dir", "fixtures/debug", "--sysroot", "/nonexistent"),
            ),
            "",
        ),
    ),
    "verify": (Sample(()),),
    "vis": (Sample(("0x5555555652d0", "3")),),
    "replay": (
        Sample(("fixtures/traces/2.36/random-1.jsonl.xz",), "", "What a real 2.36 answered:"),
    ),
}

INTRODUCTION = """\
# Commands

In gdb: `heap NAME …`, or `heapglass NAME …`, or `hg NAME …`, on the process or core that gdb has
open. In the shell: `heapglass NAME TARGET …`, where TARGET is a core file or a process id.

Numbers are decimal or 0x hex; in gdb any expression of the program's language. An expression with
blanks needs quotes where a command takes more than one word.

What is not known is `?`, what is not there is `-`. Lines that begin with `!` are warnings.

Every command has these options:

{common}

The shell door has more, which say where the files of the dead machine are and what is known better
than it can be found: `heapglass --help`. In gdb these are settings: `help set heapglass`.

The outputs below are of the small cores in `fixtures/cores`; the options that say where their files
are have been left out. This page is made by `make docs`.
"""


def page() -> str:
    """Return the whole page."""
    common = "\n".join(_bullets(COMMON))
    parts = [INTRODUCTION.format(common=common), _contents()]
    return "\n".join([*parts, *(_section(command) for command in COMMANDS)])


def _bullets(arguments: Iterable[Argument]) -> list[str]:
    return [f"- `{typed(argument)}`: {argument.help}" for argument in arguments]


def _contents() -> str:
    rows = [f"| [`{c.name}`](#{c.name}) | {c.summary} |" for c in COMMANDS]
    return "\n".join(["| command | shows |", "| --- | --- |", *rows, ""])


def _examples(command: Command, examples: Iterable[str]) -> list[str]:
    return [f"    {_prefix(command)} {example}" for example in examples]


def _prefix(command: Command) -> str:
    return "heapglass" if command.door == "shell" else "heap"


def _section(command: Command) -> str:
    lines = [f"## {command.name}", "", f"{command.summary[0].upper()}{command.summary[1:]}.", ""]
    lines += [f"    {usage(command, _prefix(command))}", ""]
    lines += _bullets(command.arguments)
    if command.arguments:
        lines.append("")
    if command.help:
        lines += [command.help, ""]
    examples = [example for example in command.examples if example != command.name]
    if examples:
        lines += ["For example:", "", *_examples(command, examples), ""]
    for sample in () if command.door else SAMPLES[command.name]:
        lines += _shown(command, sample)
    return "\n".join(lines)


def _shown(command: Command, sample: Sample) -> list[str]:
    output = run(command.name, sample).rstrip("\n").split("\n")
    if len(output) > LINES:
        output = [*output[: LINES - 1], f"[… {len(output) - LINES + 1} more lines]"]
    quoted = [f"'{word}'" if " " in word else word for word in sample.words]
    core = ["core"] if sample.core else []
    line = " ".join(["heapglass", command.name, *core, *quoted])
    note = [sample.note, ""] if sample.note else []
    return [*note, "```", f"$ {line}", *map(_cut, output), "```", ""]


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def run(name: str, sample: Sample) -> str:
    """Return what the shell door prints.

    :raises ValueError: if it could not answer.
    """
    here = [str(ROOT / w) if w.startswith("fixtures/") else w for w in sample.words]
    words = [name, *([_core(sample)] if sample.core else []), *here]
    if sample.core:
        debug = str(ROOT / "fixtures" / "debug")
        release = sample.core.split("-")[0]
        words += ["--debug-dir", debug, "--sysroot", "/nonexistent", "--glibc", release]
    out, err = io.StringIO(), io.StringIO()
    with _elsewhere(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(words)
    if status > FOUND:
        raise ValueError(f"{' '.join(words)}: {err.getvalue()}")
    return out.getvalue().replace(f"{ROOT}/", "")


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Be in a folder of its own meanwhile: a command may write files."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _core(sample: Sample) -> str:
    return str(ROOT / "fixtures" / "cores" / f"{sample.core}.core.xz")


def main(words: Sequence[str] | None = None) -> int:
    """Write the page, or check it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true", help="write nothing")
    check = options.parse_args(words).check
    made = page()
    if check:
        old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        return int(old != made)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(made, encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Asks one target after the other, with bounds; recipes come in, verdicts go out, one a line.

Run as a process of its own (`python -m tests.fuzz.worker`): it limits its own memory, and each
command's time. The first line of each target's commands goes through everything; the others share
the opened source and what was located, each with warnings of its own.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from heapglass import cli
from heapglass.errors import HeapglassError

from .lines import lines
from .recipe import DEBUG, NO_FOLDER, Recipe, from_text, is_trace, write_target
from .verdict import complaints

SECONDS = 8  # of processor time, for one command: none comes near on a healthy target
MEMORY = 3 << 29  # bytes of address space
UNPACK = 64 << 20  # bytes that a compressed target may unpack to
FEW = 12  # commands that a file is asked which somebody names
OPENED = (cli.open_target, cli.locate)


class Hang(BaseException):
    """A command took too long."""


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise Hang


class Once:
    """Opens and locates a target once, and gives that to each command."""

    def __init__(self) -> None:
        self._opened: Any = None
        self._located: Any = None

    @contextmanager
    def open(self, spec: str, options: Any) -> Iterator[Any]:
        """Return the source, opened by the first who asks."""
        if self._opened is None:
            self._opened = OPENED[0](spec, options)
        yield self._opened

    def locate(self, source: Any, overrides: Any) -> Any:
        """Return a copy of what was located."""
        if self._located is None:
            try:
                self._located = OPENED[1](source, overrides)
            except HeapglassError as error:
                self._located = error
        if isinstance(self._located, HeapglassError):
            raise self._located
        found = self._located
        return replace(found, warnings=list(found.warnings), missing=list(found.missing))

    def close(self) -> None:
        """Let go."""
        if self._opened is not None:
            self._opened.close()


def run(words: list[str]) -> tuple[int, str, str]:
    """Run a command in this process; return its exit status and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = cli.main(words)
    except Hang:
        trace = "".join(traceback.format_exc(limit=-8))
        return 98, out.getvalue()[:0], f"took more than {SECONDS} s: {trace}"
    except BaseException:
        return 99, out.getvalue()[:0], traceback.format_exc(limit=-16)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return status, out.getvalue(), err.getvalue()


def ask(recipe: Recipe, folder: Path, some: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Ask a target everything, or *some* lines; see `ask_file`."""
    target = write_target(recipe, folder)
    return ask_file(target, recipe.address, is_trace(recipe), some, seed)


def ask_file(
    target: list[str], address: int, trace: bool, some: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Return what was wrong, how long the slowest command took, and how many were asked."""
    target = [*target, "--unpack-limit", str(UNPACK)]
    once, found, slowest, count = Once(), [], (0.0, ""), 0
    statuses = [0, 0, 0]
    try:
        asked = lines(target, address, trace, some, seed)
        for number, words in enumerate(asked):
            shared: tuple[Callable[..., Any], Callable[..., Any]] = (once.open, once.locate)
            cli.open_target, cli.locate = OPENED if number == 0 else shared  # type: ignore[assignment]
            start = time.process_time()
            status, out, err = run(words)
            slowest = max(slowest, (time.process_time() - start, " ".join(words)))
            count += 1
            statuses[min(status, 2)] += 1
            said = [err] if status > 90 else list(complaints(words, status, out, err))
            found += [{"words": words, "said": text} for text in said]
            if status == 2 and number == 0 and not trace and _unusable(err):
                break  # it cannot be opened: all others say the same
            if len(found) > 3 or status == 98:
                break
    finally:
        once.close()
        cli.open_target, cli.locate = OPENED
    return {"bad": found, "slowest": slowest, "asked": count, "statuses": statuses}


def _unusable(err: str) -> bool:
    return err.startswith(("heapglass: /", "heapglass: ./"))


def _mapped_by_arrow() -> int:
    """Return the bytes of addresses that pyarrow takes for itself, which no target can change."""
    before = _mapped()
    with suppress(ImportError):
        importlib.import_module("pyarrow.parquet")
    return _mapped() - before


def _mapped() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def main() -> None:
    """Answer recipes until there are no more, or ask the one file that is named."""
    signal.signal(signal.SIGPROF, _too_long)
    most = MEMORY + _mapped_by_arrow()
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    os.environ[cli.DEBUG] = "1"
    answers = os.fdopen(os.dup(1), "w")
    if sys.argv[1:]:
        path, address, glibc = sys.argv[1:]
        words = [str(Path(path).resolve()), "--sysroot", NO_FOLDER, "--debug-dir", str(DEBUG)]
        words += ["--glibc", glibc] if glibc else []
        with TemporaryDirectory(prefix="hostile-") as folder:
            os.chdir(folder)
            verdict = ask_file(words, int(address, 0), path.endswith(".jsonl"), FEW)
        answers.write(json.dumps(verdict) + "\n")
        answers.close()
        return
    with TemporaryDirectory(prefix="hostile-") as folder:
        os.chdir(folder)  # some commands write files
        for line in sys.stdin:
            said = json.loads(line)
            verdict = ask(from_text(said["recipe"]), Path(folder), said["some"], said["seed"])
            answers.write(json.dumps(verdict) + "\n")
            answers.flush()


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main()

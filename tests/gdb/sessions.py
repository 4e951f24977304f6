"""gdb as a user has it: a batch of commands, or a terminal that is typed into."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = ROOT / "gdbext" / "heapglass.py"
OTHERS = Path(__file__).parent / "extensions"
LOAD = f"source {EXTENSION}"
QUIET = ("set startup-with-shell off", "set confirm off")
GDB = os.environ.get("HEAPGLASS_GDB") or "gdb"  # tests/gdbs names each of Debian's
GDBSERVER = str(Path(GDB).with_name("gdbserver")) if "/" in GDB else "gdbserver"
PATIENCE = 120  # seconds for one run of gdb; none takes ten
STOPPED = (LOAD, "break ready", "run", "up")


class Said(NamedTuple):
    """What a run of gdb printed."""

    out: str
    err: str


def batch(commands: Iterable[str], program: Path | None = None, **environment: str) -> Said:
    """Run gdb with commands; an error in one does not keep the next from running."""
    words = [GDB, "-nx", "-batch"]
    for command in (*QUIET, *commands):
        words += ["-ex", command]
    if program is not None:
        words.append(str(program))
    done = subprocess.run(
        words,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",  # gdb itself shows names out of a core as they are
        timeout=PATIENCE,
        env={
            **os.environ,
            "LC_ALL": "C.UTF-8",
            "HOME": "/nonexistent",
            "DEBUGINFOD_URLS": "",
            **environment,
        },
    )
    assert done.returncode >= 0, f"gdb died by signal {-done.returncode}: {done.stderr}"
    return Said(done.stdout, done.stderr)


def answers(commands: Iterable[str], setup: Iterable[str], program: Path | None) -> list[str]:
    """Return what each of *commands* printed on standard output, after *setup*."""
    marked = [line for command in commands for line in ("echo \\n<<<>>>\\n", command)]
    said = batch([*setup, *marked], program)
    assert "Traceback" not in said.out + said.err
    return [part.strip("\n") for part in said.out.split("\n<<<>>>\n")[1:]]


def complaint(command: str, setup: Iterable[str], program: Path | None = None) -> str:
    """Return what a command printed on standard error, after *setup*."""
    said = batch([*setup, "python gdb.write('<<<>>>', gdb.STDERR)", command], program)
    return said.err.split("<<<>>>")[1]


class Terminal:
    """An interactive gdb on a terminal of its own. Use as a context manager."""

    PROMPT = "(gdb) "

    def __init__(self, program: Path, height: int) -> None:
        self.shown = ""
        words = [GDB, "-nx", "-q", "-ex", "set style enabled off"]
        for command in (*QUIET, "set width 0", f"set height {height}"):
            words += ["-ex", command]
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            settings = {**os.environ, "TERM": "dumb", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
            settings["DEBUGINFOD_URLS"] = ""
            os.execvpe(GDB, [*words, str(program)], settings)

    def __enter__(self) -> Terminal:
        self.until(re.escape(self.PROMPT))
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)

    def type(self, text: str) -> None:
        """Type; a newline is the return key."""
        os.write(self._fd, text.encode())

    def until(self, pattern: str) -> str:
        """Read until *pattern* has been shown; return all that was, from the last time on."""
        end = time.monotonic() + PATIENCE
        while not re.search(pattern, self.shown):
            ready, _, _ = select.select([self._fd], [], [], max(end - time.monotonic(), 0))
            if not ready:
                raise AssertionError(f"no {pattern!r} in {self.shown[-2000:]!r}")
            self.shown += os.read(self._fd, 4096).decode("utf-8", "replace").replace("\r\n", "\n")
        shown, self.shown = self.shown, ""
        return shown

    def run(self, command: str) -> str:
        """Type a command; return what was shown until the next prompt."""
        self.type(command + "\n")
        return self.until(rf"\n{re.escape(self.PROMPT)}$")

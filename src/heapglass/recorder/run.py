"""Running a program with the recorder preloaded."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadRequest, NotFound
from .convert import Converted, convert

HERE = Path(__file__).parent
LIBRARIES = {1: "librecorder32.so", 2: "librecorder.so"}  # by ELF class
ELF = b"\x7fELF"
NAME = "calls"


@dataclass
class Recorded:
    """A run that was recorded."""

    status: int  # exit status, or minus the signal
    files: dict[str, Converted] = field(default_factory=dict)  # trace to what is in it, ours first
    others: int = 0  # processes whose recordings were not kept


def record(words: Sequence[str], to: str, children: bool = False, quiet: bool = False) -> Recorded:
    """Run a program, record its calls, write them as a trace.

    *children*: the processes that it starts too, each in a file of its own. *quiet*: its standard
    output goes to standard error.

    :raises BadRequest: if the program cannot be run, or made no call that the recorder saw.
    :raises NotFound: if the recorder was not built.
    """
    program = shutil.which(words[0])
    if program is None:
        raise BadRequest(f"{words[0]}: no such program", "heapglass record -o FILE -- PROGRAM …")
    library = recorder_for(program)
    folder = _room_beside(to)
    try:
        environment = _environment(library, os.path.join(folder, NAME), children)
        pid, status = _run(program, words, environment, quiet)
        result = Recorded(status)
        _convert_all(result, folder, to, pid, children)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not result.files:
        raise BadRequest(f"{program} made no call that the recorder saw", WHY_NOTHING)
    return result


def _room_beside(to: str) -> str:
    """Return a new folder where the trace goes: there is room for recordings, if for it."""
    try:
        return tempfile.mkdtemp(prefix=".heapglass-", dir=os.path.dirname(os.path.abspath(to)))
    except OSError as error:
        raise BadRequest(f"cannot write {to}: {error.strerror}") from error


WHY_NOTHING = "is it static or set-uid, or has it a malloc of its own?"


def recorder_for(program: str) -> Path:
    """Return the recorder's library for a program of this machine, by its ELF class.

    :raises NotFound: if it was not built.
    """
    try:
        with open(program, "rb") as file:
            start = file.read(5)
    except OSError as error:
        raise BadRequest(f"{program} cannot be read: {error.strerror}") from error
    wide = start[4] if start[:4] == ELF else 2  # a script: its interpreter is of this machine
    library = HERE / LIBRARIES.get(wide, LIBRARIES[2])
    if not library.exists():
        need = "gcc-multilib" if wide == 1 else "a C compiler (gcc, libc6-dev)"
        raise NotFound(
            f"the recorder {library.name} was not built when heapglass was installed",
            f"install {need}, then heapglass again; or record in gdb: heap trace",
        )
    return library


def _environment(library: Path, base: str, children: bool) -> dict[str, str]:
    environment = dict(os.environ)
    before = environment.get("LD_PRELOAD")
    environment["LD_PRELOAD"] = f"{library}:{before}" if before else str(library)
    environment["HEAPGLASS_RECORD"] = base
    environment.pop("HEAPGLASS_RECORD_OF", None)
    if not children:
        environment["HEAPGLASS_RECORD_OF"] = str(os.getpid())
    return environment


def _run(
    program: str, words: Sequence[str], environment: dict[str, str], quiet: bool
) -> tuple[int, int]:
    """Run it to its end; Ctrl-C is for it."""
    out = 2 if quiet else None
    try:
        running = subprocess.Popen(
            list(words), executable=program, env=environment, stdout=out, close_fds=False
        )
    except OSError as error:
        raise BadRequest(f"{program} cannot be run: {error.strerror}") from error
    while True:
        with suppress(KeyboardInterrupt):
            return running.pid, running.wait()


def _convert_all(result: Recorded, folder: str, to: str, pid: int, children: bool) -> None:
    """Make traces of the recordings: of the program itself, then of its children by number.

    A process that went on to another program by exec has a recording for each: the last counts.
    """
    found: dict[int, tuple[int, str]] = {}
    for name in os.listdir(folder):
        _, process, *turn = name.split(".")
        last = (int(turn[0]) if turn else 1, os.path.join(folder, name))
        found[int(process)] = max(last, found.get(int(process), last))
    for number in sorted(found, key=lambda number: (number != pid, number)):
        own = number == pid
        if not own and not children:
            result.others += 1
            continue
        ending = _signal_name(result.status) if own else ""
        file = to if own else _with_number(to, number)
        result.files[file] = convert(found[number][1], file, ending)


def _signal_name(status: int) -> str:
    if status >= 0:
        return ""
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _with_number(path: str, number: int) -> str:
    folder, name = os.path.split(path)
    stem, dot, rest = name.partition(".")
    return os.path.join(folder, f"{stem}-{number}{dot}{rest}")

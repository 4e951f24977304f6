"""What heapglass says of the cores of `crimes`, at the shell door, without and with symbols.

A release's cores are asked after in one process: this file, run as a script. A core is deleted when
it has been asked: together they have gigabytes.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crimes import PLACE, QUIET, Scene, commit, committed, scene
from programs import Runtime
from session import NOWHERE, SessionFailed, run

WITH_SYMBOLS = ("2.41-amd64", "2.44-i386")
BARE, KNOWN = "bare", "symbols"


def inquire(runtime: Runtime, folder: Path = PLACE) -> None:
    """Do every wrong on a release and ask what it was.

    :raises SessionFailed: if gdb or the questions did not come to their end.
    """
    commit(runtime, folder)
    try:
        ask(runtime, BARE, NOWHERE, folder)
        if runtime.name in WITH_SYMBOLS:
            ask(runtime, KNOWN, str(runtime.debug_dir), folder)
    finally:
        for core in (folder / runtime.name).glob("*.core"):
            core.unlink()


def ask(runtime: Runtime, how: str, debug_dir: str, folder: Path = PLACE) -> None:
    """Ask of every core what is wrong: `explain` where the program died, `check` where not."""
    place = folder / runtime.name
    script = [sys.executable, __file__, str(place), how, debug_dir]
    for crime in committed(runtime.glibc, runtime.arch):
        command = "check" if crime.said(runtime.glibc, runtime.arch) == QUIET else "explain"
        script.append(f"{command}:{scene(runtime, crime, folder).place.name}")
    said = run(script, place / f"{how}.log")
    if "all asked" not in said:
        raise SessionFailed(f"{' '.join(script[:5])}\n{said[-3000:]}")


def answer(left: Scene, how: str = BARE) -> dict[str, Any]:
    """What was said of a scene.

    :raises ValueError: if that was no JSON document; the text is in the message.
    """
    said = json.loads(left.file(f"{how}.json").read_text())
    try:
        found = json.loads(said["answer"])
    except ValueError:
        text = f"{said['answer'][:300]} {said['complaint'][:600]}"
        raise ValueError(f"status {said['status']}: {text}") from None
    assert isinstance(found, dict)
    return {**found, "status": said["status"]}


def _main(place: Path, how: str, debug_dir: str, questions: Sequence[str]) -> None:
    from heapglass import cli

    for question in questions:
        command, name = question.split(":")
        left = Scene(place / name)
        output, complaint = io.StringIO(), io.StringIO()
        words = [command, str(left.core), "--json", "--debug-dir", debug_dir]
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(complaint):
            status = cli.main(words)
        said = {"status": status, "answer": output.getvalue(), "complaint": complaint.getvalue()}
        left.file(f"{how}.json").write_text(json.dumps(said))
    sys.stdout.write("all asked\n")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *sys.argv[2:4], sys.argv[4:])

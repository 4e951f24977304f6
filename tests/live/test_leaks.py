"""Leaks of a program that knows its own: all are found, and nothing that is held is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import ARCHES, RELEASES, ROOT, Runtime, build, wait_for_report
from session import run_gdb, settings

every_release = pytest.mark.parametrize(
    "runtime",
    [(glibc, arch) for glibc in RELEASES for arch in ARCHES],
    indirect=True,
    ids="-".join,
)
Planted = dict[int, tuple[int, str]]  # mem to usable size and how it was leaked


def read_planted(report: Path) -> Planted:
    rows = [line.split() for line in report.read_text().splitlines()]
    return {int(r[1], 16): (int(r[2]), r[3]) for r in rows if r and r[0] == "leaked"}


def live_blocks(report: Path) -> set[int]:
    rows = [line.split() for line in report.read_text().splitlines()]
    return {int(r[1], 16) for r in rows if r and r[0] in ("live", "library")}


def in_shell(runtime: Runtime, target: str, *words: str) -> Any:
    """The JSON document of `heapglass leaks`."""
    command = [sys.executable, "-m", "heapglass", "leaks", target, "--all", "--json", *words]
    command += ["--debug-dir", str(runtime.debug_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def of(planted: Planted, *ways: str) -> dict[str, int]:
    sizes = [size for size, how in planted.values() if how in ways]
    return {"count": len(sizes), "bytes": sum(sizes)}


def check(found: Any, report: Path) -> None:
    planted = read_planted(report)
    assert Counter(how for _, how in planted.values())["head"] == 3 * 42 + 1
    assert found["totals"] == {
        "leaked": of(planted, "head", "held", "cycle", "end"),
        "unreferenced": of(planted, "head", "end"),
        "possibly": of(planted, "inside", "mangled"),
    }, [found["warnings"], found["possibly"]]
    assert "mangled" in [how for _, how in planted.values()]
    assert found["mangled"] == "followed"
    heads = {int(row["user"], 16): row for row in found["heads"]}
    assert {mem for mem, row in heads.items() if not row["cycle"]} == {
        mem for mem, (_, how) in planted.items() if how in ("head", "end")
    }
    assert all(planted[mem][1] == "cycle" for mem, row in heads.items() if row["cycle"])
    assert sum(row["cycle"] for row in heads.values()) == 3 * 20
    assert sum(row["count"] for row in heads.values()) == found["totals"]["leaked"]["count"]
    assert not live_blocks(report) & {*heads, *(int(r["user"], 16) for r in found["possibly"])}


@pytest.fixture
def core(runtime: Runtime, tmp_path: Path) -> Iterator[Path]:
    """A core of the program, written by gdb; what gdb itself said of it is beside."""
    program = build(runtime, "leaks")
    run_gdb(
        tmp_path / "script",
        [
            *settings(str(runtime.debug_dir)),
            f"file {program}",
            "break heap_ready",
            f"run {tmp_path / 'report'}",
            "python",
            f"with open({str(tmp_path / 'live.json')!r}, 'w') as file:",
            "    file.write(gdb.execute('heapglass leaks --json', to_string=True))",
            "end",
            f"generate-core-file {tmp_path / 'core'}",
        ],
    )
    yield tmp_path / "core"
    (tmp_path / "core").unlink()


@every_release
def test_leaks_of_a_core_and_in_gdb(runtime: Runtime, core: Path, tmp_path: Path) -> None:
    check(in_shell(runtime, str(core)), tmp_path / "report")
    check(json.loads((tmp_path / "live.json").read_text()), tmp_path / "report")


@every_release
def test_leaks_of_a_process(runtime: Runtime, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([str(build(runtime, "leaks")), str(fifo)]) as process:
        wait_for_report(fifo, tmp_path / "report")
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        try:
            found = in_shell(runtime, str(process.pid))
        finally:
            process.kill()
    check(found, tmp_path / "report")
    assert any("registers of thread" in text for text in found["warnings"])

"""Runs the sessions that the chosen tests need, side by side, and prints the release table."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import (
    ARCHES,
    RELEASES,
    ROOT,
    MissingRuntime,
    Runtime,
    build,
    find_runtime,
    wait_for_report,
)
from session import DOORS
from sessions import Key, Sessions

TABLE = ROOT / ".cache" / "release-table.md"


def _key(item: pytest.Item) -> Key | None:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if not {"glibc", "arch", "case"} <= parameters.keys():
        return None
    return parameters["glibc"], parameters["arch"], parameters["case"]


@pytest.fixture(scope="session")
def sessions(request: pytest.FixtureRequest) -> Iterator[Sessions]:
    """The sessions of the tests that were chosen, in their order."""
    keys = {(k[0], k[1], k[2].name): k for k in map(_key, request.session.items) if k is not None}
    running = Sessions(list(keys.values()))
    yield running
    running.close()


@pytest.fixture
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """The runtime of (glibc, arch); a parameter of the test. One that is missing fails it."""
    try:
        return find_runtime(*request.param)
    except MissingRuntime as error:
        return pytest.fail(str(error), pytrace=False)


@pytest.fixture
def stopped(runtime: Runtime, tmp_path: Path) -> Iterator[int]:
    """The process id of a program with four more threads, which has reported and was stopped.

    Its report is in `tmp_path`.
    """
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([str(build(runtime, "threads")), str(fifo)]) as process:
        wait_for_report(fifo, tmp_path / "report")
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        yield process.pid
        process.kill()


def _cells(reports: dict[str, list[Any]]) -> dict[tuple[str, str, str], list[int | None]]:
    """(glibc, arch, door) -> chunks checked by each test, None for a test that failed."""
    cells: dict[tuple[str, str, str], list[int | None]] = {}
    for outcome in ("passed", "failed", "error"):
        for report in reports.get(outcome, []):
            said = dict(getattr(report, "user_properties", []))
            if "door" in said:
                cell = cells.setdefault((said["glibc"], said["arch"], said["door"]), [])
                cell.append(said.get("chunks", 0) if outcome == "passed" else None)
    return cells


def _written(cell: list[int | None] | None) -> str:
    if cell is None:
        return "not run"
    failed = cell.count(None)
    return f"**{failed} failed**" if failed else f"{sum(filter(None, cell))} chunks"


def _release_table(cells: dict[tuple[str, str, str], list[int | None]]) -> list[str]:
    lines = [
        "| glibc | ABI | live in gdb | core in gdb | core in the shell |",
        "| --- | --- | --- | --- | --- |",
    ]
    for glibc in RELEASES:
        for arch in ARCHES:
            row = [_written(cells.get((glibc, arch, door))) for door in DOORS]
            lines.append(f"| {glibc} | {arch} | {' | '.join(row)} |")
    return lines


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print glibc × ABI × door with the chunks checked, and keep it for tools/release_table.py."""
    cells = _cells(terminalreporter.stats)
    if not cells:
        return
    lines = _release_table(cells)
    terminalreporter.section("real heaps, read right: chunks compared with what the program knows")
    for line in lines:
        terminalreporter.write_line(line)
    if len(cells) == len(RELEASES) * len(ARCHES) * len(DOORS):
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text("\n".join(lines) + "\n")

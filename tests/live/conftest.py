"""Runs the sessions that the chosen tests need, side by side, and prints the release table."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from crimes import UNPROVOKED
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
from scenes import Scenes
from sessions import Key, Sessions

TABLES = ROOT / ".cache"


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


@pytest.fixture(scope="session")
def scenes(request: pytest.FixtureRequest) -> Iterator[Scenes]:
    """The wrongs done on the runtimes of the tests that were chosen."""
    chosen = [
        getattr(getattr(item, "callspec", None), "params", {}) for item in request.session.items
    ]
    running = Scenes({(p["glibc"], p["arch"]): None for p in chosen if "crime" in p})
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


Cell = tuple[str, str, str, str]  # glibc, arch, "shared" or "static", door


def _cells(reports: dict[str, list[Any]]) -> dict[Cell, list[int | None]]:
    """Chunks checked by each test of a cell, None for a test that failed."""
    cells: dict[Cell, list[int | None]] = {}
    for outcome in ("passed", "failed", "error"):
        for report in reports.get(outcome, []):
            said = dict(getattr(report, "user_properties", []))
            if "door" in said:
                key = said["glibc"], said["arch"], said.get("linkage", "shared"), said["door"]
                cell = cells.setdefault(key, [])
                cell.append(said.get("chunks", 0) if outcome == "passed" else None)
    return cells


def _written(cell: list[int | None] | None) -> str:
    if cell is None:
        return "not run"
    failed = cell.count(None)
    return f"**{failed} failed**" if failed else f"{sum(filter(None, cell))} chunks"


def _table(
    cells: dict[Cell, list[int | None]], columns: Sequence[tuple[str, str, str]]
) -> list[str]:
    """Return a row for each release and ABI; *columns*: heading, linkage, door."""
    lines = [
        f"| glibc | ABI | {' | '.join(heading for heading, _, _ in columns)} |",
        f"| --- | --- |{' --- |' * len(columns)}",
    ]
    for glibc in RELEASES:
        for arch in ARCHES:
            row = [_written(cells.get((glibc, arch, link, door))) for _, link, door in columns]
            lines.append(f"| {glibc} | {arch} | {' | '.join(row)} |")
    return lines


WITH_SYMBOLS = (
    ("live in gdb", "shared", "live"),
    ("core in gdb", "shared", "core-gdb"),
    ("core in the shell", "shared", "core-shell"),
)
WITHOUT = (
    ("symbols, live", "shared", "live"),
    ("symbols, core", "shared", "core-shell"),
    ("none, live", "shared", "live-bare"),
    ("none, core", "shared", "core-bare"),
    ("static stripped, live", "static", "live-bare"),
    ("static stripped, core", "static", "core-bare"),
)


def _ends(reports: dict[str, list[Any]]) -> dict[str, dict[str, list[bool]]]:
    """By what glibc said and by runtime: which wrongs were explained, which not."""
    ends: dict[str, dict[str, list[bool]]] = {}
    for outcome in ("passed", "failed", "xfailed", "error"):
        for report in reports.get(outcome, []):
            said = dict(getattr(report, "user_properties", []))
            if "ended" in said:
                row = ends.setdefault(said["ended"], {})
                row.setdefault(said["runtime"], []).append(outcome == "passed")
    return ends


def _ends_table(ends: dict[str, dict[str, list[bool]]]) -> Iterator[str]:
    """Yield a row for each text: of how many programs that end so all was told."""
    runtimes = [f"{glibc}-{arch}" for glibc in RELEASES for arch in ARCHES]
    yield f"| text | {' | '.join(runtimes)} |"
    yield f"| --- |{' --- |' * len(runtimes)}"
    for text, row in ends.items():
        cells = [f"{sum(done)} of {len(done)}" if (done := row.get(r)) else "-" for r in runtimes]
        yield f"| {text} | {' | '.join(cells)} |"
    for text, why in UNPROVOKED.items():
        yield f"not provoked: {text}: {why}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the tables with the chunks checked, and keep them for tools/release_table.py."""
    if ends := _ends(terminalreporter.stats):
        terminalreporter.section("ends in malloc: check, chunk, cause and culprit told by explain")
        for line in _ends_table(ends):
            terminalreporter.write_line(line)
    cells = _cells(terminalreporter.stats)
    for file, title, columns in (
        ("release-table.md", "real heaps, read right", WITH_SYMBOLS),
        ("symbols-table.md", "the same without symbols", WITHOUT),
    ):
        wanted = {(link, door) for _, link, door in columns}
        run = {cell for cell in cells if cell[2:] in wanted}
        if not run:
            continue
        lines = _table(cells, columns)
        terminalreporter.section(f"{title}: chunks compared with what the program knows")
        for line in lines:
            terminalreporter.write_line(line)
        if len(run) == len(RELEASES) * len(ARCHES) * len(columns):
            TABLES.mkdir(exist_ok=True)
            (TABLES / file).write_text("\n".join(lines) + "\n")

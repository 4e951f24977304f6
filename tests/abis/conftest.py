"""Runs the programs that the chosen tests need, side by side, and prints the table of machines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from machines import MACHINES, ROOT, WAYS, LiveSession, MissingTool, run_live
from programs import MissingRuntime, find_runtime
from session import SessionFailed

RESULTS = ROOT / ".cache" / "abis"
TABLE = ROOT / ".cache" / "machines-table.md"
Key = tuple[str, str, str]  # arch, glibc, program


class Sessions:
    """One run of each chosen program; all are begun at once, a few run at a time."""

    def __init__(self, wanted: list[Key]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
        self._futures = {key: self._pool.submit(self._run, *key) for key in wanted}

    @staticmethod
    def _run(arch: str, glibc: str, program: str) -> LiveSession:
        place = RESULTS / f"{glibc}-{arch}-{program}"
        return run_live(MACHINES[arch], find_runtime(glibc, arch), program, place)

    def of(self, *key: str) -> LiveSession:
        """Wait for a run. One that could not be run fails the test: there is no skip."""
        arch, glibc, program = key
        future: Future[LiveSession] = self._futures[arch, glibc, program]
        try:
            return future.result()
        except (MissingRuntime, MissingTool, SessionFailed) as error:
            return pytest.fail(str(error), pytrace=False)

    def close(self) -> None:
        """Drop what is not begun yet."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _key(item: pytest.Item) -> Key | None:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if not {"arch", "glibc", "program"} <= parameters.keys():
        return None
    return parameters["arch"], parameters["glibc"], parameters["program"]


@pytest.fixture(scope="session")
def sessions(request: pytest.FixtureRequest) -> Iterator[Sessions]:
    """The runs of the tests that were chosen, in their order."""
    keys = [key for key in map(_key, request.session.items) if key is not None]
    running = Sessions(list(dict.fromkeys(keys)))
    yield running
    running.close()


@pytest.fixture
def live(sessions: Sessions, arch: str, glibc: str, program: str) -> LiveSession:
    """The run of one program."""
    return sessions.of(arch, glibc, program)


def _row(said: list[dict[str, Any]], arch: str, glibc: str) -> str:
    own = [one for one in said if (one["arch"], one["glibc"]) == (arch, glibc)]

    def cell(way: str) -> str:
        outcomes = [one for one in own if one["way"] == way]
        failed = sum(one["outcome"] != "passed" for one in outcomes)
        if failed or not outcomes:
            nothing = "-" if way == "core" else "not run"
            return f"**{failed} failed**" if failed else nothing
        return f"{sum(one['chunks'] for one in outcomes)} chunks"

    cells = " | ".join(cell(way) for way in (*WAYS, "core"))
    return f"| {arch} | {glibc} | {cells} |"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table with the chunks checked, and keep it for tools/release_table.py."""
    said = [
        {"outcome": outcome, "chunks": 0, **dict(report.user_properties)}
        for outcome in ("passed", "failed", "error")
        for report in terminalreporter.stats.get(outcome, [])
        if "way" in dict(getattr(report, "user_properties", []))
    ]
    if not said:
        return
    lines = [
        "| machine | glibc | live, symbols | no mappings told | no symbols | cores |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(said, m.arch, glibc) for m in MACHINES.values() for glibc in m.releases),
    ]
    terminalreporter.section("other machines: chunks compared with what the program knows")
    for line in lines:
        terminalreporter.write_line(line)
    if "not run" not in "".join(lines):
        TABLE.write_text("\n".join(lines) + "\n")

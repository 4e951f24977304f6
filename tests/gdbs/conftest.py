"""Prints which gdb read what in which way, and keeps it for the docs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "live"), str(ROOT / "tools"), str(ROOT / "src")]

from gdbs import SUITES, BadGdb, read_gdb  # noqa: E402

TABLE = ROOT / ".cache" / "gdbs-table.md"
WAYS = ("run", "core", "attach", "-p", "target remote", "extended-remote")


def _cells(reports: dict[str, list[Any]]) -> dict[tuple[str, str], str]:
    cells = {}
    for outcome in ("passed", "failed", "error"):
        for report in reports.get(outcome, []):
            said = dict(getattr(report, "user_properties", []))
            if "way" in said:
                good = f"{said.get('chunks', 0)} chunks"
                key = said["suite"], said["way"]
                cells[key] = good if outcome == "passed" else "**failed**"
    return cells


def _row(suite: str, cells: dict[tuple[str, str], str]) -> str:
    try:
        gdb = read_gdb(suite)
        head = f"{gdb.version} ({suite}) | {gdb.python}"
    except BadGdb:
        head = f"? ({suite}) | ?"
    return f"| {head} | {' | '.join(cells.get((suite, way), 'not run') for way in WAYS)} |"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print gdb × way with the chunks compared, and keep it for tools/release_table.py."""
    cells = _cells(terminalreporter.stats)
    if not cells:
        return
    lines = [
        f"| gdb | Python | {' | '.join(WAYS)} |",
        f"| --- | --- |{' --- |' * len(WAYS)}",
        *(_row(suite, cells) for suite in SUITES),
    ]
    terminalreporter.section("gdb 10 to 18: chunks compared with the shell door")
    for line in lines:
        terminalreporter.write_line(line)
    if len(cells) == len(SUITES) * len(WAYS):
        TABLE.write_text("\n".join(lines) + "\n")

"""A process in the shell: `heapglass NAME PID`, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ARCHES, RELEASES, ROOT, Runtime, read_report
from session import Answers, blocks_in_use

every_release = pytest.mark.parametrize(
    "runtime",
    [(glibc, arch) for glibc in RELEASES for arch in ARCHES],
    indirect=True,
    ids="-".join,
)


def heapglass(runtime: Runtime, *words: str) -> str:
    """Run the command; its exit status must be 0."""
    command = [sys.executable, "-m", "heapglass", *words, "--debug-dir", str(runtime.debug_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@every_release
def test_a_process_is_read_right(runtime: Runtime, stopped: int, tmp_path: Path) -> None:
    report = read_report(tmp_path / "report")
    said = heapglass(runtime, "chunks", str(stopped), "--all", "--json")

    assert blocks_in_use(Answers({"chunks": said}).document("chunks")) == report.blocks()
    assert heapglass(runtime, "stats", str(stopped), "--malloc-info") == report.malloc_info

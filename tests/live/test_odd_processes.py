"""Processes that are put together in unusual ways: two C libraries, a copied one, none at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from programs import (
    ARCHES,
    MACHINE,
    RELEASES,
    ROOT,
    SOURCES,
    Report,
    Runtime,
    build,
    read_report,
    wait_for_report,
)
from session import NOWHERE, Answers, blocks_in_use

every_release = pytest.mark.parametrize(
    "runtime",
    [(glibc, arch) for glibc in RELEASES for arch in ARCHES],
    indirect=True,
    ids="-".join,
)


def heapglass(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "heapglass", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def document(*words: str) -> dict[str, Any]:
    done = heapglass(*words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@contextmanager
def stopped(command: Sequence[str], place: Path) -> Iterator[int]:
    """Run a program until it has reported, and stop it; its report is `place / "report"`."""
    os.mkfifo(place / "fifo")
    with subprocess.Popen([*command, str(place / "fifo")]) as process:
        try:
            wait_for_report(place / "fifo", place / "report")
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            yield process.pid
        finally:
            process.kill()


def far_blocks(place: Path) -> dict[int, int]:
    """What the program has of its second C library."""
    rows = [line.split() for line in (place / "report").read_text().splitlines()]
    return {int(row[1], 16): int(row[2]) for row in rows if row and row[0] == "far"}


def held(found: dict[str, Any]) -> dict[int, int]:
    return blocks_in_use(Answers({"": json.dumps(found)}).document(""))


@every_release
@pytest.mark.parametrize("symbols", [True, False], ids=["symbols", "none"])
def test_a_second_libc_in_a_namespace_of_its_own(
    runtime: Runtime, symbols: bool, tmp_path: Path
) -> None:
    program = build(runtime, "namespaces")
    debug = ("--debug-dir", str(runtime.debug_dir) if symbols else NOWHERE)
    with stopped([str(program)], tmp_path) as pid:
        report: Report = read_report(tmp_path / "report")
        far = far_blocks(tmp_path)
        info = document("info", str(pid), *debug)
        near = held(document("chunks", str(pid), "--all", *debug))
        (other,) = [text.split()[0] for text in info["main_arena"]["runners_up"]]
        chosen = document("chunks", str(pid), "--all", *debug, "--main-arena", other)

    assert len(far) == 27
    assert report.live.items() <= near.items()
    assert not far.keys() & near.keys()
    (warning,) = info["warnings"]
    assert f"another C library has a heap in this process (main_arena {other}" in warning
    assert {row["tcache_state"] for row in info["threads"]} <= {"active", "none"}
    assert held(chosen) == far


@every_release
def test_a_copied_libc_in_an_odd_place_under_an_explicit_loader(
    runtime: Runtime, tmp_path: Path
) -> None:
    place = tmp_path / "some place"
    place.mkdir()
    for library in ("libc.so.6", "libpthread.so.0"):
        if (runtime.libdir / library).exists():
            shutil.copy(runtime.libdir / library, place)
    program = build(runtime, "threads")
    command = [str(runtime.loader), "--inhibit-rpath", "", "--library-path", str(place)]
    with stopped([*command, str(program)], tmp_path) as pid:
        info = document("info", str(pid), "--debug-dir", NOWHERE)
        found = document("chunks", str(pid), "--all", "--debug-dir", NOWHERE)
        report = read_report(tmp_path / "report")

    assert str(place) in info["glibc"]["how"]
    assert info["glibc"]["version"] == runtime.glibc
    assert held(found) == report.blocks()
    assert info["missing"] == []


@pytest.mark.parametrize("arch", ARCHES)
def test_a_process_without_any_libc_gets_one_line(arch: str, tmp_path: Path) -> None:
    program = tmp_path / "nolibc"
    compiler = ["gcc", MACHINE[arch], "-nostdlib", "-static", "-o", str(program)]
    subprocess.run([*compiler, str(SOURCES / "nolibc.c")], check=True)
    with subprocess.Popen([str(program)]) as process:
        try:
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            done = heapglass("chunks", str(process.pid), "--debug-dir", NOWHERE)
        finally:
            process.kill()

    assert done.returncode == 2
    assert done.stdout == ""
    assert "no glibc heap here" in done.stderr
    assert done.stderr.count("\n") == 1

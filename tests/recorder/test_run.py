"""Programs that cannot be recorded, and what is said then."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from heapglass.cli import main
from heapglass.recorder import run

STATIC = "int main (void) { return 0; }"


def said(capfd: Any, *words: object) -> str:
    assert main(["record", *map(str, words)]) == 2
    _, err = capfd.readouterr()
    assert len(err.splitlines()) == 1
    return str(err)


def test_no_such_program(tmp_path: Path, capfd: Any) -> None:
    assert "no such program" in said(capfd, "-o", tmp_path / "t", "--", "./nowhere")


def test_what_is_missing_in_the_request(tmp_path: Path, capfd: Any) -> None:
    assert "record needs a file" in said(capfd, "--", "ls")
    assert "a program behind --" in said(capfd, "-o", tmp_path / "t")


def test_a_recorder_that_was_not_built(
    tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LIBRARIES", {1: "none32.so", 2: "none.so"})
    text = said(capfd, "-o", tmp_path / "t", "--", "ls")
    assert "the recorder none.so was not built" in text
    assert "a C compiler" in text
    small = tmp_path / "small"
    small.write_bytes(b"\x7fELF\1" + bytes(60))
    small.chmod(0o755)
    assert "install gcc-multilib" in said(capfd, "-o", tmp_path / "t", "--", small)


def test_a_static_program_makes_no_call_that_is_seen(tmp_path: Path, capfd: Any) -> None:
    source, built = tmp_path / "p.c", tmp_path / "p"
    source.write_text(STATIC)
    subprocess.run(["gcc", "-static", "-o", built, source], check=True)
    assert "is it static" in said(capfd, "-o", tmp_path / "t", "--", built)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p", "p.c"]


def test_a_place_that_cannot_be_written(tmp_path: Path, capfd: Any) -> None:
    assert "cannot write" in said(capfd, "-o", tmp_path / "no" / "t", "--", "ls")


def test_a_program_that_fails_is_recorded_all_the_same(tmp_path: Path, capfd: Any) -> None:
    trace = tmp_path / "t.jsonl"
    assert main(["record", "-o", str(trace), "--", "ls", str(tmp_path / "nowhere")]) == 0
    assert "the program ended with  2" in capfd.readouterr().out
    assert main(["replay", str(trace)]) == 0

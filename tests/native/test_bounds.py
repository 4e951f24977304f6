"""The compiled loops never step outside of their buffers, whatever the bytes are.

Seen by AddressSanitizer and UBSan on inputs of a generator; `make fuzz-native` uses libFuzzer.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HARNESS = ROOT / "tests" / "native" / "bounds.c"
SOURCE = ROOT / "src" / "heapglass" / "native" / "heapglass.c"
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
INPUTS = 40_000


def run(folder: Path, source: str, optimised: str) -> subprocess.CompletedProcess[str]:
    """Build the harness with a source and give it the inputs."""
    (folder / "heapglass.c").write_text(source)
    harness = HARNESS.read_text().replace("../../src/heapglass/native/heapglass.c", "heapglass.c")
    (folder / "bounds.c").write_text(harness)
    flags = ["-std=gnu11", optimised, "-g", "-Wall", "-Wextra", *SANITIZED]
    program = folder / "bounds"
    subprocess.run(["gcc", *flags, "-o", program, folder / "bounds.c"], check=True)
    command = [str(program), str(INPUTS), "20260"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_nothing_outside_of_a_buffer_is_touched(tmp_path: Path):
    done = run(tmp_path, SOURCE.read_text(), "-O1")
    assert done.stderr == ""
    assert done.stdout == f"{INPUTS} inputs\n"


@pytest.mark.parametrize(
    ("guard", "without"),
    [
        ("at < end && count < room && last - at >= 2 * (u64) word", "at < end && count < room"),
        ("at < end && count < room &&", "at < end &&"),
        ("while (room - count >= 4)", "while (1)"),
        ("at >= end || last - at < 2 * (u64) word", "at >= end"),
        ("seen->mark < marked && marks[seen->mark] < at", "marks[seen->mark] < at"),
        ("if (found < room)", "if (1)"),
        ("if (next[group] < ends[group])", "if (1)"),
        ("span->length - offset < 4 * (u64) word", "0"),
        ("span->length - (at - span->base) < 2 * (u64) word", "0"),
        ("*length = usable < left ? usable : left", "*length = usable"),
        ("row < 0 || !wanted[row]", "!wanted[row]"),
        ("is = span->length - offset >= 2 * (u64) word\n             &&", "is ="),
        ("count = count < 10 ? count : 10;", ""),
    ],
)
def test_a_guard_that_is_missing_is_noticed(guard: str, without: str, tmp_path: Path):
    source = SOURCE.read_text()
    assert guard in source
    done = run(tmp_path, source.replace(guard, without), "-O0")
    assert done.returncode != 0
    assert "Sanitizer" in done.stderr or "not so" in done.stderr or "runtime error" in done.stderr

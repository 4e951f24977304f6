"""Programs whose calls gdb recorded from the first on: the model has the same heap at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from programs import ARCHES, RELEASES, Runtime, build
from session import run_gdb, settings

EVERY = [(glibc, arch) for glibc in RELEASES for arch in ARCHES]
PROGRAMS = ("threads", "exited", "heaps", "memalign", "mmapped", "foreign", "bins", "reuse")
CASES = [(where, PROGRAMS[number % len(PROGRAMS)]) for number, where in enumerate(EVERY)]
CASES.append((EVERY[-2], "threads"))


@pytest.mark.parametrize(
    ("runtime", "program"),
    CASES,
    indirect=["runtime"],
    ids=[f"{glibc}-{arch}-{program}" for (glibc, arch), program in CASES],
)
def test_the_model_has_what_the_process_has(runtime: Runtime, program: str, tmp_path: Path) -> None:
    trace, said = tmp_path / "calls.jsonl", tmp_path / "said.json"
    commands = [
        *settings(str(runtime.debug_dir)),
        f"file {build(runtime, program)}",
        f"heap trace start {trace}",
        *("break heap_ready", f"run {tmp_path / 'report'}", "heap trace stop"),
        *("python", "import gdb"),
        f"said = gdb.execute('heap verify {trace} --json', to_string=True)",
        f"open({str(said)!r}, 'w').write(said)",
        *("end", "kill"),
    ]
    run_gdb(tmp_path / "script.gdb", commands)
    found = json.loads(said.read_text())

    assert found["differences"] == []
    assert found["compared"]["calls"] > 20
    assert found["compared"]["chunks"] > 2
    assert found["compared"]["bins"] > 100

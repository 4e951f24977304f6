"""Programs with many threads, recorded in gdb on real releases, without any symbols."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from programs import ARCHES, RELEASES, Runtime, build
from session import NOWHERE, run_gdb, settings
from test_record import calls, counted, counter

from heapglass.model.replay import replay
from heapglass.model.trace import read_trace

EVERY = [(glibc, arch) for glibc in RELEASES for arch in ARCHES]
THREADS = 4
ALIGNED = ("memalign", "aligned_alloc", "posix_memalign")


def traced(folder: Path, program: Path, words: str, *before: str) -> tuple[Path, str]:
    """Run a program in gdb with a recording; the trace, and what was said."""
    trace, script = folder / "t.jsonl", folder / "t.gdb"
    start = [*settings(NOWHERE), f"file {program}", *before, f"heapglass trace start {trace}"]
    run_gdb(script, [*start, f"run {words}"])
    return trace, script.with_suffix(".log").read_text()


@pytest.mark.parametrize(
    "runtime", EVERY, indirect=True, ids=[f"{glibc}-{arch}" for glibc, arch in EVERY]
)
def test_threads_traced_are_played_without_a_difference(runtime: Runtime, tmp_path: Path) -> None:
    """Also: as many calls as a library that is preloaded counts."""
    count = f"set environment LD_PRELOAD {counter(runtime.arch)}"
    program = build(runtime, "churn")
    trace, said = traced(tmp_path, program, f"3 1 {THREADS} 60", count)
    ops = Counter(call["op"] for call in calls(trace))
    counts = counted(said)
    plain = {op: number for op, number in counts.items() if op not in ALIGNED}

    assert "order is not sure" not in said
    assert [call["delta"] for call in calls(trace) if call["op"] == "brk"] == [5000, 300]
    assert ops["thread_start"] == THREADS
    assert {op: ops[op] for op in plain} == plain
    assert ops["memalign"] == sum(counts.get(op, 0) for op in ALIGNED)
    played = replay(read_trace(str(trace)), keep_going=True)
    assert played.mismatches == []
    assert played.calls > 300


@pytest.mark.parametrize("runtime", [EVERY[1], EVERY[4], EVERY[-2]], indirect=True)
@pytest.mark.parametrize("program", ["threads", "mmapped"])
def test_the_memory_is_what_the_model_makes_of_it(
    runtime: Runtime, program: str, tmp_path: Path
) -> None:
    """The trace of a process, played and laid beside its memory while it stands."""
    trace, script = tmp_path / "t.jsonl", tmp_path / "t.gdb"
    start = [*settings(NOWHERE), f"file {build(runtime, program)}", "break heap_ready"]
    lines = [*start, f"heapglass trace start {trace}", f"run {tmp_path / 'report'}"]
    run_gdb(script, [*lines, "heapglass trace stop", f"heapglass verify {trace}"])

    said = script.with_suffix(".log").read_text()
    assert "the model has the same" in said
    assert "mmapped chunks" in said


@pytest.mark.parametrize("runtime", [EVERY[1], EVERY[-2]], indirect=True)
@pytest.mark.parametrize("how", ["abort", "crash"])
def test_how_it_died_is_traced(runtime: Runtime, how: str, tmp_path: Path) -> None:
    trace, _ = traced(tmp_path, build(runtime, "churn"), f"2 1 2 30 {how}")
    played = replay(read_trace(str(trace)))

    assert played.mismatches == []
    ending = played.abort if how == "abort" else played.fault
    assert ending is not None
    assert ending.line == len(calls(trace)) + 1

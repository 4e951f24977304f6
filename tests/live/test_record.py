"""Programs with many threads, recorded on real releases: the model answers as malloc did."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from programs import ARCHES, BUILT, MACHINE, RELEASES, SOURCES, Runtime, build

from heapglass.cli import main
from heapglass.model.replay import replay
from heapglass.model.trace import read_trace

EVERY = [(glibc, arch) for glibc in RELEASES for arch in ARCHES]
every_runtime = pytest.mark.parametrize(
    "runtime", EVERY, indirect=True, ids=[f"{glibc}-{arch}" for glibc, arch in EVERY]
)
newest = pytest.mark.parametrize("runtime", [EVERY[-2]], indirect=True)
THREADS = 9


def counter(arch: str) -> Path:
    """The library that counts calls, for an ABI."""
    source, made = SOURCES / "counter.c", BUILT / f"counter-{arch}.so"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        made.parent.mkdir(parents=True, exist_ok=True)
        words = ["gcc", MACHINE[arch], "-O1", "-fno-builtin", "-fPIC", "-shared", "-nostdlib"]
        subprocess.run([*words, str(source), "-o", str(made)], check=True)
    return made


def counted(said: str) -> dict[str, int]:
    """What the counter said."""
    line = next(line for line in said.splitlines() if line.startswith("malloc "))
    pairs = (pair.split() for pair in line.split(","))
    return {name: int(number) for name, number in pairs if int(number)}


def recorded(trace: Path, capfd: Any, *words: object) -> dict[str, Any]:
    """Record a program through the shell door; the row about it."""
    assert main(["record", "-o", str(trace), "--json", "--", *map(str, words)]) == 0
    out, err = capfd.readouterr()
    document = json.loads(out)
    return {**document, **document["traces"][0], "said": err}


def calls(trace: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trace.read_text().splitlines()[1:]]


@every_runtime
def test_threads_recorded_are_played_without_a_difference(
    runtime: Runtime, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also: what was recorded is what a counter behind the recorder saw."""
    program, library = build(runtime, "churn"), counter(runtime.arch)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    trace = tmp_path / "t.jsonl"
    row = recorded(trace, capfd, program, 3, 2, THREADS, 300)

    assert row["status"] == 0
    assert row["warnings"] == []
    assert row["threads"] == 2 * THREADS + 1
    ops = Counter(call["op"] for call in calls(trace))
    assert ops["thread_start"] == 2 * THREADS
    assert ops["malloc_trim"]
    assert ops["mallopt"] == 1
    assert ops["brk"] == 3  # one asks where it is
    counts = counted(row["said"])
    assert {op: ops[op] for op in counts} == counts
    assert row["calls"] == sum(counts.values()) + ops["malloc_trim"] + 4

    played = replay(read_trace(str(trace)), keep_going=True)
    assert played.mismatches == []
    assert played.calls == sum(ops.values()) > 4000


@every_runtime
@pytest.mark.parametrize("how", ["abort", "crash"])
def test_how_it_died_is_recorded(runtime: Runtime, how: str, tmp_path: Path, capfd: Any) -> None:
    trace = tmp_path / "t.jsonl"
    row = recorded(trace, capfd, build(runtime, "churn"), 2, 1, 2, 100, how)
    last = calls(trace)[-1]
    played = replay(read_trace(str(trace)))

    assert played.mismatches == []
    assert last["op"] == "free"
    if how == "abort":
        assert row["status"] == -6
        assert last["abort"] == "double free or corruption (!prev)" == row["ending"]
        assert played.abort is not None
    else:
        assert row["status"] == -11
        assert last["signal"] == "SIGSEGV" == row["ending"]
        assert last["ptr"] == "0x123450"
        assert played.fault is not None


@newest
@pytest.mark.parametrize("what", ["fork", "close", "exec", "handler"])
def test_odd_programs(runtime: Runtime, what: str, tmp_path: Path, capfd: Any) -> None:
    trace = tmp_path / "t.jsonl"
    row = recorded(trace, capfd, build(runtime, "oddly"), what)
    ops = Counter(call["op"] for call in calls(trace))

    assert row["status"] == 0
    assert row["warnings"] == []
    assert ops["free"] == {"fork": 10, "close": 70010, "exec": 10, "handler": 13}[what]
    if what != "close":
        assert replay(read_trace(str(trace)), keep_going=True).mismatches == []


@newest
def test_tunables_are_in_the_header(
    runtime: Runtime, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=2:glibc.malloc.arena_max=0x2")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "65536")
    trace = tmp_path / "t.jsonl.gz"
    recorded(trace, capfd, build(runtime, "churn"), 4, 1, 4, 100)
    read = read_trace(str(trace))

    assert read.header.tunables == {
        "glibc.malloc.top_pad": 65536,
        "glibc.malloc.tcache_count": 2,
        "glibc.malloc.arena_max": 2,
    }
    assert replay(read, keep_going=True).mismatches == []


@newest
def test_children_each_have_a_trace(runtime: Runtime, tmp_path: Path, capfd: Any) -> None:
    program = build(runtime, "oddly")
    line = f"{program} fork & {program} handler; wait"
    words = ["record", "-o", str(tmp_path / "t.jsonl"), "--json"]
    assert main([*words, "--", "sh", "-c", line]) == 0
    alone = json.loads(capfd.readouterr().out)
    assert main([*words, "--children", "--", "sh", "-c", line]) == 0
    row = json.loads(capfd.readouterr().out)

    assert len(alone["traces"]) == 1
    assert len(row["traces"]) == 3
    assert sorted(one["calls"] for one in row["traces"][1:])[-1] >= 26
    assert {one["glibc"] for one in row["traces"][1:]} == {runtime.glibc}

"""`heap trace`: what it records, when it stops, what it says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from heapglass.cli import main
from heapglass.model.replay import replay
from heapglass.model.trace import read_trace

from .sessions import LOAD, batch, complaint

HERE = Path(__file__).parent
BARE = "set debug-file-directory /nonexistent"


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("calls") / "calls"
    words = ["gcc", "-g", "-O0", "-fno-builtin", "-Wno-use-after-free", "-Wno-free-nonheap-object"]
    subprocess.run([*words, "-o", built, HERE / "calls.c"], check=True)
    return built


@pytest.fixture(scope="module")
def stripped(calls: Path) -> Path:
    made = calls.with_name("stripped")
    subprocess.run(["strip", "-o", made, calls], check=True)
    return made


def lines(trace: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trace.read_text().splitlines()]


def test_every_call_from_the_first_on_without_symbols(stripped: Path, tmp_path: Path):
    trace = tmp_path / "t.jsonl"
    said = batch([LOAD, BARE, f"heap trace start {trace}", "run", "heap trace"], stripped)
    header, *found = lines(trace)

    assert "waiting for the C library" in said.out
    assert f"recorded: file {trace}, calls {len(found)}, threads 1" in said.out
    assert "nothing is recorded" in said.out
    assert header["by"] == "gdb"
    assert "fresh" not in header
    assert [call["op"] for call in found[:5]] == ["malloc", "malloc", "realloc", "free", "malloc"]
    assert [call.get("size") for call in found[:5]] == [40, 100, 3000, None, 777]
    assert replay(read_trace(str(trace))).mismatches == []


def test_it_can_be_stopped_and_started_at_a_stop(calls: Path, tmp_path: Path):
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl.gz"
    script = [
        *(LOAD, "starti", f"heap trace start {first}", "break here", "continue"),
        *("heap trace", "heap trace stop", f"heap trace start {second}", "continue"),
        *("heap trace stop", "continue"),
    ]
    said = batch(script, calls)

    assert [call["op"] for call in lines(first)[1:]] == ["malloc", "malloc"]
    assert replay(read_trace(str(first))).mismatches == []
    later = read_trace(str(second))
    assert not later.header.fresh
    assert [call.op for call in later.calls] == ["realloc", "free", "malloc"]
    assert "malloc was in use already" in said.out
    assert "threads overlap: the order" in said.out
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize(
    ("word", "kind", "told"),
    [
        ("d", "double-free", "which was freed by free() at call 4, thread 1: main+"),
        ("n", "non-chunk", "which malloc did not give"),
        ("x", "size=777", "malloc asks for 777 bytes"),
    ],
)
def test_stops(calls: Path, tmp_path: Path, word: str, kind: str, told: str):
    trace = tmp_path / "t.jsonl"
    start = f"heap trace start {trace} --stacks 3 --stop-on {kind}"
    said = batch([LOAD, start, f"run {word}", "backtrace 2", "heap trace stop"], calls)

    assert told in said.out
    assert "main (" in said.out
    assert f"stops on  {kind.replace('=', ' ')}" in said.out
    assert all(call["stack"][0].partition(" ")[2].startswith("main+") for call in lines(trace)[1:])


def test_a_write_behind_a_block_stops(calls: Path, tmp_path: Path):
    script = [
        *(LOAD, f"heap trace start {tmp_path / 't'}", "break here", "run w"),
        *("heap trace stop-on write p", "python print('now')", "continue", "print p[40]"),
        *("heap trace stop-on off", "heap trace", "continue", "print q == 0"),
    ]
    said = batch(script, calls).out.split("now\n")[1]

    assert "heapglass: a write to 0x" in said
    assert "$1 = 120 'x'" in said
    assert "stops on" not in said.split("$1 =")[1]
    assert "$2 = 0" in said


def test_an_abort_is_the_end(calls: Path, tmp_path: Path):
    trace = tmp_path / "t.jsonl"
    batch([LOAD, f"heap trace start {trace}", "run d", "heap trace stop"], calls)
    last = lines(trace)[-1]

    assert last["op"] == "free"
    assert "double free" in last["abort"]
    assert replay(read_trace(str(trace))).mismatches == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("heap trace stop", "nothing is recorded"),
        ("heap trace start", "trace start needs a file"),
        ("heap trace stop-on double-free", "nothing is recorded"),
        ("heap trace start /tmp/x --stop-on rain", "cannot stop on rain"),
        ("heap trace dance", "invalid choice"),
    ],
)
def test_what_makes_no_sense(command: str, said: str):
    assert said in complaint(command, [LOAD])


def test_a_file_that_cannot_be_written(calls: Path, tmp_path: Path):
    said = batch([LOAD, f"heap trace start {tmp_path / 'no' / 't'}", "run"], calls)
    assert "nothing is recorded: cannot write" in said.err


def test_in_a_shell_it_says_where_it_works(capsys: pytest.CaptureFixture[str]):
    assert main(["trace", "start", "x"]) == 2
    assert "trace works in gdb (in a shell: heapglass record" in capsys.readouterr().err


def test_a_chunk_says_where_it_came_from(calls: Path, tmp_path: Path):
    trace = tmp_path / "t.jsonl"
    script = [
        *(LOAD, f"heap trace start {trace} --stacks 2", "break here", "run", "set var $q = q"),
        *("continue", "heap chunk p", "heap chunk $q --json", "heap trace stop"),
        *("heap chunk p", f"heap chunk p --trace {trace}"),
    ]
    said = batch(script, calls).out
    shown = [line for line in said.splitlines() if line.startswith("allocated by")]

    assert len(shown) == 2
    assert shown[0] == shown[1]
    assert "malloc(40) at call 1, thread 1: main+" in shown[0]
    assert '"allocated": "malloc(777) at call 5, thread 1: main+' in said
    assert '"freed"' not in said


def test_a_static_program_is_not_recorded(tmp_path: Path):
    built = tmp_path / "static"
    subprocess.run(["gcc", "-static", "-o", built, HERE / "calls.c", "-w"], check=True)
    said = batch([LOAD, f"heap trace start {tmp_path / 't'}", "run", "heap trace"], built)

    assert "nothing was recorded: no C library was loaded" in said.err
    assert "nothing is recorded" in said.out

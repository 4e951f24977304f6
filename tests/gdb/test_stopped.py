"""A target is read once as long as it stands still, and anew when it may differ."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .sessions import GDBSERVER, LOAD, STOPPED, answers

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "programs"

COUNT = """python
import os
import heapglass_gdb.source as s, heapglass.targets.process as p
reads = []
def count(name, real):
  def counted(*words):
    reads.append(name)
    return real(*words)
  return counted
p.os.preadv = count("proc", os.preadv)
s.GdbMemory.read = count("gdb", s.GdbMemory.read)
for name in ("_core", "_LiveSource"):
  setattr(s, name, count("open", getattr(s, name)))
def said():
  gdb.write(f"{len(reads)} {reads.count('open')}\\n")
  reads.clear()
end"""
SAID = "python said()"


def counting(tmp_path: Path) -> str:
    path = tmp_path / "count.gdb"
    path.write_text(COUNT)
    return f"source {path}"


def numbers(text: str) -> tuple[int, int]:
    reads, opened = text.split()
    return int(reads), int(opened)


def test_the_second_command_of_a_stop_reads_nothing(program: Path, tmp_path: Path):
    setup = [*STOPPED, counting(tmp_path)]
    asked = ["heap chunks --all", SAID, "heap chunks --all", SAID]
    first, then, again, after = answers(asked, setup, program)
    assert first == again
    assert numbers(then)[0] > 3
    assert numbers(then)[1] == 1
    assert numbers(after) == (0, 0)


@pytest.mark.parametrize(
    "change",
    [
        "set var *(long *) (blocks[2] - 8) = 17",
        "python gdb.selected_inferior().write_memory(int(gdb.parse_and_eval('blocks[2]')), b'x')",
        "next",
        "call (int) touch ()",
        "set var $rax = 1",
        "add-symbol-file /proc/self/exe 0x100000",
        "set debug-file-directory /nonexistent",
        "set heapglass memory-limit 1000",
    ],
)
def test_what_may_change_something_makes_it_look_again(change: str, program: Path, tmp_path: Path):
    setup = [*STOPPED, counting(tmp_path), "heap info", "python reads.clear()", change]
    (_, said) = answers(["heap info", SAID], setup, program)
    assert numbers(said)[1] == 1


def test_a_changed_byte_is_seen(program: Path):
    find = "heap find --hex 6363636363636363 --json"
    change = "set var blocks[2][1000] = 'x'"
    setup = [*STOPPED, "up", find, change]
    (before, after) = answers([find, find], [*STOPPED], program)
    assert before == after
    (changed,) = answers([find], setup, program)
    assert json.loads(changed)["hits"] != json.loads(before)["hits"] != []


def test_more_than_the_limit_is_read_all_the_same(program: Path):
    asked = ["heap chunks --all --json", "set heapglass memory-limit 4096"]
    plain, _, limited = answers([*asked, asked[0]], STOPPED, program)
    assert json.loads(limited)["chunks"] == json.loads(plain)["chunks"] != []


FILES = """python
from heapglass.room import Room
files, in_file = [], Room._in_file
def counted(room, size):
  files.append(size)
  return in_file(room, size)
Room._in_file = counted
end"""


@pytest.mark.parametrize("remote", [False, True])
def test_a_heap_over_the_limit_is_worked_through_in_windows(tmp_path: Path, remote: bool):
    program, script = tmp_path / "many", tmp_path / "files.gdb"
    subprocess.run(["gcc", "-g", "-o", program, FIXTURES / "many.c"], check=True)
    script.write_text(FILES)
    listed = ["heap chunks --all --json", "heap check --json", "heap refs blocks[7999] --json"]
    limit = ["set heapglass memory-limit 5000000", f"source {script}"]
    start = [LOAD, "break ready", f"target extended-remote | {GDBSERVER} - {program}"]
    setup = [*start, "continue", "up"] if remote else STOPPED
    said = answers([*listed, *limit, *listed, "python print(files)"], setup, program)
    assert said[:3] == said[5:8]
    assert said[8] == "[]"
    assert len(json.loads(said[0])["chunks"]) > 8000
    assert len(json.loads(said[2])["refs"]) > 6000


def test_a_core_is_opened_once_and_anew_when_it_is_another(
    core: Path, program: Path, tmp_path: Path
):
    copy = tmp_path / "copy.core"
    copy.write_bytes(core.read_bytes())
    load = [LOAD, f"core-file {copy}", counting(tmp_path), "heap info", "python reads.clear()"]
    touch = f"shell touch -d 2001-01-01 {copy}"
    said = answers(["heap info", SAID, touch, "heap info", SAID], load, program)
    assert numbers(said[1])[1] == 0
    assert numbers(said[4])[1] == 1


def test_sourced_again_it_starts_anew(program: Path, tmp_path: Path):
    setup = [*STOPPED, "heap info", LOAD, counting(tmp_path)]
    said = answers(["heap info", SAID, "next", "heap info", SAID], setup, program)
    assert numbers(said[1])[1] == 1
    assert numbers(said[4])[1] == 1


def test_an_abort_is_explained_live_and_in_its_core(tmp_path: Path):
    source = FIXTURES / "overflow.c"
    program, core = tmp_path / "overflow", tmp_path / "core"
    subprocess.run(["gcc", "-w", "-s", "-o", program, source], check=True)
    said = answers(
        ["heap explain --json", f"generate-core-file {core}", "heap explain"],
        [LOAD, "run"],
        program,
    )
    found = json.loads(said[0])
    assert found["message"] == "malloc(): invalid size (unsorted)"
    assert found["message_how"] == "__abort_msg"
    assert found["signal"]["number"] == 6
    assert found["cause"]["kind"] == "overflow"
    below = found["findings"][0]["evidence"]["below"]
    assert found["cause"]["culprit"] == below["address"]
    assert said[2].startswith("malloc(): invalid size (unsorted)\n    check    _int_malloc: ")
    in_core = answers(["heap explain --json"], [LOAD, f"core-file {core}"], None)
    assert json.loads(in_core[0])["chunk"] == found["chunk"]

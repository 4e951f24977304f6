"""What gdb's target offers: a remote one, memory in pieces, gdb's own symbols, the loader."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gdb.sessions import EXTENSION, GDBSERVER, LOAD, PATIENCE, STOPPED, answers, batch

LINES = ("heap chunks --all --json", "heap bins --json", "heap info --json", "heap tcache --json")


@pytest.fixture
def server(program: Path) -> Iterator[str]:
    """A gdbserver with the program, at the returned address of this machine."""
    started = subprocess.Popen(
        [GDBSERVER, "--once", "--no-startup-with-shell", "localhost:0", str(program)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stderr is not None
        said = ""
        while "Listening on port" not in said:
            said = started.stderr.readline()
            assert said, "gdbserver ended before it listened"
        yield f"localhost:{said.split()[-1]}"
    finally:
        started.kill()
        started.communicate(timeout=PATIENCE)


def same_in_both(text: str) -> dict[str, object]:
    """An answer without what tells one run, or one kind of target, from another."""
    plain = re.sub(r'"(pid|id|thread)": \d+', r'"\1": 0', text)
    made: dict[str, object] = json.loads(re.sub(r'"threads": \[[\d, ]*\]', '"threads": []', plain))
    made.pop("source", None)
    return made


def test_a_remote_process_is_read_as_a_local_one(program: Path, server: str):
    remote = [LOAD, f"target remote {server}", "break ready", "continue", "up"]
    far = answers(LINES, remote, program)
    near = answers(LINES, STOPPED, program)

    assert [same_in_both(text) for text in far] == [same_in_both(text) for text in near]
    assert json.loads(far[0])["chunks"]
    assert json.loads(far[2])["source"]["kind"] == "remote"
    assert len(json.loads(far[2])["threads"]) == 2


def test_a_remote_process_that_tells_no_mappings_is_warned_of(program: Path, server: str):
    remote = [LOAD, f"target remote {server}", "break ready", "continue", "up"]
    silent = "python import heapglass_gdb.source as s; s._mappings = lambda *_: []"
    setup = [*remote, silent, "set heapglass glibc 2.36"]
    (said,) = answers(["heap info"], setup, program)

    assert "! the remote target does not tell its mappings" in said


def in_gdb(script: str, program: Path, place: Path) -> str:
    """Run Python in gdb with the program stopped; return what it wrote."""
    path = place / "script.py"
    path.write_text(f"import gdb\n{script}")
    (said,) = answers([f"source {path}"], STOPPED, program)
    return said


def test_memory_is_read_exactly_or_not_at_all(program: Path, tmp_path: Path):
    script = """
from heapglass.errors import MemoryFault
from heapglass.memory import Region
from heapglass.room import Room
from heapglass_gdb.memory import GdbMemory

block = int(gdb.parse_and_eval("blocks[0]"))
memory = GdbMemory(gdb.selected_inferior(), [], Room())
assert memory.read(block, 5) == b"aaaaa"
assert memory.read(block, 0) == b""
assert bytes(memory.view(block, block + 3)) == b"aaa"
assert memory.regions() == []
known = GdbMemory(gdb.selected_inferior(), [Region(block, block + 100)], Room())
faults = 0
wild = [(0, 8), (-1, 8), (1 << 64, 8), (1 << 80, 8)]
wild += [(block, 1 << 40), (block, 1 << 70), (block, -5)]
for address, size in wild:
    for one in (memory, known):
        for call in (lambda: one.read(address, size), lambda: one.view(address, address + size)):
            try:
                call()
            except MemoryFault:
                faults += 1
gdb.write(f"{faults} faults\\n")
"""
    assert in_gdb(script, program, tmp_path) == "28 faults"


def test_a_large_view_is_put_together_from_pieces(program: Path, tmp_path: Path):
    script = """
import heapglass_gdb.memory as m
from heapglass.room import Room
m.PIECE = 100
block = int(gdb.parse_and_eval("blocks[0]"))
whole = bytes(gdb.selected_inferior().read_memory(block - 50, 1234))
view = m.GdbMemory(gdb.selected_inferior(), [], Room()).view(block - 50, block - 50 + 1234)
assert view == whole and view.readonly
gdb.write("the same\\n")
"""
    assert in_gdb(script, program, tmp_path) == "the same"


def test_gdbs_own_symbols_are_asked_too(program: Path, tmp_path: Path):
    script = """
from heapglass_gdb.source import gdb_symbols
(first,) = gdb_symbols("first")
assert first.value == int(gdb.parse_and_eval("&first")), first
assert (first.how, first.tls, first.size) == ("dwarf", False, 8)
assert gdb_symbols("no_such_name") == []
gdb.write("found\\n")
"""
    assert in_gdb(script, program, tmp_path) == "found"


def test_without_pyelftools_it_says_what_to_install(tmp_path: Path):
    copy = tmp_path / "gdbext" / "heapglass.py"
    copy.parent.mkdir()
    copy.write_text(EXTENSION.read_text())
    hide = "python import sys; sys.modules['elftools'] = None"
    said = batch([hide, f"source {copy}", "heapglass size 24"])

    assert said.err.splitlines()[0] == (
        "heapglass is not loaded: pyelftools is missing: install the package python3-pyelftools, "
        "or run `make demo`"
    )
    assert "Undefined command" in said.err


def test_pyelftools_of_the_projects_own_environment_is_used(tmp_path: Path):
    copy = tmp_path / "gdbext" / "heapglass.py"
    copy.parent.mkdir()
    copy.write_text(EXTENSION.read_text())
    own = tmp_path / ".venv" / "lib" / "python3.99" / "site-packages"
    (own / "elftools").mkdir(parents=True)
    (own / "elftools" / "__init__.py").write_text("")
    package = tmp_path / "gdbext" / "heapglass_gdb"
    package.mkdir()
    (package / "__init__.py").write_text("def register():\n    print('registered')\n")
    hide = (
        "python import sys; sys.path[:] = [p for p in sys.path if 'dist-packages' not in p "
        "and 'site-packages' not in p]"
    )
    said = batch([hide, f"source {copy}", "python print(sys.path[-1])"])

    assert said.out.splitlines() == ["registered", str(own)]


def test_mappings_without_a_name_do_not_take_the_next_line(program: Path, tmp_path: Path):
    """Before gdb 12 there are no permissions, so that the line of nameless memory ends early."""
    script = """
from heapglass.source import Machine
from heapglass_gdb import source

lines = [
    "          Start Addr           End Addr       Size     Offset objfile",
    "      0x555555558000     0x555555559000     0x1000     0x3000 /bin/a program",
    "      0x7ffff0000000     0x7ffff0021000    0x21000        0x0 ",
    "      0x7ffff7dd4000     0x7ffff7dfa000    0x26000        0x0 /lib/libc.so.6",
]
said = chr(10).join(lines)
gdb.execute = lambda *_, **__: said
for region in source._mappings(Machine("x86_64", 8, "little")):
    gdb.write(f"{region.start:#x} {region.perms} {region.path!r}" + chr(10))
"""
    assert in_gdb(script, program, tmp_path).splitlines() == [
        "0x555555558000 rw- '/bin/a program'",
        "0x7ffff0000000 rw- ''",
        "0x7ffff7dd4000 rw- '/lib/libc.so.6'",
    ]

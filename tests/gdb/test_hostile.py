"""Damaged cores in gdb: whatever gdb makes of them, heapglass answers without a traceback."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.fuzz.mutate import core_recipe
from tests.fuzz.recipe import target_bytes
from tests.gdb.sessions import LOAD, batch

COUNT, SEED = 30, 41
COMMANDS = ("info", "arenas", "chunks --limit 20", "bins", "tcache", "heaps --json", "vis")


def test_damaged_cores_give_no_traceback_in_gdb(tmp_path: Path):
    random = Random(SEED)
    lines = [LOAD]
    for number in range(COUNT):
        path = tmp_path / f"core-{number}"
        path.write_bytes(target_bytes(core_recipe(random)))
        lines.append(f"core-file {path}")
        lines += [f"heapglass {words}" for words in COMMANDS]

    said = batch(lines)

    assert "Traceback" not in said.out + said.err
    assert "Python Exception" not in said.err
    assert "Error occurred in Python" not in said.err
    assert "a fault in heapglass" not in said.err
    assert said.out.count("main_arena") > COUNT // 2

"""Cores of real processes whose malloc tags memory: glibc.mem.tagging on arm64, with MTE.

Their pointers have tags, as the program itself printed them. Beside each core lies what it printed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heapglass.analysis.malloc_info import malloc_info
from heapglass.heap.heap import Heap
from heapglass.locate import Overrides, locate
from heapglass.source import Symbol
from heapglass.targets import OpenOptions, open_target
from tests.views.asked import document

TAGGED = Path(__file__).resolve().parents[2] / "fixtures" / "cores" / "tagged"
CORES = sorted(TAGGED.glob("*.core.xz"))
ADDRESS = (1 << 56) - 1

every_core = pytest.mark.parametrize("path", CORES, ids=[path.name[:-8] for path in CORES])


def read(path: Path, symbol: bool, said: Overrides | None = None) -> tuple[Heap, dict[str, Any]]:
    """Open a core with no file at hand; *symbol*: with the address of mtag_enabled."""
    report = json.loads(path.with_name(path.name[: -len(".core.xz")] + ".json").read_text())
    source = open_target(str(path), OpenOptions(sysroot="/nonexistent", debug_dirs=[]))
    if symbol:
        found = Symbol("mtag_enabled", int(report["mtag_enabled"], 16), 1, "symbol", "")
        source.symbols = lambda name: [found] if name == found.name else []  # type: ignore
    return Heap(locate(source, said)), report


def blocks(report: dict[str, Any]) -> dict[int, int]:
    """Return what the program and its libraries hold, by address without the tag."""
    library = {mem: block["usable"] for mem, block in report["library"].items()}
    return {int(mem, 16) & ADDRESS: n for mem, n in {**report["live"], **library}.items()}


def test_there_are_such_cores():
    assert len(CORES) == 3


@every_core
def test_the_programs_pointers_have_tags(path):
    _, report = read(path, symbol=False)

    assert len({int(mem, 16) >> 56 for mem in report["live"]}) > 3


@every_core
def test_the_used_chunks_are_the_programs_with_the_size_that_it_may_use(path):
    heap, report = read(path, symbol=True)

    held = {
        chunk.address + heap.layout.header: heap.usable(chunk.size, chunk.state == "mmapped")
        for chunk in heap.every_chunk()
        if chunk.state in ("used", "mmapped") and not chunk.owner
    }

    assert held == blocks(report)
    assert heap.problems == []
    assert malloc_info(heap) == report["malloc_info"]


@every_core
def test_without_symbols_only_the_usable_sizes_are_not_known(path):
    heap, report = read(path, symbol=False)
    target = heap.target

    answer = document(target, "chunks --all")

    rows = [row for row in answer["chunks"] if not row["owner"]]
    used = {int(row["user"], 16): row["usable"] for row in rows if row["state"] == "used"}
    mapped = {int(row["user"], 16): row["usable"] for row in rows if row["state"] == "mmapped"}
    assert set(used.values()) == {None}
    assert mapped == {mem: n for mem, n in blocks(report).items() if mem not in used}
    assert set(used) == set(blocks(report)) - set(mapped)
    assert len(answer["warnings"]) == 1
    assert "mtag_enabled" in answer["warnings"][0]
    assert target.missing == []
    said = {thread["id"]: int(thread["tcache"], 16) for thread in report["threads"]}
    assert {thread.id: thread.tcache for thread in target.threads} == said


@every_core
def test_a_pointer_is_followed_as_the_program_printed_it(path):
    heap, report = read(path, symbol=True)

    for mem in list(report["live"])[:20]:
        shown = document(heap.target, f"chunk {mem}")["chunk"]
        assert int(shown["user"], 16) == int(mem, 16) & ADDRESS


@every_core
def test_what_a_user_gives_may_have_a_tag(path):
    _, report = read(path, symbol=False)
    tag = 0xB << 56
    arena, mp = (int(report[name], 16) | tag for name in ("main_arena", "mp_"))
    thread = report["threads"][0]
    said = Overrides("2.41", arena, mp, {thread["id"]: int(thread["tcache"], 16) | tag})

    heap, _ = read(path, True, said)

    assert heap.target.main_arena[:2] == (arena ^ tag, "user")
    assert heap.target.mp[:2] == (mp ^ tag, "user")
    assert malloc_info(heap) == report["malloc_info"]

"""Cores of five real releases: no libc and no program at hand, a small debug file by build id.

Each core has beside it what its program said of itself before it was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heapglass.analysis.malloc_info import malloc_info
from heapglass.heap.heap import Heap
from heapglass.locate import Overrides, locate
from heapglass.targets import OpenOptions, open_target

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
CORES = sorted((FIXTURES / "cores").glob("*.core.xz"))
NAMES = [path.name[: -len(".core.xz")] for path in CORES]


# What is at hand beside the core itself: debug files by build id, the release from the user.
HELP = {"symbols": (True, True), "no symbols": (False, True), "nothing": (False, False)}


def read(path: Path, debug_files: bool, release: bool) -> tuple[Heap, dict[str, Any]]:
    report = json.loads(path.with_name(path.name[: -len(".core.xz")] + ".json").read_text())
    folders = [str(FIXTURES / "debug")] if debug_files else []
    options = OpenOptions(sysroot="/nonexistent", debug_dirs=folders)
    source = open_target(str(path), options)
    said = Overrides(glibc=report["glibc"] if release else None)
    return Heap(locate(source, said)), report


@pytest.fixture(params=HELP)
def core(request: pytest.FixtureRequest, path: Path) -> Iterator[tuple[Heap, dict[str, Any]]]:
    return read(path, *HELP[request.param])


every_core = pytest.mark.parametrize("path", CORES, ids=NAMES)


@every_core
def test_what_nobody_says_is_told_by_structure(path: Path):
    heap, report = read(path, *HELP["nothing"])

    possible = heap.target.releases
    assert tuple(map(int, report["glibc"].split("."))) in possible
    assert heap.target.release in (None, report["glibc"])
    assert heap.target.glibc_how.startswith("by structure: malloc_state")
    assert heap.target.main_arena is not None
    assert heap.target.main_arena.how == "scan"


def test_every_release_has_cores_of_both_abis():
    have = {tuple(name.split("-")[:2]) for name in NAMES}

    assert have == {
        (release, arch)
        for release in ("2.31", "2.36", "2.41", "2.43", "2.44")
        for arch in ("amd64", "i386")
    }


@every_core
def test_the_variables_are_where_the_live_process_had_them(core, path):
    heap, report = core

    target = heap.target

    assert target.main_arena is not None
    assert target.mp is not None
    assert target.main_arena.address == int(report["main_arena"], 16)
    assert target.mp.address == int(report["mp_"], 16)
    said = {thread["id"]: thread for thread in report["threads"]}
    assert [thread.id for thread in target.threads] == sorted(said)
    for thread in target.threads:
        words = said[thread.id]
        assert thread.tp == int(words["pthread_self"], 16)
        assert (thread.arena or 0) == int(words["thread_arena"], 16)
        assert thread.arena_known
        if thread.tcache_state == "active":
            assert thread.tcache == int(words["tcache"], 16)
        else:  # NULL, or since 2.43 the read-only dummy: not in any heap
            assert thread.tcache is None
            assert heap.find(int(words["tcache"], 16)) is None


@every_core
def test_the_used_chunks_are_the_programs_and_the_librarys_own(core, path):
    heap, report = core
    header, layout = heap.layout.header, heap.layout
    chunks = list(heap.every_chunk())

    used = {
        chunk.address + header: layout.usable(chunk.size, chunk.state == "mmapped")
        for chunk in chunks
        if chunk.state in ("used", "mmapped") and not chunk.owner
    }

    library = {mem: block["usable"] for mem, block in report["library"].items()}
    held = {**report["live"], **library}
    assert used == {int(mem, 16): usable for mem, usable in held.items()}
    assert None not in {chunk.state for chunk in chunks}
    assert heap.problems == []


@every_core
def test_malloc_info_is_what_the_program_printed(core, path):
    heap, report = core

    assert malloc_info(heap) == report["malloc_info"]

"""Cores of other machines than x86, read with no symbols and no file at hand.

Each core has beside it what its program said of itself before it was stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heapglass.analysis.malloc_info import malloc_info
from heapglass.heap.heap import Heap
from heapglass.locate import Overrides, locate
from heapglass.targets import OpenOptions, open_target

FOREIGN = Path(__file__).resolve().parents[2] / "fixtures" / "cores" / "foreign"
CORES = sorted(FOREIGN.glob("*.core.xz"))
NAMES = [path.name[: -len(".core.xz")] for path in CORES]
ABIS = {
    "arm64": ("aarch64", 8, "little", 16),
    "armhf": ("arm", 4, "little", 8),
    "ppc64el": ("ppc64le", 8, "little", 16),
    "riscv64": ("riscv64", 8, "little", 16),
    "s390x": ("s390x", 8, "big", 16),
}


def read(path: Path, release: bool) -> tuple[Heap, dict[str, Any]]:
    report = json.loads(path.with_name(path.name[: -len(".core.xz")] + ".json").read_text())
    source = open_target(str(path), OpenOptions(sysroot="/nonexistent", debug_dirs=[]))
    said = Overrides(glibc=report["glibc"] if release else None)
    return Heap(locate(source, said)), report


@pytest.fixture(params=[True, False], ids=["release given", "nothing given"])
def core(request: pytest.FixtureRequest, path: Path) -> tuple[Heap, dict[str, Any]]:
    return read(path, request.param)


every_core = pytest.mark.parametrize("path", CORES, ids=NAMES)


def test_every_machine_has_cores_of_two_releases():
    have = {tuple(name.split("-")[:2]) for name in NAMES}

    assert {arch for _, arch in have} == set(ABIS)
    for arch in ABIS:
        assert len([glibc for glibc, one in have if one == arch]) >= 2, arch


@every_core
def test_the_machine_is_known(core, path):
    layout = core[0].layout
    abi, word, order, alignment = ABIS[core[1]["arch"]]

    assert (layout.abi, layout.word, layout.order, layout.alignment) == (
        abi,
        word,
        order,
        alignment,
    )


@every_core
def test_the_release_is_one_that_memory_fits(path):
    heap, report = read(path, release=False)

    assert tuple(map(int, report["glibc"].split("."))) in heap.target.releases
    assert heap.target.release in (None, report["glibc"])


@every_core
def test_main_arena_and_mp_are_found_by_structure(core, path):
    target, report = core[0].target, core[1]

    assert target.main_arena is not None
    assert target.mp is not None
    assert target.main_arena.how == target.mp.how == "scan"
    assert target.main_arena.address == int(report["main_arena"], 16)
    assert target.mp.address == int(report["mp_"], 16)


@every_core
def test_every_threads_tcache_and_arena_are_those_that_it_had(core, path):
    heap, report = core
    said = {thread["id"]: thread for thread in report["threads"]}

    assert [thread.id for thread in heap.target.threads] == sorted(said)
    for thread in heap.target.threads:
        words = said[thread.id]
        assert thread.tp == int(words["thread_pointer"], 16)
        assert thread.arena_known
        assert (thread.arena or 0) == int(words["thread_arena"], 16)
        if thread.tcache_state == "active":
            assert thread.tcache == int(words["tcache"], 16)
        else:  # NULL, or since 2.43 the read-only dummy: not in any heap
            assert thread.tcache_state == "none"
            assert heap.find(int(words["tcache"], 16)) is None


@every_core
def test_the_used_chunks_are_the_programs_and_the_librarys_own(core, path, record_property):
    heap, report = core
    for name, value in (("arch", report["arch"]), ("glibc", report["glibc"]), ("way", "core")):
        record_property(name, value)
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
    record_property("chunks", len(chunks))


@every_core
def test_malloc_info_is_what_the_program_printed(core, path):
    heap, report = core

    assert malloc_info(heap) == report["malloc_info"]

"""The reader on the bytes that real allocators of 21 releases left behind."""

from __future__ import annotations

import pytest

from .recorded import RELEASES, load

NAMES = [f"random-{number}" for number in range(1, 5)]


def test_every_release_is_recorded():
    assert len(RELEASES) == 21
    assert (RELEASES[0], RELEASES[-1]) == ("2.23", "2.44")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("release", RELEASES)
def test_the_used_chunks_are_what_the_program_holds(release, name):
    recorded = load(release, name)
    heap, layout = recorded.heap, recorded.layout

    chunks = list(heap.every_chunk())

    used = {c.address + layout.header: c for c in chunks if c.state == "used" and not c.owner}
    assert used.keys() == recorded.live.keys()
    assert all(layout.usable(used[mem].size) >= request for mem, request in recorded.live.items())
    assert {c.state for c in chunks} <= {"used", "free", "fast", "tcache", "top"}
    assert heap.problems == []


@pytest.mark.parametrize("release", RELEASES)
def test_the_chunks_fill_the_heap_without_a_gap(release):
    recorded = load(release, "random-1")

    chunks = list(recorded.heap.every_chunk())

    assert chunks[0].address == int(recorded.header["heap_base"], 16)
    assert all(a.address + a.size == b.address for a, b in zip(chunks, chunks[1:]))
    assert chunks[-1].address + chunks[-1].size == int(recorded.header["heap_end"], 16)
    assert chunks[-1].state == "top"


@pytest.mark.parametrize("release", RELEASES)
def test_bytes_free_and_used_add_up_to_system_mem(release):
    recorded = load(release, "random-2")

    total = sum(chunk.size for chunk in recorded.heap.every_chunk())

    assert total == recorded.heap.arenas[0].system_mem


@pytest.mark.parametrize("release", RELEASES)
def test_lists_hold_chunks_of_every_kind_that_the_release_has(release):
    kinds = set()
    for name in NAMES:
        recorded = load(release, name)
        kinds |= {found.kind for found in recorded.heap.lists if found.chunks}

    expected = {"small", "large", "unsorted"}
    expected |= {"tcache"} if recorded.layout.has("tcache") else set()
    assert expected <= kinds
    assert ("fast" in kinds) <= recorded.layout.has("fastbins")

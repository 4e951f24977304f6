"""`verify`: a trace against the heap that a real process had; the model against the reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from heapglass.analysis.verify import Comparison, cross_check, verify_trace
from heapglass.analysis.whatif import make_overlay
from heapglass.errors import BadRequest
from heapglass.heap.heap import Heap
from heapglass.memory import ByteMemory
from heapglass.model.trace import Header, call_line, write_trace
from tests.analysis.test_whatif import target_of
from tests.heap.recorded import RELEASES, TRACES, load
from tests.locate.modelled import play


def recording(release: str, name: str = "random-1") -> tuple[str, Heap]:
    """A real heap with the trace that made it; mp_, which was not recorded, is not known."""
    heap = load(release, name).heap
    heap.target.mp = None
    return str(TRACES / release / f"{name}.jsonl.xz"), heap


def changed(heap: Heap, address: int, value: int) -> Heap:
    """The same heap with another word somewhere."""
    memory = heap.target.memory
    assert isinstance(memory, ByteMemory)
    memory.write(address, value.to_bytes(8, "little"))
    return Heap(heap.target)


def whats(found: Comparison) -> list[str]:
    return [one.what for one in found.differences]


@pytest.mark.parametrize("release", RELEASES)
def test_a_real_heap_is_what_the_model_makes_of_its_trace(release: str) -> None:
    path, heap = recording(release)
    found = verify_trace(path, heap)

    assert found.differences == []
    assert found.compared["chunks"] > 100
    assert found.compared["feet of free chunks"] > 5
    assert found.compared["bins"] > 100


def test_a_header_that_was_overwritten_is_the_first_difference() -> None:
    path, heap = recording("2.36")
    used = next(c for c in heap.every_chunk() if c.state == "used" and c.size > 0x100)
    found = verify_trace(path, changed(heap, used.address + 8, used.size_field ^ 0x10))
    first = found.differences[0]

    assert (first.what, first.address) == ("chunk", used.address)
    assert first.model.said == f"{used.size_field:#x} used"
    assert first.memory.said.startswith(f"{used.size_field ^ 0x10:#x} ")
    assert first.model.words[1] == used.size_field
    assert first.memory.words[1] == used.size_field ^ 0x10


def test_a_foot_and_a_link_of_sizes_are_compared() -> None:
    path, heap = recording("2.36")
    large = next(c for c in heap.every_chunk() if c.listed and c.listed.kind == "large")
    foot = large.address + large.size
    assert whats(verify_trace(path, changed(heap, foot, large.size + 0x10))) == ["foot"]
    heap = changed(heap, foot, large.size)
    ring = heap.words.word(large.address + 32)
    found = verify_trace(path, changed(heap, large.address + 32, ring ^ 0x1000))
    assert whats(found) == ["nextsize"]


def test_a_list_that_was_overwritten() -> None:
    path, heap = recording("2.31")
    cache = next(one for one in heap.tcaches[0].lists if len(one.chunks) > 2)
    found = verify_trace(path, changed(heap, cache.chunks[0] + 16, cache.chunks[2] + 16))
    bins = [one for one in found.differences if one.what == "bin"]

    assert len(bins) == 1
    assert bins[0].where.startswith(f"{cache.label} of tcache 0x")
    assert bins[0].where.endswith(", entry 2")
    assert bins[0].model.said == f"{cache.chunks[1]:#x} (of {len(cache.chunks)})"
    assert bins[0].memory.said == f"{cache.chunks[2]:#x} (of {len(cache.chunks) - 1})"


def test_what_the_program_wrote_is_its_own() -> None:
    path, heap = recording("2.36")
    used = next(
        c for c in heap.every_chunk() if c.state == "used" and c.size > 0x40 and not c.owner
    )

    assert (
        verify_trace(path, changed(heap, used.address + 24, 0x4141414141414141)).differences == []
    )


def test_another_trace_of_the_same_program_differs() -> None:
    _, heap = recording("2.36")
    found = verify_trace(str(TRACES / "2.36" / "random-2.jsonl.xz"), heap)

    assert whats(found)[0] == "arena"
    assert "chunk" in whats(found)
    assert len(found.differences) <= 1000


def trace(folder: Path, header: Header, *lines: str) -> str:
    path = folder / "t.jsonl"
    with path.open("w") as file:
        write_trace(file, header, lines)
    return str(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (Header("2.36", fresh=False), "begins on a heap in use"),
        (Header("2.35"), "it is of glibc 2.35 x86_64, not 2.36 x86_64"),
        (Header("2.36", "i386"), "it is of glibc 2.36 i386"),
        (Header("2.36", heap_base=0x777777000), "its heap begins at 0x777777000, here it is"),
        (Header("2.36", main_arena=0x7777000), "its main_arena is at 0x7777000, here it is"),
    ],
)
def test_a_trace_of_something_else_is_refused(header: Header, message: str, tmp_path: Path) -> None:
    heap = load("2.36", "random-1").heap
    with pytest.raises(BadRequest) as caught:
        verify_trace(trace(tmp_path, header), heap)

    assert message in str(caught.value)


def test_a_call_that_differs_ends_the_comparison(tmp_path: Path) -> None:
    _, heap = recording("2.36")
    path = trace(tmp_path, Header("2.36"), call_line("malloc", size=24, ptr=0x1230))
    found = verify_trace(path, heap)

    assert whats(found) == ["call"]
    assert found.differences[0].where == "line 2 of the trace"
    assert found.differences[0].memory.said == "0x1230"


@pytest.mark.parametrize(
    ("glibc", "abi"), [("2.23", "i386"), ("2.36", "s390x"), ("2.44", "x86_64")]
)
def test_the_model_and_the_reader_conclude_the_same(glibc: str, abi: str) -> None:
    heap = Heap(target_of(play(glibc, abi)))
    found = cross_check(heap, make_overlay(heap, heap.target.threads))

    assert found.differences == []
    assert found.compared["arenas"] == 2
    assert found.compared["chunks in bins"] > 4
    assert found.compared["figures of mallinfo2"] == 9


def test_a_reader_that_reads_otherwise_is_noticed() -> None:
    heap = Heap(target_of(play("2.36")))
    overlay = make_overlay(heap, heap.target.threads)
    one = next(one for one in heap.lists if one.kind == "unsorted" and one.chunks)
    one.chunks.append(0x1000)
    found = cross_check(heap, overlay)

    assert set(whats(found)) >= {"bin", "malloc_info", "mallinfo"}
    assert found.differences[0].model.said == f"the end of {len(one.chunks) - 1}"

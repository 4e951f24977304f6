"""Searches in the model's memory: what is found does not depend on what was left out."""

from __future__ import annotations

import pytest

from heapglass.analysis.search import find_bytes, find_pointers
from heapglass.heap.heap import Heap
from heapglass.heap.target import HeapThread, Place, Target
from heapglass.memory import ByteMemory, Sparse
from heapglass.model import Allocator


def heap_of(allocator: Allocator, memory: object) -> Heap:
    where = allocator.places
    thread = HeapThread(1, tcache_state="none", arena=where.main_arena, arena_known=True)
    places = Place(where.main_arena, "user"), Place(where.mp, "user")
    return Heap(Target(memory, allocator.layout, *places, [thread]))  # type: ignore[arg-type]


@pytest.fixture
def allocator() -> Allocator:
    """Blocks with text at their ends and far inside of memory that nobody wrote."""
    made = Allocator("2.36")
    blocks = [made.malloc(size) for size in (40, 0x3000, 0x9000, 40)]
    for block, offset, text in (
        (blocks[0], 3, b"needle"),
        (blocks[1], 0xFFD, b"needle"),  # over the end of a page
        (blocks[2], 0x5000, b"needle\0\0"),
        (blocks[2], 0x7000, blocks[1].to_bytes(8, "little")),
    ):
        made.write(block + offset, text)
    return made


def copied(allocator: Allocator) -> ByteMemory:
    memory = allocator.memory
    regions = memory.regions()
    return ByteMemory({r.start: memory.read(r.start, r.size) for r in regions}, regions)


@pytest.mark.parametrize("pattern", [b"needle", b"\0\0needle", b"needle\0\0\0\0", b"e", b"\0" * 64])
@pytest.mark.parametrize("aligned", [1, 8])
def test_what_is_found_is_what_is_there(allocator: Allocator, pattern: bytes, aligned: int):
    assert isinstance(allocator.memory, Sparse)
    assert not isinstance(copied(allocator), Sparse)

    found, wanted = (
        [hit.address for hit in find_bytes(heap_of(allocator, memory), pattern, aligned)]
        for memory in (allocator.memory, copied(allocator))
    )

    assert found == wanted
    assert wanted or aligned > 1


def test_pointers_that_are_found_are_those_that_are_there(allocator: Allocator):
    for start, end in ((0x555555550000, 0x555555580000), (0, 2)):
        found, wanted = (
            [
                (hit.address, value)
                for hit, value in find_pointers(heap_of(allocator, m), start, end)
            ]
            for m in (allocator.memory, copied(allocator))
        )
        assert found == wanted
        assert wanted


def test_a_heap_far_larger_than_memory_is_searched_where_something_is():
    made = Allocator("2.36")
    made.mallopt(-2, 1 << 40)  # M_TOP_PAD
    block = made.malloc(100)
    made.write(block, b"needle")

    assert [hit.address for hit in find_bytes(heap_of(made, made.memory), b"needle", 1)] == [block]

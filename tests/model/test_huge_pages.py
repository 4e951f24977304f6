"""Huge pages: what malloc does with glibc.malloc.hugetlb, by the rules of each tag's source.

Pages for MAP_HUGETLB have to be reserved, so these have no real process to stand beside them;
without any, and for transparent ones, `tests/model_live/test_huge_pages.py` compares.
"""

from __future__ import annotations

import pytest

from heapglass.heap.heap import Heap
from heapglass.locate import locate
from heapglass.model import Allocator
from heapglass.model.kernel import HUGE, PMD, Kernel
from heapglass.model.replay import Replay
from heapglass.model.space import Space
from heapglass.targets.trace import TraceSource

GIB = 1 << 30
ALL = ("2.35", "2.36", "2.38", "2.39", "2.41", "2.42", "2.43", "2.44")


def huge_mappings(model: Allocator) -> list[tuple[int, int]]:
    return [(m.start, m.end - m.start) for m in model.memory.mappings() if m.name.startswith(HUGE)]


def parameter(model: Allocator, name: str) -> int:
    machine = model.machine
    load = machine.load if name.endswith(("size", "threshold")) else machine.load_int
    return load(machine.mp[name])


def heap_info(model: Allocator, block: int, field: str) -> int:
    machine = model.machine
    return machine.load(machine._info(machine.heap_for_ptr(block), field))


@pytest.mark.parametrize("glibc", ALL)
def test_the_main_arena_is_made_of_huge_pages(glibc: str) -> None:
    model = Allocator(glibc, tunables={"hugetlb": 2})
    brk = model.kernel.brk
    block = model.malloc(100000)
    ((start, size),) = huge_mappings(model)
    assert (start % PMD, size) == (0, PMD)
    assert start < block < start + size
    assert model.kernel.brk == brk
    assert model.machine.noncontiguous(model.machine.main)
    assert model.mallinfo2().arena == PMD
    blocks = [model.malloc(100000) for _ in range(30)]
    assert len({at >> 21 for at in blocks}) == 2
    assert all(size == PMD for _, size in huge_mappings(model))


@pytest.mark.parametrize("glibc", ALL)
def test_chunks_with_their_own_huge_pages(glibc: str) -> None:
    model = Allocator(glibc, tunables={"hugetlb": 2})
    model.malloc(24)
    before = huge_mappings(model)
    block = model.malloc(5 << 20)
    ((start, size),) = set(huge_mappings(model)) - set(before)
    assert (start % PMD, size) == (0, 6 << 20)
    marked = glibc in ("2.43", "2.44")  # bit 0 of prev_size; size is without a header's room
    assert model.machine.load(block - 16) == int(marked)
    assert model.machine.load(block - 8) == (6 << 20) - 16 * marked | 2
    model.free(block)
    assert huge_mappings(model) == before


@pytest.mark.parametrize("glibc", ALL)
def test_linux_does_not_grow_huge_mappings_so_the_block_moves(glibc: str) -> None:
    model = Allocator(glibc, tunables={"hugetlb": 2})
    block = model.malloc(5 << 20)
    model.write(block, b"kept")
    moved = model.realloc(block, 9 << 20)
    assert moved != block
    assert model.read(moved, 4) == b"kept"
    assert (10 << 20) in {size for _, size in huge_mappings(model)}
    assert (6 << 20) not in {size for _, size in huge_mappings(model)}


def test_up_to_2_42_a_huge_chunk_that_shrank_is_never_unmapped() -> None:
    """Realloc counts in small pages, and munmap refuses a part of a huge one; from 2.43 neither."""
    for glibc, left in (("2.36", 1), ("2.42", 1), ("2.43", 0)):
        model = Allocator(glibc, tunables={"hugetlb": 2, "mmap_threshold": 4 << 20})
        block = model.malloc(5 << 20)
        assert model.realloc(block, (4 << 20) + 5000) == block
        size = model.machine.chunksize(block - 16)
        assert size == ((6 << 20) - 16 if glibc == "2.43" else (4 << 20) + 8192)
        model.free(block)
        sizes = [size for _, size in huge_mappings(model)]
        assert sizes.count(6 << 20) == left


@pytest.mark.parametrize(
    ("glibc", "least", "most"),
    [
        ("2.35", PMD, 4 * PMD),
        ("2.41", PMD, 4 * PMD),
        ("2.42", PMD, 64 << 20),
        ("2.44", PMD, 64 << 20),
    ],
)
def test_heaps_of_huge_pages(glibc: str, least: int, most: int) -> None:
    model = Allocator(glibc, tunables={"hugetlb": 2, "mmap_threshold": 3 << 20})
    model.malloc(24)
    thread = model.thread()
    block = thread.malloc(100)
    assert model.machine.heap_max_size() == most
    assert heap_info(model, block, "size") == least
    assert heap_info(model, block, "pagesize") == PMD
    blocks = [thread.malloc(1 << 20) for _ in range(70)]
    heaps = {model.machine.heap_for_ptr(at) for at in blocks}
    assert len(heaps) == (10 if most == 4 * PMD else 2)
    assert all(heap_info(model, at, "size") % PMD == 0 for at in blocks)
    for at in blocks:
        thread.free(at)
    assert heap_info(model, block, "size") == least


@pytest.mark.parametrize(
    ("glibc", "mainly"), [("2.36", True), ("2.41", True), ("2.42", False), ("2.44", False)]
)
def test_pages_larger_than_a_heap(glibc: str, mainly: bool) -> None:
    """From 2.42 pages above HEAP_MAX_SIZE serve single chunks only."""
    model = Allocator(glibc, tunables={"hugetlb": GIB})
    block = model.malloc(100)
    assert parameter(model, "hp_pagesize") == GIB
    assert bool(huge_mappings(model)) == mainly
    if not mainly:
        assert model.kernel.start_brk <= block < model.kernel.brk
        other = model.thread().malloc(100)
        assert heap_info(model, other, "pagesize") == 4096
        assert heap_info(model, other, "size") == 0x21000
        assert parameter(model, "mmap_threshold") == 128 << 10
        model.malloc(GIB + 1)
        assert [size for _, size in huge_mappings(model)] == [2 * GIB]


def test_from_2_39_the_mmap_threshold_is_a_page() -> None:
    def threshold(glibc: str, **more: int) -> tuple[int, int]:
        model = Allocator(glibc, tunables={"hugetlb": 2, **more})
        model.malloc(1)
        return parameter(model, "mmap_threshold"), parameter(model, "no_dyn_threshold")

    assert threshold("2.38") == (128 << 10, 0)
    assert threshold("2.39") == threshold("2.44") == (PMD, 1)
    assert threshold("2.39", mmap_threshold=5000) == (5000, 1)


@pytest.mark.parametrize("glibc", ALL)
def test_without_reserved_pages_small_ones_serve(glibc: str) -> None:
    model = Allocator(glibc, tunables={"hugetlb": 2})
    model.kernel.has_huge_pages = False
    model.malloc(24)
    model.malloc(5 << 20)
    thread = model.thread()
    block = thread.malloc(24)
    assert huge_mappings(model) == []
    assert heap_info(model, block, "pagesize") == 4096
    assert model.mallinfo2().arena > 1 << 20


@pytest.mark.parametrize("mode", ["always", "madvise", "never", "none"])
def test_the_kernels_mode_decides_about_transparent_ones(mode: str) -> None:
    def begun(glibc: str, hugetlb: int) -> Allocator:
        model = Allocator(glibc, tunables={"hugetlb": hugetlb}, thp_mode=mode)
        model.malloc(24)
        return model

    for glibc in ("2.35", "2.42"):
        wanted = PMD if mode == "madvise" else 0
        assert parameter(begun(glibc, 1), "thp_pagesize") == wanted
    numbers = {"always": 0, "madvise": 1, "never": 2, "none": 3}
    for glibc, first, none in (("2.43", 0, 3), ("2.44", 2, 1)):
        model = begun(glibc, 1)
        wanted = PMD if mode in ("always", "madvise") else 0
        assert parameter(model, "thp_pagesize") == wanted
        assert parameter(model, "thp_mode") == (none if mode == "none" else numbers[mode] + first)
        assert parameter(begun(glibc, 0), "thp_mode") == 2 + first


@pytest.mark.parametrize(
    ("glibc", "page"), [("2.36", 4096), ("2.42", 4096), ("2.43", PMD), ("2.44", PMD)]
)
def test_transparent_pages_shape_the_break_and_from_2_43_the_heaps(glibc: str, page: int) -> None:
    model = Allocator(glibc, tunables={"hugetlb": 1})
    model.malloc(24)
    system = model.mallinfo2().arena
    if page == 4096:  # __curbrk was 0 when it was rounded up
        assert system == PMD
    else:
        assert model.kernel.brk % PMD == 0
    big = [model.malloc(100000) for _ in range(50)]
    grown = model.mallinfo2().arena
    assert model.kernel.brk % PMD == 0
    assert grown - system >= 2 * PMD
    model.mallopt("M_TRIM_THRESHOLD", 100 << 20)
    for block in big:
        model.free(block)
    assert model.mallinfo2().arena == grown
    assert model.malloc_trim(0) == 1
    assert grown - model.mallinfo2().arena == (grown - 1) // PMD * PMD
    assert model.kernel.brk % PMD == 0
    block = model.thread().malloc(24)
    assert heap_info(model, block, "pagesize") == page
    assert heap_info(model, block, "size") == max(page, 0x21000)


@pytest.mark.parametrize("hugetlb", [1, 2])
@pytest.mark.parametrize("glibc", ALL)
def test_the_reader_finds_its_way(glibc: str, hugetlb: int) -> None:
    model = Allocator(glibc, tunables={"hugetlb": hugetlb})
    model.malloc(24)
    thread = model.thread()
    kept = [one.malloc(size) for one in (model, thread) for size in (24, 70000, 3 << 20, 9 << 20)]
    threads = {1: model, 2: thread}
    heap = Heap(locate(TraceSource("model", Replay(model, threads))))
    used = {chunk.address + 16 for chunk in heap.every_chunk() if chunk.state == "used"}
    assert set(kept) <= used | {chunk.address + 16 for chunk in heap.mmapped}
    assert heap.problems == []


def test_the_kernel_keeps_huge_pages_whole() -> None:
    kernel = Kernel(Space(8, "little"), 0x555555559000, 0x7FFFF7FFF000)
    start = kernel.mmap(PMD + 1, huge=PMD)
    assert start is not None
    assert start % PMD == 0
    kernel.munmap(start, 4096)
    kernel.munmap(start + PMD - 4096, PMD)
    assert huge_end(kernel, start) == start + 2 * PMD
    assert kernel.mremap(start, 2 * PMD, 3 * PMD) is None
    assert kernel.mremap(start, 2 * PMD, PMD + 4096) == start
    assert huge_end(kernel, start) == start + 2 * PMD
    assert kernel.mremap(start, 2 * PMD, 4096) == start
    assert huge_end(kernel, start) == start + PMD
    kernel.munmap(start, PMD)
    assert kernel.space.mapping_at(start) is None
    full = Kernel(Space(8, "little"), 0x1000, 3 << 20)
    assert full.mmap(PMD, huge=PMD) is None


def huge_end(kernel: Kernel, start: int) -> int:
    one = kernel.space.mapping_at(start)
    assert one is not None
    return one.end

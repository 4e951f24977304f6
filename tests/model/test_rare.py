"""Ways through malloc that only little memory, many threads or broken words lead to."""

from __future__ import annotations

import pytest

from heapglass.errors import MallocAbort, MemoryFault
from heapglass.model import Allocator
from heapglass.model.allocator import Thread


def starve(model: Allocator, on: bool = True) -> None:
    """Let the kernel refuse everything."""
    model.kernel.failing_mmaps = -1 if on else 0
    model.kernel.brk_blocked = on


def fill(thread: Thread, size: int) -> list[int]:
    """Allocate until nothing is left."""
    blocks = []
    while True:
        block = thread.malloc(size)
        if not block:
            return blocks
        blocks.append(block)


def free_all(thread: Thread, blocks: list[int]) -> None:
    """Free blocks in this order."""
    for block in blocks:
        thread.free(block)


@pytest.mark.parametrize("glibc", ["2.31", "2.42", "2.43"])
def test_realloc_moves_to_another_arena_when_its_own_is_full(glibc: str) -> None:
    model = Allocator(glibc)
    model.malloc(24)
    thread = model.thread()
    block = thread.malloc(5000)
    thread.malloc(24)
    model.write(block, b"kept")
    room = model.malloc(100000)
    starve(model)
    fill(thread, 3000)
    for spare in fill(model, 3000):
        model.free(spare)
    model.free(room)
    moved = thread.realloc(block, 90000)
    assert moved not in (0, block)
    assert model.read(moved, 4) == b"kept"


@pytest.mark.parametrize("glibc", ["2.31", "2.42", "2.43"])
def test_an_mmapped_block_that_cannot_be_resized(glibc: str) -> None:
    model = Allocator(glibc)
    model.malloc(24)
    block = model.malloc(200000)
    model.write(block, b"kept")
    model.kernel.failing_mmaps = 1
    moved = model.realloc(block, 230000)  # mremap fails; malloc finds another way
    assert model.read(moved, 4) == b"kept"


def test_the_mapping_of_an_mmapped_chunk_is_odd() -> None:
    old = Allocator("2.28")
    block = old.malloc(200000)
    old.machine.store(block - 16, 0x120)
    with pytest.raises(MallocAbort, match="GLRO"):
        old.realloc(block, 400000)
    model = Allocator("2.36")
    with pytest.raises(MallocAbort, match=r"chunk_is_mmapped"):
        model.machine.munmap_chunk(model.malloc(24) - 16)


@pytest.mark.parametrize("glibc", ["2.24", "2.25", "2.36", "2.44"])
def test_arenas_are_shared_in_turn(glibc: str) -> None:
    model = Allocator(glibc)
    model.malloc(24)
    model.mallopt("M_ARENA_MAX", 2)
    model.machine.store(model.machine.mp["arena_max"], 2)
    threads = [model.thread() for _ in range(5)]
    for thread in threads:
        thread.malloc(24)
    machine = model.machine
    arenas = list(machine.arenas())
    assert len(arenas) == 2
    assert sum(machine.load(av + machine.o_attached) for av in arenas) == 6
    for thread in threads:
        thread.exit()
    assert [machine.load(av + machine.o_attached) for av in arenas] == [1, 0]
    assert machine.load(machine.at["free_list"]) == arenas[1]
    model.thread().malloc(24)
    assert machine.load(machine.at["free_list"]) == 0


def test_an_arena_on_the_free_list_is_taken_off_it() -> None:
    model = Allocator("2.36", tunables={"arena_max": 3})
    model.malloc(24)
    threads = [model.thread(), model.thread()]
    for thread in threads:
        thread.malloc(24)
    for thread in threads:
        thread.exit()
    machine = model.machine
    free = machine.load(machine.at["free_list"])
    behind = machine.load(free + machine.o_next_free)
    machine._leave_free_list(behind)
    assert machine.load(free + machine.o_next_free) == 0
    machine.store(free + machine.o_attached, 1)
    with pytest.raises(MallocAbort, match="p->attached_threads == 0"):
        machine._leave_free_list(behind)
    with pytest.raises(MallocAbort, match="result->attached_threads == 0"):
        model.thread().malloc(24)


def test_an_arena_with_nobody_attached_cannot_be_left() -> None:
    model = Allocator("2.36")
    model.malloc(24)
    machine = model.machine
    machine.store(machine.main + machine.o_attached, 0)
    with pytest.raises(MallocAbort, match="replaced_arena->attached_threads > 0"):
        machine._attach(machine.main)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("size", 0x201, "2 \\* MINSIZE"),
        ("before", 1 << 20, "new_size <|heap_trim|cannot read"),
    ],
)
def test_fenceposts_that_make_no_sense(field: str, value: int, text: str) -> None:
    model = Allocator("2.36", "i386")
    model.malloc(24)
    thread = model.thread()
    blocks = [thread.malloc(60000) for _ in range(24)]
    machine = model.machine
    heap = blocks[0] & -(1 << 20)
    end = heap + machine.load(heap + 8)
    fence = next(at for at in range(end - 32, end, 4) if machine.load(at) == 1) - 4
    post = fence - machine.load(fence)
    machine.store(post + 4 if field == "size" else post, value | (field == "size"))
    with pytest.raises((MallocAbort, MemoryFault), match=text):
        free_all(thread, blocks[::-1])


def test_the_assertions_about_arenas() -> None:
    for call in ("malloc", "calloc"):
        model = Allocator("2.36", tunables={"tcache_count": 0})
        block, _ = model.malloc(24), model.malloc(24)
        model.free(block)
        heap = block & -(64 << 20)
        model.memory.map(heap, heap + 4096, "rw-")
        model.machine.store(block - 8, 0x25)  # a fast chunk that says it is another arena's
        with pytest.raises(MallocAbort, match="arena_for_chunk"):
            model.malloc(24) if call == "malloc" else model.calloc(1, 24)


def test_a_full_tcache_of_old_counts_nothing_below_zero() -> None:
    model = Allocator("2.26")
    block = model.malloc(24)
    tcache = model.kernel.start_brk + 0x10
    model.machine.store_byte(tcache, 0xFF)  # -1 in a signed char
    model.free(block)
    assert model.mallinfo2().smblks == 1
    with pytest.raises(MallocAbort, match="tc_idx < TCACHE_MAX_BINS"):
        model.machine.tcache.put(block - 16, 64)
    with pytest.raises(MallocAbort, match=r"entries\[tc_idx\] > 0"):
        model.machine.tcache.get(3)


def test_2_42_refuses_pages_too_small_for_its_tcache() -> None:
    model = Allocator("2.42")
    model.kernel.page_size = 2048
    with pytest.raises(MallocAbort, match="max tcache size too large"):
        model.malloc(24)


def test_a_tcache_that_cannot_be_made() -> None:
    for glibc in ("2.36", "2.42", "2.43"):
        model = Allocator(glibc)
        starve(model)
        assert model.malloc(24) == 0
        starve(model, False)
        block = model.malloc(24)
        model.free(block)
        assert model.malloc(24) == block


def test_realloc_and_memalign_trust_no_size() -> None:
    model = Allocator("2.28")
    block, _ = model.malloc(100), model.malloc(24)
    model.machine.store(block - 8, 0x19)
    model.machine.store(block + 16, 0x21)
    with pytest.raises(MallocAbort, match="ncopies >= 3"):
        model.realloc(block, 3000)
    model = Allocator("2.42")
    block = model.malloc(300)
    model.machine.store(block - 8, (1 << 64) - 0x40 | 1)
    with pytest.raises((MallocAbort, MemoryFault)):
        model.free(block)

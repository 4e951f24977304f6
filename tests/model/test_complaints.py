"""Up to 2.26: an arena that was found broken is marked, avoided, and the program may go on."""

from __future__ import annotations

import pytest

from heapglass.errors import BadRequest, MallocAbort
from heapglass.model import Allocator

CORRUPT = 4
OLD = ("2.23", "2.24", "2.25", "2.26")
FASTTOP = "double free or corruption (fasttop)"


def begin(glibc: str, action: int = 1, **tunables: int) -> Allocator:
    """An allocator without a tcache whose check_action is set."""
    if glibc == "2.26":
        tunables["tcache_count"] = 0
    model = Allocator(glibc, tunables=tunables)
    model.malloc(24)
    assert model.mallopt("M_CHECK_ACTION", action) == 1
    return model


def flags(model: Allocator, av: int = 0) -> int:
    machine = model.machine
    return machine.load_int((av or machine.main) + machine.o_flags)


def free_twice(model: Allocator) -> int:
    block = model.malloc(24)
    model.free(block)
    model.free(block)
    return block


def in_main_heap(model: Allocator, block: int) -> bool:
    return model.kernel.start_brk <= block < model.kernel.brk


@pytest.mark.parametrize("glibc", OLD)
def test_the_arena_is_marked_before_the_program_ends(glibc: str) -> None:
    model = begin(glibc, 3)
    assert not flags(model) & CORRUPT
    with pytest.raises(MallocAbort, match="fasttop"):
        free_twice(model)
    assert flags(model) & CORRUPT


def test_2_27_marks_nothing_and_always_ends() -> None:
    model = Allocator("2.27", tunables={"tcache_count": 0})
    model.mallopt("M_CHECK_ACTION", 0)
    with pytest.raises(MallocAbort, match="fasttop"):
        free_twice(model)
    assert not flags(model) & CORRUPT


@pytest.mark.parametrize("action", [0, 1, 2, 3, 5, 7])
@pytest.mark.parametrize("glibc", OLD)
def test_check_action_says_what_happens(glibc: str, action: int) -> None:
    model = begin(glibc, action)
    if action & 2:
        with pytest.raises(MallocAbort, match="fasttop"):
            free_twice(model)
        return
    free_twice(model)
    assert model.machine.complaints.told == [FASTTOP] * (action & 1)
    assert flags(model) & CORRUPT


@pytest.mark.parametrize("glibc", OLD)
def test_a_corrupt_arena_is_avoided(glibc: str) -> None:
    model = begin(glibc)
    block = free_twice(model)
    elsewhere = model.malloc(24)
    assert not in_main_heap(model, elsewhere)
    machine = model.machine
    arena = machine.arena_for_chunk(elsewhere - 16)
    assert arena != machine.main
    assert not flags(model, arena) & CORRUPT
    model.free(elsewhere)
    assert model.malloc(24) == elsewhere  # from then on it is this thread's
    assert machine.load(machine.main + machine.o_fast) == block - 16  # nothing was taken there


@pytest.mark.parametrize("glibc", OLD)
def test_without_any_good_arena_everything_is_mmapped(glibc: str) -> None:
    model = begin(glibc, arena_max=1)
    free_twice(model)
    machine = model.machine
    block = model.malloc(24)
    assert machine.load(block - 8) & 2
    assert machine.load_int(machine.mp["n_mmaps"]) == 1
    assert model.read(model.calloc(3, 8), 24) == bytes(24)
    assert model.memalign(64, 10) % 64 == 0


@pytest.mark.parametrize("glibc", OLD)
def test_a_thread_takes_the_next_good_arena(glibc: str) -> None:
    model = begin(glibc, arena_max=2)
    threads = [model.thread() for _ in range(3)]
    other = threads[0].malloc(24)
    free_twice(model)
    machine = model.machine
    arena = machine.arena_for_chunk(other - 16)
    for thread in threads[1:]:
        assert machine.arena_for_chunk(thread.malloc(24) - 16) == arena
    assert machine.load(arena + machine.o_attached) == 3


@pytest.mark.parametrize("glibc", OLD)
def test_main_is_no_way_out_once_it_is_corrupt(glibc: str) -> None:
    model = begin(glibc)
    thread = model.thread()
    thread.malloc(24)
    free_twice(model)
    model.kernel.failing_mmaps = -1
    brk = model.kernel.brk
    assert thread.malloc(100 << 20) == 0
    assert model.kernel.brk == brk


@pytest.mark.parametrize("glibc", OLD)
def test_trim_leaves_it_alone(glibc: str) -> None:
    model = begin(glibc)
    model.free(model.malloc(50000))
    free_twice(model)
    before = model.kernel.brk
    assert model.malloc_trim(0) == 0
    assert model.kernel.brk == before
    assert begin(glibc).malloc_trim(0) == 1


@pytest.mark.parametrize("glibc", OLD)
def test_what_is_given_up(glibc: str) -> None:
    """Free, realloc, munmap: they return, and have changed nothing but the flag."""
    model = begin(glibc)
    block, told = model.malloc(100), model.machine.complaints.told
    model.free(block + 4)
    assert model.realloc(block + 8, 300) == 0
    assert told == ["free(): invalid pointer", "realloc(): invalid pointer"]
    model = begin(glibc)
    mapped = model.malloc(300000)
    size = model.machine.load(mapped - 8)
    model.machine.store(mapped - 16, 0x120)
    model.free(mapped)
    assert model.machine.complaints.told == ["munmap_chunk(): invalid pointer"]
    assert not flags(model) & CORRUPT  # nobody knows its arena
    assert model.machine.load(mapped - 8) == size


@pytest.mark.parametrize("glibc", OLD)
def test_realloc_moves_what_it_cannot_resize(glibc: str) -> None:
    """_int_realloc gives up; the block is copied to a good arena, the old one's free fails too."""
    model = begin(glibc)
    block, _ = model.malloc(100), model.malloc(24)
    model.write(block, b"kept")
    model.machine.store(block + 104, 1)  # the size of the next chunk
    moved = model.realloc(block, 300)
    assert model.read(moved, 4) == b"kept"
    assert not in_main_heap(model, moved)
    told = model.machine.complaints.told
    assert told[0] == "realloc(): invalid next size"
    assert told[1] in ("free(): invalid next size (fast)", "free(): invalid next size (normal)")


@pytest.mark.parametrize("glibc", OLD)
def test_unlink_goes_on_without_unlinking(glibc: str) -> None:
    model = begin(glibc)
    a, b, _ = model.malloc(0x500), model.malloc(0x500), model.malloc(24)
    model.free(a)
    machine = model.machine
    unsorted = machine.main + machine.o_top
    machine.store(a, a - 16)  # its fd
    model.free(b)
    assert machine.complaints.told == ["corrupted double-linked list"]
    assert machine.load(unsorted + machine.FD) == a - 16  # listed again, as the merged chunk
    assert machine.chunksize(a - 16) == 0xA20


def test_2_26_unlinks_a_chunk_of_the_wrong_size() -> None:
    model = begin("2.26")
    a, b, _ = model.malloc(0x500), model.malloc(0x500), model.malloc(24)
    model.free(a)
    model.machine.store(a - 8, 0x4F1)
    model.free(b)
    assert model.machine.complaints.told == ["corrupted size vs. prev_size"]
    assert model.machine.chunksize(a - 16) == 0xA20


@pytest.mark.parametrize("glibc", OLD)
def test_the_unsorted_scan_goes_on(glibc: str) -> None:
    model = begin(glibc)
    a, _ = model.malloc(0x500), model.malloc(24)
    model.free(a)
    model.sbrk(0x1000)  # the program's, but malloc writes there
    model.machine.store(a - 8, 0x21021)  # more than system_mem
    block = model.malloc(0x21018)
    assert model.machine.complaints.told == ["malloc(): memory corruption"]
    assert block == a


@pytest.mark.parametrize("glibc", OLD)
def test_malloc_gives_up_and_tries_another_arena(glibc: str) -> None:
    model = begin(glibc)
    a, _ = model.malloc(24), model.malloc(24)
    model.free(a)
    model.machine.store(a - 8, 0x91)
    block = model.malloc(24)
    assert model.machine.complaints.told == ["malloc(): memory corruption (fast)"]
    assert block
    assert not in_main_heap(model, block)
    assert model.machine.load(model.machine.main + model.machine.o_fast) == 0  # it was taken off


@pytest.mark.parametrize("glibc", OLD)
def test_a_broken_break_ends_whatever_was_said(glibc: str) -> None:
    model = begin(glibc, 0)
    machine = model.machine
    model.malloc(0x8000)
    top = machine.load(machine.main + machine.o_top)
    machine.store(top + 8, machine.load(top + 8) + 0x1000)
    with pytest.raises(MallocAbort, match="break adjusted"):
        model.malloc(0x1F000)
    assert flags(model) & CORRUPT


def test_the_environment_can_only_switch_checks_off() -> None:
    model = Allocator("2.23", tunables={"glibc.malloc.check": 0})
    free_twice(model)
    assert model.machine.complaints.told == []
    with pytest.raises(BadRequest, match="hooks that the model lacks"):
        Allocator("2.23", tunables={"glibc.malloc.check": 3})

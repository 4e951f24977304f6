"""The model going on from somebody's memory: as the one that it came from, and without a trace."""

from __future__ import annotations

import random

import pytest

from heapglass.errors import BadRequest, MallocAbort, MemoryFault
from heapglass.glibc.layout import layout_for
from heapglass.memory import ByteMemory, Memory, Region
from heapglass.model import Allocator
from heapglass.model.overlay import Overlay, ThreadState


class NoRegions:
    """A memory that does not know what is mapped."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def read(self, address: int, size: int) -> bytes:
        return self._memory.read(address, size)

    def view(self, start: int, end: int) -> memoryview:
        return self._memory.view(start, end)

    def regions(self) -> list[Region]:
        return []


def copy_of(model: Allocator) -> ByteMemory:
    regions = model.memory.regions()
    return ByteMemory({r.start: model.read(r.start, r.size) for r in regions}, regions)


def state_of(model: Allocator) -> ThreadState:
    machine = model.machine
    tcache = machine.load(model.tls + model.places.tls.tcache)
    made = tcache if machine.has("tcache") and tcache != machine.places.dummy else 0
    return ThreadState(made, machine.load(machine.thread_arena_at()))


def over(model: Allocator, memory: Memory) -> Overlay:
    where = model.places
    return Overlay(
        memory,
        model.layout,
        where.main_arena,
        where.mp,
        [state_of(model)],
        mmap_top=model.kernel.mmap_top,
    )


def drive(models: list[Allocator], dice: random.Random, calls: int, live: list[int]) -> None:
    """The same random calls to all; their answers must be the same."""
    for _ in range(calls):
        size = dice.choice([dice.randrange(300), dice.randrange(60000), dice.randrange(400000)])
        kind, index = dice.random(), dice.randrange(len(live)) if live else 0
        answers = []
        for model in models:
            if live and kind < 0.4:
                model.free(live[index])
                answers.append(0)
            elif live and kind < 0.5:
                answers.append(model.realloc(live[index], size + 1))
            elif kind < 0.6:
                answers.append(model.calloc(1, size))
            else:
                answers.append(model.memalign(128, size) if kind < 0.65 else model.malloc(size))
        assert len(set(answers)) == 1
        if live and kind < 0.4:
            live.pop(index)
        elif live and kind < 0.5:
            live[index] = answers[0]
        elif answers[0]:
            live.append(answers[0])


@pytest.mark.parametrize("abi", ["x86_64", "i386"])
@pytest.mark.parametrize("glibc", ["2.23", "2.26", "2.31", "2.36", "2.39", "2.42", "2.43", "2.44"])
def test_it_goes_on_as_the_one_it_came_from(glibc: str, abi: str) -> None:
    dice, live = random.Random(3), []
    model = Allocator(glibc, abi)
    drive([model], dice, 300, live)
    memory = copy_of(model)
    before = memory.read(model.places.main_arena, model.layout.state.size)
    other = over(model, memory)
    drive([model, other], dice, 300, live)
    arena = model.read(model.places.main_arena, len(before))
    assert other.read(model.places.main_arena, len(before)) == arena != before
    top = model.machine.load(model.machine.main + model.machine.o_top)
    base = model.kernel.start_brk
    assert other.read(base, top - base) == model.read(base, top - base)
    assert memory.read(model.places.main_arena, len(before)) == before  # never written


def test_a_memory_that_does_not_know_its_regions() -> None:
    model = Allocator("2.36")
    block = model.malloc(24)
    model.free(block)
    other = over(model, NoRegions(copy_of(model)))
    assert other.malloc(24) == block
    assert model.malloc(24) == block
    assert other.malloc(2000) == model.malloc(2000)


def test_the_next_free_would_abort() -> None:
    model = Allocator("2.36")
    block = model.malloc(24)
    model.free(block)
    other = over(model, copy_of(model))
    with pytest.raises(MallocAbort, match="double free detected in tcache 2"):
        other.free(block)


def test_threads_and_arenas_of_the_process() -> None:
    model = Allocator("2.36")
    model.malloc(24)
    thread = model.thread()
    block = thread.malloc(24)
    machine = model.machine
    machine.tls = thread.tls
    states = [ThreadState(machine.load(thread.tls + model.places.tls.tcache), machine.load(
        machine.thread_arena_at()))]  # fmt: skip
    machine.tls = model.tls
    where = model.places
    other = Overlay(
        copy_of(model),
        model.layout,
        where.main_arena,
        where.mp,
        [state_of(model), *states],
        mmap_top=model.kernel.mmap_top,
    )
    assert other.others[0].malloc(40) == thread.malloc(40)
    assert other.thread().malloc(24) not in (0, block)
    assert other.machine.load(other.machine.at["narenas"]) == 3


def test_a_heap_whose_break_failed_stays_without() -> None:
    model = Allocator("2.36")
    model.malloc(24)
    model.kernel.brk_blocked = True
    while not model.machine.noncontiguous(model.machine.main):
        model.malloc(0x1F000)
    other = over(model, copy_of(model))
    assert other.kernel.brk_blocked
    assert other.malloc(24) == model.malloc(24)


def test_what_cannot_be_gone_on_from() -> None:
    model = Allocator("2.36")
    model.malloc(24)
    memory, where = copy_of(model), model.places
    with pytest.raises(BadRequest, match="cannot be read"):
        Overlay(memory, model.layout, 0x1234560000, where.mp)
    low = ByteMemory({0x20000: bytes(4096)})
    with pytest.raises(BadRequest, match="is in use"):
        Overlay(low, model.layout, where.main_arena, where.mp)
    other = over(model, memory)
    for _ in range(511):
        other.thread()
    with pytest.raises(BadRequest, match="too many threads"):
        other.thread()


def test_a_layout_whose_parts_do_not_fit_is_refused() -> None:
    model = Allocator("2.31")
    older = layout_for((2, 31), as_of=(("malloc_par", (2, 23)),))
    with pytest.raises(BadRequest, match="has not the fields of glibc"):
        Overlay(copy_of(model), older, model.places.main_arena, model.places.mp)


def test_a_heap_that_never_has_its_fast_chunks_consolidated_is_left() -> None:
    model = Allocator("2.23")
    model.free(model.malloc(24))
    other = over(model, copy_of(model))
    machine = other.machine
    machine.malloc_consolidate = lambda _: None  # type: ignore[method-assign]
    with pytest.raises(MemoryFault, match="would hang"):
        [other.malloc(100000) for _ in range(2)]

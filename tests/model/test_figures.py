"""What the reader says malloc_trim and mallinfo2 would do is what the model then does."""

from __future__ import annotations

import random

import pytest

from heapglass.analysis.maps import CLASSES, draw
from heapglass.analysis.stats import heap_stats, mallinfo
from heapglass.analysis.trim import trimmed
from heapglass.heap.heap import Heap
from heapglass.locate import locate
from heapglass.model import Allocator
from heapglass.model.allocator import Thread
from heapglass.model.replay import Replay
from heapglass.targets.trace import TraceSource

RELEASES = ("2.23", "2.26", "2.31", "2.36", "2.41", "2.42", "2.43", "2.44")
SIZES = (8, 24, 40, 100, 128, 500, 1032, 3000, 4200, 9000, 20000, 70000, 200000)


class Program:
    """Random calls in three threads."""

    def __init__(self, glibc: str, abi: str, seed: int) -> None:
        self.model = Allocator(glibc, abi)
        self.random = random.Random(seed)
        self.threads: dict[int, Thread] = {1: self.model}
        self.model.malloc(1)
        for number in (2, 3):
            self.threads[number] = self.model.thread()
        self.live: list[int] = []

    def step(self) -> None:
        thread = self.random.choice(list(self.threads.values()))
        if self.live and self.random.random() < 0.48:
            place = self.random.randrange(len(self.live))
            thread.free(self.live.pop(place))
        else:
            self.live.append(thread.malloc(self.random.choice(SIZES)))

    def heap(self) -> Heap:
        return Heap(locate(TraceSource("model", Replay(self.model, self.threads))))


@pytest.mark.parametrize("abi", ["x86_64", "i386"])
@pytest.mark.parametrize("glibc", RELEASES)
def test_malloc_trim_gives_back_what_was_said(
    glibc: str, abi: str, monkeypatch: pytest.MonkeyPatch
):
    program = Program(glibc, abi, seed=int(glibc[2:]))
    kernel = program.model.kernel
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(kernel, "discard", lambda start, size: given.append((start, size)))
    by_madvise = by_brk = 0
    for _ in range(12):
        for _ in range(program.random.randint(5, 120)):
            program.step()
        if program.random.random() < 0.3:
            while program.live and program.random.random() < 0.97:
                program.model.free(program.live.pop())
        heap = program.heap()
        said = list(trimmed(heap))
        stats = heap_stats(heap)
        before = kernel.brk
        given.clear()
        program.model.malloc_trim(0)
        assert sorted((s.start, s.size) for s in said if not s.from_top) == sorted(given)
        assert sum(s.size for s in said if s.from_top) == before - kernel.brk
        assert stats.trim == sum(s.size for s in said)
        by_madvise += len(given)
        by_brk += before - kernel.brk
    assert by_madvise > 3
    assert by_brk > 0


@pytest.mark.parametrize("abi", ["x86_64", "i386"])
@pytest.mark.parametrize("glibc", RELEASES)
def test_mallinfo_is_what_malloc_counts(glibc: str, abi: str):
    program = Program(glibc, abi, seed=7)
    for _ in range(10):
        for _ in range(program.random.randint(5, 80)):
            program.step()
        counted = program.model.mallinfo2()
        for name, value in mallinfo(program.heap())._asdict().items():
            assert getattr(counted, name) == value, name


@pytest.mark.parametrize("glibc", ["2.31", "2.43"])
def test_cells_have_every_byte_once(glibc: str):
    program = Program(glibc, "x86_64", seed=3)
    for _ in range(300):
        program.step()
    heap = program.heap()
    stats = heap_stats(heap)
    strips = list(draw(heap, 200))
    assert [strip.segment for strip in strips] == heap.segments
    sums = [sum(c.bytes[kind] for s in strips for c in s.cells) for kind in CLASSES]
    size = {state: total for state, (_, total) in stats.totals.items()}
    assert sums[0] == size["used"]
    assert sums[1] == size.get("tcache", 0) + size.get("fast", 0)
    assert (sums[2], sums[3]) == (size["free"], size["top"])
    assert sum(strip.trim_bytes for strip in strips) == stats.trim
    assert sum(cell.trim for strip in strips for cell in strip.cells) == stats.trim
    assert all(len(strip.cells) <= 202 and strip.unit >= 64 for strip in strips)
    arena = heap.arenas[1].address
    assert {strip.segment.arena for strip in draw(heap, 9, arena)} == {arena}


def test_what_is_held_and_wasted_is_told():
    model = Allocator("2.36")
    model.malloc(16)
    big, after = model.malloc(0x5000), model.malloc(0x30)
    cached = [model.malloc(24) for _ in range(3)]
    last = model.malloc(0x100)
    model.free(big)
    for block in cached:
        model.free(block)
    stats = heap_stats(Heap(locate(TraceSource("model", Replay(model, {1: model})))))
    assert stats.under_top == 0x5010 + 3 * 0x20
    assert stats.held_by == last - 16
    assert stats.largest_run == (0x5010, big - 16)
    assert [(one.chunks, one.bytes) for one in stats.threads] == [(3, 0x60)]
    used = 16, 0x30, 0x100
    assert stats.overhead == 8 * (len(used) + 1)  # the tcache's own chunk, too
    assert stats.rounding == 24 + 15 * 3
    assert (stats.arenas[0].trim, stats.trim) == (stats.trim, stats.trim)
    assert after

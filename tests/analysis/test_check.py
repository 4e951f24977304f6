"""Each rule of `check` is broken once, by a write into a heap of the model."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from heapglass.analysis.check import KINDS, RULES, Finding, check_heap
from heapglass.heap.heap import Heap
from heapglass.heap.target import HeapThread, Place, Target
from heapglass.memory import ByteMemory
from heapglass.model import Allocator
from heapglass.model.allocator import Thread
from heapglass.model.replay import replay
from heapglass.model.trace import read_trace

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
TRACES = sorted((FIXTURES / "traces").glob("*/random-*.jsonl.xz"))


def target_of(model: Allocator, threads: dict[int, Thread]) -> Target:
    """The target that a model is, as `locate` would make it with symbols."""
    machine, where = model.machine, model.places
    found = []
    for number, thread in sorted(threads.items()):
        tcache = machine.load(thread.tls + where.tls.tcache) if machine.has("tcache") else 0
        made = tcache not in (0, where.dummy, where.dummy + machine.SZ)
        arena = machine.load(thread.tls + where.tls.thread_arena)
        found.append(
            HeapThread(
                number,
                tcache=tcache if made else None,
                tcache_state="active" if made else "none",
                arena=arena or None,
                arena_known=True,
            )
        )
    return Target(
        model.memory,
        model.layout,
        Place(where.main_arena, "symbol"),
        Place(where.mp, "symbol"),
        threads=found,
        names={name: Place(at, "symbol") for name, at in where.variables.items()},
    )


def findings_of(model: Allocator, threads: dict[int, Thread]) -> list[Finding]:
    return check_heap(Heap(target_of(model, threads))).findings


# --- whole heaps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TRACES, ids=[f"{p.parent.name}-{p.name[:8]}" for p in TRACES])
def test_a_heap_that_a_real_release_left_has_no_fault(path: Path) -> None:
    played = replay(read_trace(str(path)))
    assert findings_of(played.allocator, played.threads) == []


def test_what_is_played_is_what_the_real_release_left() -> None:
    path = TRACES[0]
    header = json.loads(lzma.decompress(path.read_bytes()).splitlines()[0])
    assert header["glibc"] == path.parent.name
    assert len(TRACES) == 84


# --- one rule each --------------------------------------------------------------------------------


class Crowd(NamedTuple):
    """A process with chunks of every kind, and the words that a case overwrites."""

    model: Allocator
    threads: dict[int, Thread]
    blocks: list[int]  # mems in use, in the order of addresses, sizes 0x30 to 0x80
    cached: list[int]  # mems in the tcache, the head first
    fast: list[int]  # mems in a fastbin
    unsorted: list[int]  # two of them, not neighbours
    large: list[int]  # mems in one large bin, the largest first: sizes 0x430, 0x430, 0x420
    small: int  # one in a small bin

    def poke(self, address: int, value: int) -> None:
        """Write a word."""
        word = self.model.layout.word
        size = value & self.model.layout.max_address
        self.model.machine.space.write(address, size.to_bytes(word, "little"))

    def peek(self, address: int) -> int:
        return self.model.machine.load(address)


def crowd(release: str = "2.36") -> Crowd:
    model = Allocator(release, tunables={"glibc.malloc.tcache_count": 3})
    blocks = [model.malloc(0x28 + 0x10 * (n % 6)) for n in range(40)]
    same = [model.malloc(0x28) for _ in range(6)]
    fence = model.malloc(0x18)
    sizes = (0x428, 0x18, 0x428, 0x18, 0x418, 0x18, 0x208, 0x18)
    large = [model.malloc(size) for size in sizes]
    other = [model.malloc(size) for size in (0x608, 0x18, 0x708, 0x18)]
    filling = [model.malloc(0x208) for _ in range(3)]
    for mem in large[0:6:2]:
        model.free(mem)
    for mem in (*filling, large[6]):
        model.free(mem)  # the tcache of that size is full
    model.malloc(0x2000)
    for mem in (other[0], other[2], *same):
        model.free(mem)
    second = model.thread()
    second.free(second.malloc(0x38))
    second.malloc(0x1008)
    assert fence
    found = Heap(target_of(model, {1: model, 2: second}))
    header = model.layout.header
    lists = {one.label: [c + header for c in one.chunks] for one in found.lists if one.chunks}
    return Crowd(
        model,
        {1: model, 2: second},
        blocks,
        lists["tcache[0x30]"],
        lists.get("fast[0x30]", []),
        lists["unsorted"],
        lists["large[0x400]"],
        lists["small[0x210]"][0],
    )


Damage = Callable[[Crowd], int]  # makes it, and returns the chunk (or place) that is damaged


def _size(c: Crowd) -> int:
    c.poke(c.blocks[5] - 8, 0x4141414141414141)
    return c.blocks[5] - 16


def _flags(c: Crowd) -> int:
    c.poke(c.blocks[5] - 8, c.peek(c.blocks[5] - 8) | 4)
    return c.blocks[5] - 16


def _prev_inuse(c: Crowd) -> int:
    behind = c.unsorted[0] - 16 + (c.peek(c.unsorted[0] - 8) & ~7)
    c.poke(behind + 8, c.peek(behind + 8) | 1)
    return c.unsorted[0] - 16


def _foot(c: Crowd) -> int:
    chunk = c.unsorted[0] - 16
    c.poke(chunk + (c.peek(chunk + 8) & ~7), 0x1230)
    return chunk


def _unlisted(c: Crowd) -> int:
    c.poke(c.blocks[8] - 8, c.peek(c.blocks[8] - 8) & ~1)
    return c.blocks[8] - 16  # it is this one's word that is wrong


def _unmerged(c: Crowd) -> int:
    """A free chunk is made two, the second of them left in no way that free knows."""
    chunk, machine = c.unsorted[0] - 16, c.model.machine
    size = c.peek(chunk + 8) & ~7
    second, rest = chunk + 0x100, size - 0x100
    head = machine.bin_at(machine.main, 1)
    last = c.peek(head + 24)
    c.poke(chunk + 8, 0x101)
    for at, value in ((0, 0x100), (8, rest), (16, head), (24, last), (32, 0), (40, 0)):
        c.poke(second + at, value)
    c.poke(last + 16, second)
    c.poke(head + 24, second)
    c.poke(second + rest, rest)
    return chunk


def _link(c: Crowd) -> int:
    c.poke(c.unsorted[1] + 8, 0x4242424242424240)
    return c.unsorted[1] - 16


def _listed(c: Crowd) -> int:
    """The chunk below a free one swallows it."""
    below = c.small - 16 - 0x20
    size = c.peek(c.small - 8) & ~7
    c.poke(below + 8, 0x20 + size + 0x20 | 1)
    return below


def _twice(c: Crowd) -> int:
    c.poke(c.cached[0] + 8, 0)
    c.model.free(c.cached[0])
    return c.cached[0] - 16


def _bin_size(c: Crowd) -> int:
    c.poke(c.cached[0] - 8, (c.peek(c.cached[0] - 8) & ~7) + 0x30 | 1)
    return c.cached[0] - 16


def _bin_order(c: Crowd) -> int:
    """The last of a large bin has a size that would stand first; its foot is moved too."""
    chunk = c.large[-1] - 16
    size = c.peek(chunk + 8) & ~7
    c.poke(chunk + 8, size + 0x20 | 1)
    c.poke(chunk + size + 0x20, size + 0x20)
    c.poke(chunk + size + 0x28, c.peek(chunk + size + 0x28) & ~1)
    return chunk


def _nextsize(c: Crowd) -> int:
    c.poke(c.large[0] + 16, c.blocks[0] - 16)
    return c.large[0] - 16


def _binmap(c: Crowd) -> int:
    machine = c.model.machine
    index = machine.bin_index(c.peek(c.small - 8) & ~7)
    at = machine.main + machine.o_binmap + 4 * (index >> 5)
    machine.store_int(at, machine.load_int(at) & ~(1 << (index & 31)))
    return machine.main


def _tcache_next(c: Crowd) -> int:
    c.poke(c.cached[1], 0x4343434343434343)
    return c.cached[1] - 16


def _tcache_count(c: Crowd) -> int:
    c.poke(c.cached[0], (c.cached[0] >> 12) ^ c.cached[2])
    return c.cached[-1] - 16


def _tcache_key(c: Crowd) -> int:
    c.poke(c.cached[1] + 8, 7)
    return c.cached[1] - 16


def _fast_fd(c: Crowd) -> int:
    c.poke(c.fast[0], 0x99)
    return c.fast[0] - 16


def _have_fastchunks(c: Crowd) -> int:
    machine = c.model.machine
    machine.set_fastchunks(machine.main, False)
    return machine.main


def _top(c: Crowd) -> int:
    top = c.peek(c.model.machine.main + c.model.machine.o_top)
    c.poke(top + 8, 0xFFFFFFFFFFFFFFF1)
    return top


def _fencepost(c: Crowd) -> int:
    """A thread's first heap is full and closed; a block's size takes the place of its end."""
    machine, thread = c.model.machine, c.threads[2]
    arena = c.peek(machine.main + machine.o_next)
    while machine.heap_for_ptr(c.peek(arena + machine.o_top)) == machine.heap_for_ptr(arena):
        thread.malloc(0x1F000)
    info = c.model.layout.structs["heap_info"]
    heap = machine.heap_for_ptr(arena)
    end = heap + c.peek(heap + info.offset("size"))
    c.poke(end - 0x18, 0x25)
    return end - 0x20


def _system_mem(c: Crowd) -> int:
    machine = c.model.machine
    c.poke(machine.main + machine.o_system, c.peek(machine.main + machine.o_max_system) + 0x1000)
    return machine.main


def _heap_info(c: Crowd) -> int:
    arena = c.peek(c.model.machine.main + c.model.machine.o_next)
    info = c.model.layout.structs["heap_info"]
    heap = arena - info.size
    c.poke(heap + info.offset("size"), c.peek(heap + info.offset("size")) + 0x123)
    return heap


def _arena_ring(c: Crowd) -> int:
    machine = c.model.machine
    arena = c.peek(machine.main + machine.o_next)
    c.poke(arena + machine.o_next, 0x1234)
    return arena


def _mmapped(c: Crowd) -> int:
    machine = c.model.machine
    c.model.malloc(0x40000)
    at = machine.mp["n_mmaps"]
    machine.store_int(at, machine.load_int(at) + 2)
    return c.model.places.mp


CASES: dict[str, Damage] = {
    "size": _size,
    "flags": _flags,
    "prev-inuse": _prev_inuse,
    "prev-size": _foot,
    "unlisted": _unlisted,
    "unmerged": _unmerged,
    "link": _link,
    "listed": _listed,
    "twice": _twice,
    "bin-size": _bin_size,
    "bin-order": _bin_order,
    "nextsize": _nextsize,
    "binmap": _binmap,
    "tcache-next": _tcache_next,
    "tcache-count": _tcache_count,
    "tcache-key": _tcache_key,
    "fast-fd": _fast_fd,
    "have-fastchunks": _have_fastchunks,
    "top": _top,
    "fencepost": _fencepost,
    "system-mem": _system_mem,
    "heap-info": _heap_info,
    "arena-ring": _arena_ring,
    "mmapped": _mmapped,
}


def test_the_crowd_is_whole() -> None:
    for release in ("2.36", "2.31", "2.41"):
        c = crowd(release)
        assert findings_of(c.model, c.threads) == []


@pytest.mark.parametrize("rule", CASES)
def test_a_broken_rule_is_found_where_it_is_broken(rule: str) -> None:
    c = crowd()
    place = CASES[rule](c)
    found = findings_of(c.model, c.threads)
    about = [one for one in found if one.rule == rule]
    assert about, [(one.rule, hex(one.address), one.message) for one in found]
    assert not place or place in {one.address for one in about}
    assert all(one.cause is None or one.cause.kind in KINDS for one in found)


def test_missing_memory_is_said_and_is_no_damage() -> None:
    c = crowd()
    target = target_of(c.model, c.threads)
    regions = [one for one in c.model.memory.regions() if one.perms[0] == "r"]
    cut = (c.blocks[0] & -0x1000) + 0x1000
    pieces = {
        one.start: bytes(
            c.model.memory.view(one.start, cut if one.start < cut < one.end else one.end)
        )
        for one in regions
    }
    target.memory = ByteMemory(pieces, regions)
    found = check_heap(Heap(target)).findings
    assert {(one.rule, one.severity) for one in found} == {("missing", "warning")}


def test_every_rule_has_a_case() -> None:
    assert {*CASES, "missing"} == set(RULES)

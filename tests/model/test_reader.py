"""The reader on the model's memory: both have the same view of one heap, whatever happens to it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from heapglass.heap.heap import Heap
from heapglass.locate import locate
from heapglass.model import Allocator
from heapglass.model.allocator import Thread
from heapglass.model.replay import Replay
from heapglass.targets.trace import TraceSource

SIZES = st.one_of(st.integers(0, 300), st.integers(0, 5000), st.integers(100000, 300000))
CHOICE = st.integers(0, 1 << 20)


class HeapMachine(RuleBasedStateMachine):
    """A program that uses its heap well, and the reader that looks at it."""

    glibc, abi = "2.36", "x86_64"

    @initialize(count=st.sampled_from([None, 0, 3]))
    def begin(self, count: int | None) -> None:
        tunables = {} if count is None or self.glibc < "2.26" else {"tcache_count": count}
        self.model = Allocator(self.glibc, self.abi, tunables)
        self.threads: dict[int, Thread] = {1: self.model}
        self.live: dict[int, int] = {}
        self.model.malloc(1)
        self.live.clear()
        self.live[self.model.malloc(1)] = 1
        self.first = True

    def _thread(self, choice: int) -> Thread:
        return list(self.threads.values())[choice % len(self.threads)]

    def _keep(self, block: int, size: int) -> None:
        if block:
            self.live[block] = size
            self.model.write(block, b"\xee" * min(size, 40))

    @rule(size=SIZES, choice=CHOICE)
    def malloc(self, size: int, choice: int) -> None:
        self._keep(self._thread(choice).malloc(size), size)

    @rule(size=SIZES, choice=CHOICE)
    def calloc(self, size: int, choice: int) -> None:
        self._keep(self._thread(choice).calloc(1, size), size)

    # Mmapped blocks too: where memalign moves their header, the old one stands before it.
    @rule(size=SIZES, choice=CHOICE, power=st.integers(4, 16))
    def memalign(self, size: int, choice: int, power: int) -> None:
        self._keep(self._thread(choice).memalign(1 << power, size), size)

    @rule(choice=CHOICE, many=st.integers(1, 12))
    def free(self, choice: int, many: int) -> None:
        for _ in range(min(many, len(self.live))):
            block = list(self.live)[choice % len(self.live)]
            del self.live[block]
            self._thread(choice >> 3).free(block)

    @rule(size=SIZES, choice=CHOICE)
    def realloc(self, size: int, choice: int) -> None:
        if self.live:
            block = list(self.live)[choice % len(self.live)]
            del self.live[block]
            self._keep(self._thread(choice >> 3).realloc(block, size + 1), size + 1)

    @precondition(lambda self: len(self.threads) < 6)
    @rule()
    def start(self) -> None:
        self.threads[max(self.threads) + 1] = self.model.thread()

    # Not in 2.26, which loses the tcache that it makes anew while a thread ends.
    @precondition(lambda self: len(self.threads) > 1 and self.glibc != "2.26")
    @rule()
    def end(self) -> None:
        self.threads.pop(max(self.threads)).exit()

    @rule(pad=st.integers(0, 9000))
    def trim(self, pad: int) -> None:
        self.model.malloc_trim(pad)

    @rule()
    def look(self) -> None:
        """The reader's chunks, lists and totals are the program's and the model's."""
        heap = Heap(locate(TraceSource("model", Replay(self.model, self.threads))))
        layout = self.model.layout
        chunks = list(heap.every_chunk())
        states: dict[str | None, list[Any]] = {}
        for chunk in chunks:
            states.setdefault(chunk.state, []).append(chunk)
        used = {c.address + layout.header for c in states.get("used", ()) if not c.owner}
        mapped = {c.address + layout.header for c in heap.mmapped}
        mine = self.model.machine
        inside = {b for b in self.live if not mine.load(b - mine.SZ) & 2}
        assert self.live.keys() - inside == mapped
        assert used >= inside
        assert len(used - inside) <= 1  # the very first block, which is never freed
        info = self.model.mallinfo2()
        free = [c for state in ("free", "fast", "top") for c in states.get(state, ())]
        assert sum(c.size for c in free) == info.fordblks
        assert len(states.get("fast", ())) == info.smblks
        assert sum(arena.system_mem for arena in heap.arenas) == info.arena
        assert heap.problems == []

    def teardown(self) -> None:
        if hasattr(self, "first"):
            self.look()


RELEASES = ("2.23", "2.26", "2.30", "2.34", "2.36", "2.39", "2.41", "2.42", "2.43", "2.44")


@pytest.mark.parametrize("abi", ["x86_64", "i386"])
@pytest.mark.parametrize("glibc", RELEASES)
def test_the_reader_agrees(glibc: str, abi: str) -> None:
    machine = type("Machine", (HeapMachine,), {"glibc": glibc, "abi": abi})
    machine.TestCase.settings = settings(
        max_examples=5,
        stateful_step_count=30,
        phases=[Phase.generate],
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    machine.TestCase("runTest").runTest()

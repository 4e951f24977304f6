"""The model on somebody's memory: a core, a process, another model, seen copy-on-write.

Nothing is written there. What is not known of the process (a variable without a symbol) gets a
place of its own, with the value that it most likely has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import BadRequest, MemoryFault
from ..glibc.layout import Layout
from ..memory import Memory
from . import places
from .allocator import DEFAULT_KEY, Allocator, Machine, Thread
from .complaints import DEFAULT_ACTION
from .kernel import Kernel
from .space import Space

SCRATCH = 0x20000  # where malloc's unknown variables are put: nothing is mapped that low
BLOCK = 0x400  # of a thread
ROOM = 0x80000


class ThreadState(NamedTuple):
    """What malloc keeps for a thread of the process."""

    tcache: int = 0  # address of its tcache struct, 0: none
    arena: int = 0  # its thread_arena, 0: none
    lost: bool = False  # it may have a tcache that nobody found: an empty one is played with
    disabled: bool = False  # 2.43 on: it has the dummy that never caches anything


class Overlay(Allocator):
    """An allocator that goes on from where a process is.

    *variables* are addresses of libc's statics that are known (`places.VARIABLES`); *threads* the
    states of its threads, the first one is played by this object's own methods, others by
    `others`. *brk* is the break (default: the end of top), *mmap_top* where mmap places below.

    :raises BadRequest: if main_arena is not there, mp_ is of another release, or the low addresses
        are in use.
    """

    def __init__(
        self,
        memory: Memory,
        layout: Layout,
        main_arena: int,
        mp: int,
        threads: Sequence[ThreadState] = (ThreadState(),),
        variables: Mapping[str, int] | None = None,
        page_size: int = 4096,
        brk: int = 0,
        mmap_top: int = 0,
        ncpu: int = 1,
        thp_aligned: bool = False,
    ) -> None:
        fields = layout.structs["malloc_par"].fields
        if layout.has("tcache") and "tcache_bins" not in fields:
            raise BadRequest(f"mp_ {mp:#x} has not the fields of glibc {layout.release}")
        space = Space(layout.word, layout.order, memory)
        _take_scratch(space)
        known = dict(variables or {})
        where = _places(layout, main_arena, mp, known)
        top = mmap_top or _mmap_top(space)
        kernel = Kernel(space, SCRATCH, top, page_size, thp_aligned=thp_aligned)
        self._threads = len(threads) - 1
        Thread.__init__(self, Machine(layout, kernel, where), SCRATCH, 1)
        self.machine.ncpu = ncpu
        try:
            self._find_break(brk)
            self._guess(known, threads)
            self._reserve_heaps()
        except MemoryFault as fault:
            raise BadRequest(f"main_arena {main_arena:#x} cannot be read: {fault}") from fault
        self.others = [
            Thread(self.machine, SCRATCH + number * BLOCK, number + 1)
            for number in range(1, len(threads))
        ]
        for number, state in enumerate(threads):
            self._set_thread(SCRATCH + number * BLOCK, state)
        self._turn()

    def thread(self) -> Thread:
        """Start another thread."""
        self._threads += 1
        if (self._threads + 1) * BLOCK > ROOM:
            raise BadRequest(f"too many threads: {self._threads}")
        block = SCRATCH + self._threads * BLOCK
        self._set_thread(block, ThreadState())
        self.machine.store(self.machine.at["single_threaded"], 0)
        return Thread(self.machine, block, self._threads + 1)

    def _set_thread(self, block: int, state: ThreadState) -> None:
        machine, tls = self.machine, self.machine.places.tls
        tcache = state.tcache
        if state.lost and machine.has("tcache"):
            tcache = block + tls.size
            self._make_empty(tcache)
        elif not tcache and machine.has("tcache_dummy"):
            tcache = machine.places.dummy + machine.SZ * state.disabled
        machine.store(block + tls.tcache, tcache)
        machine.store(block + tls.thread_arena, state.arena)

    def _make_empty(self, tcache: int) -> None:
        """Make a tcache with nothing in it, where nobody looks for one."""
        machine = self.machine
        machine.space.fill(tcache, 0, machine.layout.tcache.size)
        slots = machine.layout.tcache.fields.get("num_slots")
        for index in range(slots.length if slots else 0):
            machine.tcache.store_count(  # type: ignore[attr-defined]
                tcache + index * 2, machine.load(machine.mp["tcache_count"])
            )

    def _find_break(self, brk: int) -> None:
        machine, kernel = self.machine, self.machine.kernel
        top = machine.load(machine.main + machine.o_top)
        base = machine.load(machine.mp["sbrk_base"])
        initialised = bool(top) and top != machine.main + machine.o_top
        end = top + machine.chunksize(top) if initialised else base
        if machine.noncontiguous(machine.main):
            kernel.brk_blocked = True  # it failed once, and where it is now is not known
        kernel.brk = kernel.curbrk = brk or end
        kernel.start_brk = min(base or end, kernel.brk)
        machine.store(machine.at["malloc_initialized"], int(bool(top)))

    def _guess(self, known: Mapping[str, int], threads: Sequence[ThreadState]) -> None:
        """Give the variables that nobody knows the values that they most likely have."""
        machine, at = self.machine, self.machine.at
        arenas = sum(1 for _ in machine.arenas())
        values = {
            "narenas": arenas,
            "free_list": self._free_arenas(),
            "single_threaded": int(arenas == 1 and len(threads) == 1),
            "global_max_fast": machine.layout.default_max_fast,
            "tcache_key": _key_of(machine, threads),
            "check_action": DEFAULT_ACTION,
        }
        for name, value in values.items():
            if name not in known:
                machine.store(at[name], value)

    def _reserve_heaps(self) -> None:
        """Take the rest of each arena's heaps: a core need not have what cannot be read."""
        machine = self.machine
        size, seen = machine.heap_max_size(), set[int]()
        for av in machine.arenas():
            heap = machine.heap_for_ptr(av) if av != machine.main else 0
            top = machine.load(av + machine.o_top)
            heap = machine.heap_for_ptr(top) if heap and top != machine.bin_at(av, 1) else heap
            while heap and heap not in seen:
                seen.add(heap)
                self._reserve(heap, heap + size)
                heap = machine.load(machine._info(heap, "prev"))

    def _reserve(self, start: int, end: int) -> None:
        space = self.machine.space
        for one in list(space.mappings()):
            if one.start < end and start < one.end:
                if start < one.start:
                    space.map(start, one.start, "---")
                start = one.end
        if start < end:
            space.map(start, end, "---")

    def _free_arenas(self) -> int:
        """The first arena that no thread is attached to: no other one of these leads to it."""
        machine = self.machine
        free = [av for av in machine.arenas() if not machine.load(av + machine.o_attached)]
        behind = {machine.load(av + machine.o_next_free) for av in free}
        return next((av for av in free if av not in behind), 0)


def _take_scratch(space: Space) -> None:
    end = SCRATCH + ROOM + 0x3000
    if any(one.start < end and one.end > SCRATCH and not _spans(one) for one in space.mappings()):
        raise BadRequest(f"{SCRATCH:#x} to {end:#x} is in use in this target: the model needs it")
    space.map(SCRATCH, end - 0x1000, "rw-", "model")
    space.map(end - 0x1000, end, "r--", "model")


def _spans(one: object) -> bool:
    """Whether a mapping stands for "everything": the base does not know its mappings."""
    return getattr(one, "start", 1) == 0


def _places(layout: Layout, main_arena: int, mp: int, known: Mapping[str, int]) -> places.Places:
    start = SCRATCH + ROOM
    variables = {
        name: known.get(name, start + number * layout.word)
        for number, name in enumerate(places.VARIABLES)
    }
    dummy = known.get("__tcache_dummy", start + 0x2000)
    return places.Places(main_arena, mp, variables, dummy, places.tls_offsets(layout))


def _mmap_top(space: Space) -> int:
    """The highest end of what is neither stack nor the kernel's: there mmap began."""
    ends = [one.end for one in space.mappings() if not one.name.startswith("[")]
    return min(max(ends, default=0), space.most)


def _key_of(machine: Machine, threads: Sequence[ThreadState]) -> int:
    """The tcache key, as the first cached block of a thread has it."""
    tcache = machine.layout.tcache
    if "entries" not in tcache:
        return 0
    at, count = tcache.offset("entries"), tcache.fields["entries"].length
    for state in threads:
        for index in range(count if state.tcache else 0):
            entry = machine.load(state.tcache + at + index * machine.SZ)
            if entry and machine.has("tcache_key_random"):
                try:
                    return machine.load(entry + machine.SZ)
                except MemoryFault:
                    continue  # the head was overwritten; it may be what is looked at
    return DEFAULT_KEY & machine.MOST

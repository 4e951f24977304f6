"""`Allocator`: the entry points of malloc, for the main thread and for others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from ..errors import BadRequest, UnsupportedGlibc
from ..glibc.layout import Layout, layout_for, word_of
from ..glibc.releases import Version, parse_version
from ..glibc.threads import CONTROL_BLOCKS, ControlBlock
from . import options, places
from .complaints import DEFAULT_ACTION
from .core import IS_MMAPPED
from .entries import CountingEntry, PlainEntry, SlotEntry
from .kernel import Kernel
from .report import MallInfo, Report
from .space import Space

EINVAL, ENOMEM = 22, 12
_MMAP_TOP = {8: 0x7FFFF7D00000, 4: 0xF7D00000}
_MAIN_ARENA = {8: 0x7FFFF7FA0C80, 4: 0xF7FA07C0}
_HEAP = {8: 0x555555559000, 4: 0x5655A000}
_TLS = {8: 0x7FFFFFF00000, 4: 0xFFF00000}  # above whatever mmap gives
_TLS_ROOM = 0x80000  # for the blocks of threads
_BLOCK = 0x400  # of one thread: its variables, its control block, its DTV
_CONTROL, _DTV = 0x80, 0x380  # where those are in it
DEFAULT_KEY = 0x1BADC0DE5EED1234


class Machine(Report):
    """The engine with its entry: the parts that the entry owns, put in their places."""

    def __init__(self, layout: Layout, kernel: Kernel, where: places.Places) -> None:
        super().__init__(layout, kernel, where)
        has = layout.has
        kind = SlotEntry if has("tcache_counts_down") else CountingEntry
        self.entry: PlainEntry = kind(self) if has("tcache") else PlainEntry(self)
        self.tcache = self.entry.tcache
        self.put_inside = self.entry.put_inside  # type: ignore[method-assign]
        self.malloc_entry = self.entry.malloc  # type: ignore[method-assign]
        self.prepare_tcache = self.entry.prepare  # type: ignore[method-assign]
        self.init_tcache_inside = self.entry.init_inside  # type: ignore[method-assign]
        self.cached_aligned = self.entry.aligned  # type: ignore[method-assign]
        self.safe = has("safe_linking")
        self.checks_unlink_size = has("unlink_checks_size")
        self.checks_unsorted = has("unsorted_checks")
        self.checks_unsorted_unlink = has("unsorted_unlink_check")
        self.checks_top = has("top_size_check")
        self.checks_merge = has("merge_checks_size")
        self.small_to_bin = has("free_small_to_bin")
        self.limit_at = self.mp.get("tcache_unsorted_limit", 0)
        self._let_go_on()
        self.ended: deque[int] = deque()  # blocks of threads that ended, the oldest first
        self.start_tls = 0  # the thread that runs ptmalloc_init
        self.start_values: Mapping[str, int] = {}

    def _let_go_on(self) -> None:
        """Up to 2.26 a call that finds the heap broken may be given up without an end."""
        wrap = self.complaints.given_up
        self._int_malloc = wrap(self._int_malloc, lambda av, _: av, 0)  # type: ignore[method-assign]
        self.int_free = wrap(self.int_free, lambda av, *_: av, None)  # type: ignore[method-assign]
        self._int_realloc = wrap(self._int_realloc, lambda av, *_: av, 0)  # type: ignore[method-assign]
        self.munmap_chunk = wrap(self.munmap_chunk, lambda _: 0, None)  # type: ignore[method-assign]
        self.realloc_block = wrap(self.realloc_block, self._arena_of, 0)  # type: ignore[method-assign]

    def _arena_of(self, mem: int, _: int) -> int:
        """The arena that realloc takes a block for; 0 for one with a mapping of its own."""
        p = mem - self.HDR
        return 0 if self.load(p + self.SZ) & IS_MMAPPED else self.arena_for_chunk(p)


def start(machine: Machine) -> None:
    """ptmalloc_init: once, by the first call (before main since 2.42)."""
    machine.store(machine.at["malloc_initialized"], 1)
    machine.store(machine.thread_arena_at(), machine.main)
    if not machine.has("init_by_first_use"):
        machine.init_state(machine.main)
    machine.apply_tunables(machine.start_values)


def fill_params(machine: Machine) -> None:
    """The initial values of mp_, as libc's file has them."""
    constants, mp = machine.layout.constants, machine.mp
    for name in ("MMAP_THRESHOLD", "TRIM_THRESHOLD", "TOP_PAD", "ARENA_TEST"):
        machine.store(mp[name.lower()], constants[f"DEFAULT_{name}"])
    machine.store_int(mp["n_mmaps_max"], constants["DEFAULT_MMAP_MAX"])
    if "tcache_bins" in mp:
        layout = machine.layout
        machine.store(mp["tcache_bins"], constants["TCACHE_SMALL_BINS"])
        machine.store(mp["tcache_count"], constants["TCACHE_FILL_COUNT"])
        largest = layout.tcache_small_max
        late = layout.has("tcache_max_excludes") and not layout.has("tcache_maxsmall_usable")
        machine.store(mp["tcache_max_bytes"], largest + 1 if late else largest - machine.SZ)
    if "thp_mode" in mp:
        unsupported = machine.has("tcache_struct_rounded_twice")
        machine.store_int(mp["thp_mode"], 3 if unsupported else 0)


class Thread:
    """A thread of the program: its own tcache and arena, the same heap.

    Pointers are addresses, 0 for NULL. Every call may raise `MallocAbort` (malloc ends the
    program) or `MemoryFault` (malloc itself would get a SIGSEGV).
    """

    def __init__(self, machine: Machine, tls: int, number: int) -> None:
        self.machine, self.tls, self.number = machine, tls, number
        self._draining: Iterator[int] | None = None  # while the thread ends
        self._next: int | None = None  # what of its tcache is to be freed next

    @property
    def tp(self) -> int | None:
        """The thread pointer; None for a port whose control block is not in the tables."""
        control = CONTROL_BLOCKS.get(self.machine.layout.abi)
        return thread_pointer(control, self.tls) if control else None

    def _turn(self) -> Machine:
        """Let this thread run."""
        self.machine.tls = self.tls
        return self.machine

    def _begin(self, hook: str = "") -> Machine:
        """Let this thread run, with malloc initialised."""
        machine = self._turn()
        if not machine.load(machine.at["malloc_initialized"]):
            start(machine)
        if hook and machine.has("hooks"):
            machine.store(machine.at[hook], 0)
        return machine

    def malloc(self, size: int) -> int:
        """Return a block of *size* bytes, 0 if there is none."""
        machine = self._begin("malloc_hook")
        return machine.entry.malloc(size & machine.MOST)

    def free(self, ptr: int) -> None:
        """Free a block; NULL is ignored."""
        if ptr:
            self._turn().entry.free(ptr)

    def calloc(self, nmemb: int, size: int) -> int:
        """Return a cleared block, 0 if there is none or the product is too large."""
        machine = self._begin()
        total = nmemb * size
        signed = machine.has("request_below_ptrdiff") and not machine.has("init_at_start")
        if total > (machine.MOST >> 1 if signed else machine.MOST):
            return 0
        if machine.has("hooks") and machine.load(machine.at["malloc_hook"]):
            mem = self.malloc(total)  # the first call goes through malloc_hook_ini
            if mem:
                machine.space.fill(mem, 0, total)
            return mem
        return machine.entry.calloc(total)

    def realloc(self, ptr: int, size: int) -> int:
        """Return *ptr* resized, 0 if there is no memory, or it was freed because *size* is 0."""
        machine = self._begin("realloc_hook")
        if machine.has("hooks"):
            machine.store(machine.at["malloc_hook"], 0)
        if not ptr:
            return machine.entry.malloc(size & machine.MOST)
        if not size:
            machine.entry.free(ptr)
            return 0
        return machine.realloc_block(ptr, size & machine.MOST)

    def memalign(self, alignment: int, size: int) -> int:
        """Return a block whose address is a multiple of *alignment*."""
        machine = self._begin("memalign_hook")
        return machine.mid_memalign(alignment & machine.MOST, size & machine.MOST)

    def aligned_alloc(self, alignment: int, size: int) -> int:
        """As memalign; since 2.38 only with a power of two."""
        machine = self.machine
        if machine.has("aligned_alloc_checks") and not _power_of_two(alignment):
            self._begin()
            return 0
        return self.memalign(alignment, size)

    def posix_memalign(self, alignment: int, size: int) -> tuple[int, int]:
        """Return (0, block), or (EINVAL or ENOMEM, 0)."""
        if alignment % self.machine.SZ or not _power_of_two(alignment):
            return EINVAL, 0
        mem = self.memalign(alignment, size)
        return (0, mem) if mem else (ENOMEM, 0)

    def valloc(self, size: int) -> int:
        """Return a block that begins a page."""
        return self.memalign(self.machine.kernel.page_size, size)

    def pvalloc(self, size: int) -> int:
        """Return whole pages, at least *size* bytes."""
        machine = self.machine
        page = machine.kernel.page_size
        rounded = size + page - 1
        if rounded > machine.MOST:
            return 0
        odd = machine.has("pvalloc_odd")
        return self.memalign(page, rounded & (-(page - 1) if odd else -page))

    def free_sized(self, ptr: int, size: int) -> None:  # noqa: ARG002 - glibc ignores it as well
        """C23's free_sized: free.

        :raises UnsupportedGlibc: before 2.43.
        """
        self._since("free_sized")
        self.free(ptr)

    def free_aligned_sized(self, ptr: int, alignment: int, size: int) -> None:  # noqa: ARG002
        """C23's free_aligned_sized: free.

        :raises UnsupportedGlibc: before 2.43.
        """
        self._since("free_sized")
        self.free(ptr)

    def _since(self, feature: str) -> None:
        if not self.machine.has(feature):
            raise UnsupportedGlibc(
                f"glibc {self.machine.layout.release} has no {feature}", "use a later release"
            )

    def malloc_usable_size(self, ptr: int) -> int:
        """Return how many bytes of a block may be used; 0 for NULL."""
        return self._turn().usable(ptr) if ptr else 0

    def malloc_trim(self, pad: int = 0) -> int:
        """Give memory back to the system; 1 if any was."""
        return self._begin().malloc_trim_past(pad)

    def mallopt(self, parameter: int | str, value: int) -> int:
        """Set a parameter (a number or "M_…"); 1 if it was accepted.

        :raises BadRequest: if the name is not mallopt's.
        """
        if isinstance(parameter, str):
            if parameter not in options.PARAMETERS:
                raise BadRequest(f"mallopt has no {parameter!a}", "names are M_MXFAST, M_TOP_PAD…")
            parameter = options.PARAMETERS[parameter]
        return self._begin().mallopt_past(parameter, value)

    def mallinfo2(self) -> MallInfo:
        """Return what mallinfo2 counts (mallinfo before 2.33 counts the same)."""
        return self._begin().mallinfo_past()

    def malloc_info(self) -> str:
        """Return the XML that malloc_info (0, …) prints."""
        return self._begin().malloc_info_past()

    def exit(self) -> None:
        """End the thread: its tcache is emptied, its arena left."""
        while self.drain() is not None:
            pass
        machine = self._turn()
        if not machine.has("tcache_recreated_on_exit"):
            machine.leave_arena()
        machine.ended.append(self.tls)

    def drain(self) -> int | None:
        """Free the next block of the tcache, at the thread's end; which; None: there is no more.

        What other threads do may come between two of them.
        """
        machine = self._turn()
        if self._draining is None:
            if machine.has("tcache_recreated_on_exit"):
                machine.leave_arena()
            self._draining = machine.entry.shutdown()
            self._next = next(self._draining, None)
        block = self._next
        self._next = next(self._draining, None)
        return block


class Allocator(Thread):
    """A program's malloc, seen from its main thread; `thread()` gives others.

    *tunables* are glibc.malloc.* (or without the prefix). What a real process has by chance are
    parameters: *heap_base* (where the break begins), *main_arena*, *mmap_top* (below which mmap
    places), *tcache_key*. *reserved* ranges of addresses are somebody else's. *backports*: what a
    build has of other releases, as `Layout.as_of`. *thp_mode* is the kernel's mode of transparent
    huge pages: always, madvise or never.

    :raises UnsupportedGlibc: if the tables do not cover the release or the ABI.
    :raises BadRequest: if a tunable or the page size makes no sense.
    """

    def __init__(
        self,
        glibc: str = "2.36",
        abi: str = "x86_64",
        tunables: Mapping[str, int] | None = None,
        heap_base: int = 0,
        libc_base: int = 0,
        page_size: int = 4096,
        ncpu: int = 1,
        main_arena: int = 0,
        mmap_top: int = 0,
        tcache_key: int = DEFAULT_KEY,
        reserved: Sequence[tuple[int, int]] = (),
        alignment: int | None = None,
        thp_aligned: bool = False,
        backports: Sequence[tuple[str, Version]] = (),
        thp_mode: str = "madvise",
    ) -> None:
        version, order = parse_version(glibc), _order(abi)
        layout = layout_for(version, word_of(abi), order, alignment, abi, tuple(backports))
        if page_size < 4096 or page_size & (page_size - 1):
            raise BadRequest(f"page size {page_size} is not a power of two from 4096 on")
        word = layout.word
        main_arena = main_arena or (libc_base + 0x1E0C80 if libc_base else _MAIN_ARENA[word])
        where = places.lay_out(layout, main_arena)
        space = Space(word, layout.order)
        top = mmap_top or (libc_base or _MMAP_TOP[word])
        base = heap_base or _HEAP[word]
        kernel = Kernel(space, base, top, page_size, reserved, thp_aligned, thp_mode)
        self._threads = 0
        super().__init__(Machine(layout, kernel, where), _TLS[word], 1)
        self.machine.ncpu = ncpu
        self._tunables = options.check_tunables(tunables or {})
        self._load_libc(where, tcache_key)
        self._begin_main()

    # --- the process --------------------------------------------------------------------------

    def _load_libc(self, where: places.Places, key: int) -> None:
        """Map libc's data as the file has it, and the dummy tcache."""
        machine = self.machine
        space, layout = machine.space, machine.layout
        start, end = where.mp & -0x1000, where.end() + 0xFFF & -0x1000
        space.map(start, end, "rw-", "libc.so.6")
        space.map(where.dummy, where.dummy + 0x1000, "r--", "libc.so.6")
        room = _TLS[layout.word]
        space.map(room, room + _TLS_ROOM, "rw-", "")
        machine.store(machine.main + machine.o_next, machine.main)
        machine.store(machine.main + machine.o_attached, 1)
        machine.store(machine.at["narenas"], 1)
        machine.store(machine.at["single_threaded"], 1)
        machine.store(machine.at["may_shrink_heap"], machine.MOST)
        machine.store_int(machine.at["check_action"], DEFAULT_ACTION)
        if layout.has("hooks"):
            for hook in ("malloc_hook", "realloc_hook", "memalign_hook"):
                machine.store(machine.at[hook], where.dummy)
        machine.store(machine.at["tcache_key"], key & machine.MOST)
        fill_params(machine)

    def _begin_main(self) -> None:
        self.machine.start_values = self._tunables
        self.machine.start_tls = self.tls
        self._new_tls(self.tls)
        self._turn()
        if self.machine.has("init_at_start"):
            start(self.machine)

    def _new_tls(self, tls: int) -> None:
        machine = self.machine
        if machine.has("tcache_dummy"):
            machine.store(tls + machine.places.tls.tcache, machine.places.dummy)
        control = CONTROL_BLOCKS.get(machine.layout.abi)
        if control is None:
            return
        tp, dtv = thread_pointer(control, tls), tls + _DTV + 2 * machine.SZ
        for offset in control.self_pointers:
            machine.store(tp + offset, tp)
        if control.tid is not None:
            machine.store_int(tp + control.tid, (tls - _TLS[machine.SZ]) // _BLOCK + 1)
        machine.store(tp + control.dtv, dtv)
        machine.store(dtv - 2 * machine.SZ, 1)
        machine.store(dtv + 2 * machine.SZ, tls)

    def thread(self) -> Thread:
        """Start another thread; it runs when its methods are called."""
        machine = self.machine
        tls = self._next_tls()
        self._new_tls(tls)
        machine.store(machine.at["single_threaded"], 0)
        return Thread(machine, tls, (tls - _TLS[machine.SZ]) // _BLOCK + 1)

    def _next_tls(self) -> int:
        """A block that no thread had, or the one whose thread has been dead for longest."""
        machine = self.machine
        if (self._threads + 2) * _BLOCK <= _TLS_ROOM:
            self._threads += 1
            return _TLS[machine.SZ] + self._threads * _BLOCK
        if not machine.ended:
            raise BadRequest(f"too many threads: {self._threads + 1}")
        tls = machine.ended.popleft()
        machine.space.fill(tls, 0, _BLOCK)
        return tls

    def sbrk(self, delta: int) -> int:
        """Move the break as the program itself may do; where it was, 0 if it cannot."""
        return self.machine.kernel.sbrk(delta) or 0

    # --- memory -------------------------------------------------------------------------------

    @property
    def layout(self) -> Layout:
        """What this glibc looks like."""
        return self.machine.layout

    @property
    def memory(self) -> Space:
        """The simulated memory; it is a `Memory`."""
        return self.machine.space

    @property
    def kernel(self) -> Kernel:
        """The simulated kernel, to order failures."""
        return self.machine.kernel

    @property
    def places(self) -> places.Places:
        """Where malloc's variables are."""
        return self.machine.places

    def write(self, address: int, data: bytes) -> None:
        """Write what the program writes, anywhere.

        :raises MemoryFault: where nothing is mapped, or not writable.
        """
        self.machine.space.write(address, data)

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of the simulated memory.

        :raises MemoryFault: where nothing is mapped.
        """
        return self.machine.space.read(address, size)


def _order(abi: str) -> str:
    return "big" if abi in ("ppc64", "s390x") else "little"


def _power_of_two(number: int) -> bool:
    return number > 0 and not number & (number - 1)


def thread_pointer(control: ControlBlock, block: int) -> int:
    """Return the thread pointer of the thread whose block begins at *block*."""
    return block + _CONTROL - min(control.dtv, 0)

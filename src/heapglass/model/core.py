"""What every part of the allocator uses: memory, offsets, sizes, aborts, lists."""

from __future__ import annotations

from ..errors import MemoryFault
from ..glibc.layout import Layout
from .complaints import Complaints
from .kernel import Kernel
from .places import Places

PREV_INUSE, IS_MMAPPED, NON_MAIN_ARENA = 1, 2, 4
NONCONTIGUOUS = 2
MAX_ITERS = 10000
TRIM_AT = 65536  # FASTBIN_CONSOLIDATION_THRESHOLD, ATTEMPT_TRIMMING_THRESHOLD


class Endless(MemoryFault):
    """A list that never ends: glibc would not come back either."""

    def __init__(self, address: int) -> None:
        super().__init__(address, 1, "the list never ends: glibc would hang here")


class Core:
    """State and helpers. Nothing of the heap is kept here: it is read back from memory."""

    loops = 1 << 20  # steps of a list after which it is taken for endless

    def __init__(self, layout: Layout, kernel: Kernel, places: Places) -> None:
        self.layout, self.kernel, self.places = layout, kernel, places
        self.space = kernel.space
        self.load, self.store = self.space.accessors(layout.word)
        self.load_int, self.store_int = self.space.accessors(4)
        self.load_byte, self.store_byte = self.space.accessors(1)
        self.has = layout.features.__contains__
        self._sizes(layout)
        self._offsets(layout, places)
        action = places.variables["check_action"]
        self.complaints = Complaints(layout, self.space, self.o_flags, action)
        self.abort, self.fail = self.complaints.abort, self.complaints.fail
        self.tell = self.complaints.tell
        self.tls = 0  # the block of the thread that calls

    def _sizes(self, layout: Layout) -> None:
        self.SZ, self.HDR = layout.word, layout.header
        self.MIN, self.ALIGN = layout.min_chunk, layout.alignment
        self.MASK = layout.alignment - 1
        self.MOST = layout.max_address
        self.MIN_LARGE = layout.min_large
        self.FD, self.BK = 2 * self.SZ, 3 * self.SZ
        self.FDN, self.BKN = 4 * self.SZ, 5 * self.SZ
        self._chunk_tested = 0 if layout.alignment == layout.header else layout.header
        self.fast_shift = 4 if layout.word == 8 else 3
        self._small_shift = self.ALIGN.bit_length() - 1
        self._small_extra = layout.bin_index(self.ALIGN) - 1

    def _offsets(self, layout: Layout, places: Places) -> None:
        state = layout.state
        self.main = places.main_arena
        self.o_flags, self.o_top = state.offset("flags"), state.offset("top")
        self.o_remainder, self.o_binmap = state.offset("last_remainder"), state.offset("binmap")
        self.o_bins = state.offset("bins")
        self.o_next, self.o_next_free = state.offset("next"), state.offset("next_free")
        self.o_attached = state.offset("attached_threads")
        self.o_system = state.offset("system_mem")
        self.o_max_system = state.offset("max_system_mem")
        self.has_fastbins = "fastbinsY" in state
        self.o_fast = state.offset("fastbinsY") if self.has_fastbins else 0
        self.nfastbins = layout.nfastbins
        fields = layout.structs["malloc_par"].fields
        self.mp = {name: places.mp + field.offset for name, field in fields.items()}
        self.at = places.variables

    # --- chunks -------------------------------------------------------------------------------

    def chunksize(self, p: int) -> int:
        """The size of a chunk, without its flags."""
        return self.load(p + self.SZ) & ~7

    def misaligned(self, p: int) -> int:
        """misaligned_chunk: not zero if no chunk can stand there."""
        return (p + self._chunk_tested) & self.MASK

    def set_inuse_at(self, p: int) -> None:
        """Set P of the chunk at *p*."""
        self.store(p + self.SZ, self.load(p + self.SZ) | PREV_INUSE)

    def clear_inuse_at(self, p: int) -> None:
        """Clear P of the chunk at *p*."""
        self.store(p + self.SZ, self.load(p + self.SZ) & ~PREV_INUSE)

    def inuse_at(self, p: int) -> int:
        """P of the chunk at *p*."""
        return self.load(p + self.SZ) & PREV_INUSE

    def arena_flag(self, av: int) -> int:
        """A for chunks of arenas other than main_arena, else 0."""
        return 0 if av == self.main else NON_MAIN_ARENA

    def set_head_size(self, p: int, size: int) -> None:
        """Replace the size of a chunk (flags given with it are added)."""
        at = p + self.SZ
        self.store(at, self.load(at) & 7 | size)

    def heap_max_size(self) -> int:
        """HEAP_MAX_SIZE with the huge pages in force."""
        huge = self.load(self.mp["hp_pagesize"]) if self.has("heap_max_follows_hugetlb") else 0
        return self.layout.heap_max_size(huge)

    def huge_page(self) -> int:
        """mp_.hp_pagesize: the huge pages that mmap is asked for, 0: none."""
        return self.load(self.mp["hp_pagesize"]) if "hp_pagesize" in self.mp else 0

    def heap_for_ptr(self, p: int) -> int:
        """The heap_info of the heap that holds *p*."""
        return p & -self.heap_max_size() & self.MOST

    def arena_for_chunk(self, p: int) -> int:
        """The arena that a chunk says it is from."""
        if self.load(p + self.SZ) & NON_MAIN_ARENA:
            return self.load(self.heap_for_ptr(p))
        return self.main

    def noncontiguous(self, av: int) -> int:
        """Not zero if the arena's memory may have gaps."""
        return self.load_int(av + self.o_flags) & NONCONTIGUOUS

    # --- requests -----------------------------------------------------------------------------

    def request2size(self, request: int) -> int:
        """request2size with C's arithmetic: it may wrap around."""
        padded = (request + self.SZ + self.MASK) & self.MOST
        return self.MIN if padded < self.MIN else padded & ~self.MASK

    def checked_request2size(self, request: int) -> int:
        """Return the chunk size, 0 where the request is refused."""
        nb = self.request2size(request)
        if request <= self.MOST >> 2:
            return nb
        if self.has("request_below_ptrdiff"):
            return nb if request <= self.MOST >> 1 else 0
        limit = (-2 * self.MIN) & self.MOST
        if self.has("request_wraps"):
            return nb if request < limit else 0
        return nb if request <= nb < limit else 0

    # --- bins ---------------------------------------------------------------------------------

    def bin_at(self, av: int, index: int) -> int:
        """The pseudo chunk of a bin."""
        return av + self.o_bins + (index - 1) * self.HDR - self.HDR

    def bin_index(self, size: int) -> int:
        """The bin for a chunk size."""
        if size < self.MIN_LARGE:
            return (size & 0xFFFFFFFF) // self.ALIGN + self._small_extra
        return self.layout.bin_index(size)

    def mark_bin(self, av: int, index: int) -> None:
        """Note in the binmap that a bin may hold something."""
        at = av + self.o_binmap + (index >> 5) * 4
        self.store_int(at, self.load_int(at) | 1 << (index & 31))

    def unlink_chunk(self, av: int, p: int) -> None:
        """Take a chunk out of its bin."""
        load, store, fd_at, bk_at = self.load, self.store, self.FD, self.BK
        if self.checks_unlink_size:
            size = load(p + self.SZ) & ~7
            if size != load(p + size):
                self.tell(av, "corrupted size vs. prev_size")
        fd, bk = load(p + fd_at), load(p + bk_at)
        if load(fd + bk_at) != p or load(bk + fd_at) != p:
            self.tell(av, "corrupted double-linked list")
            return
        store(fd + bk_at, bk)
        store(bk + fd_at, fd)
        if load(p + self.SZ) >= self.MIN_LARGE and load(p + self.FDN):
            self._unlink_node(av, p, fd)

    checks_unlink_size = True

    def _unlink_node(self, av: int, p: int, fd: int) -> None:
        """Take a chunk out of the list of sizes of its large bin."""
        load, store, fdn, bkn = self.load, self.store, self.FDN, self.BKN
        if load(load(p + fdn) + bkn) != p or load(load(p + bkn) + fdn) != p:
            self.tell(av, "corrupted double-linked list (not small)")
        if load(fd + fdn):
            store(load(p + fdn) + bkn, load(p + bkn))
            store(load(p + bkn) + fdn, load(p + fdn))
        elif load(p + fdn) == p:
            store(fd + bkn, fd)
            store(fd + fdn, fd)
        else:
            store(fd + fdn, load(p + fdn))
            store(fd + bkn, load(p + bkn))
            store(load(p + fdn) + bkn, fd)
            store(load(p + bkn) + fdn, fd)

    # --- fastbins -----------------------------------------------------------------------------

    def max_fast(self) -> int:
        """global_max_fast: 0 without fastbins."""
        if not self.has_fastbins:
            return 0
        at = self.at["global_max_fast"]
        return self.load_byte(at) if self.has("max_fast_byte") else self.load(at)

    def have_fastchunks(self, av: int) -> int:
        """Whether there may be fast chunks."""
        if self.has("no_fastchunks_bit"):
            return ~self.load_int(av + self.o_flags) & 1
        return self.load_int(av + self.o_flags + 4) if self.has_fastbins else 0

    def set_fastchunks(self, av: int, there: bool) -> None:
        """Note whether there may be fast chunks."""
        at = av + self.o_flags
        if self.has("no_fastchunks_bit"):
            self.store_int(at, self.load_int(at) & ~1 | (not there))
        else:
            self.store_int(at + 4, int(there))

    # --- perturb ------------------------------------------------------------------------------

    def alloc_perturb(self, mem: int, size: int) -> None:
        """Fill what malloc returns, if that is asked for."""
        byte = self.load_int(self.at["perturb_byte"])
        if byte and mem:
            self.space.fill(mem, (byte ^ 0xFF) & 0xFF, size)

    def free_perturb(self, mem: int, size: int) -> None:
        """Fill what free takes, if that is asked for."""
        byte = self.load_int(self.at["perturb_byte"])
        if byte:
            self.space.fill(mem, byte & 0xFF, size)

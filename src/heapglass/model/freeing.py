"""`_int_free`, merging, malloc_consolidate."""

from __future__ import annotations

from .bins import Bins
from .core import IS_MMAPPED, PREV_INUSE, TRIM_AT, Endless


class Freeing(Bins):
    """Giving chunks back to the arena."""

    def systrim(self, pad: int, av: int) -> int:
        """Give the end of top back to the system; in `System`."""
        raise NotImplementedError

    def heap_trim(self, heap: int, pad: int) -> int:
        """Give the end of a heap back; in `Heaps`."""
        raise NotImplementedError

    def munmap_chunk(self, p: int) -> None:
        """Unmap an mmapped chunk; in `Mmapped`."""
        raise NotImplementedError

    def free_mmapped(self, p: int) -> None:
        """Adjust the thresholds and unmap; in `Mmapped`."""
        raise NotImplementedError

    def free_inside(self, av: int, p: int) -> None:
        """Free a chunk on malloc's own account (realloc, sysmalloc, memalign); in `Front`."""
        raise NotImplementedError

    def check_free(self, p: int, size: int) -> None:
        """The first checks of `_int_free`, up to 2.41."""
        if p > -size & self.MOST or self.misaligned(p):
            self.abort("free(): invalid pointer")
        if size < self.MIN or size & self.MASK:
            self.abort("free(): invalid size")

    def _int_free_chunk(self, av: int, p: int, size: int, locked: bool) -> None:
        """Free into the arena, past the tcache."""
        if self.has_fastbins and size <= self.max_fast():
            self._free_fast(av, p, size, locked)
        elif not self.load(p + self.SZ) & IS_MMAPPED:
            self._free_merge(av, p, size)
        elif self.has("free_checks_late"):
            self.free_mmapped(p)
        else:
            self.munmap_chunk(p)

    def _free_fast(self, av: int, p: int, size: int, locked: bool) -> None:
        load = self.load
        raw = load(p + size + self.SZ)
        if raw <= self.HDR or raw & ~7 >= load(av + self.o_system):
            self.abort("free(): invalid next size (fast)")
        self.free_perturb(p + self.HDR, size - self.HDR & self.MOST)
        self.set_fastchunks(av, True)
        index = self.fast_index(size)
        head = av + self.o_fast + index * self.SZ
        old = load(head)
        if old == p:
            self.abort("double free or corruption (fasttop)")
        at = p + self.FD
        self.store(at, at >> 12 ^ old if self.safe else old)
        self.store(head, p)
        if locked and old and self.fast_index(self.chunksize(old)) != index:
            self.abort("invalid fastbin entry (free)")

    def _free_merge(self, av: int, p: int, size: int) -> None:
        """_int_free_merge_chunk: check, merge with both neighbours, put into a list."""
        load, sz = self.load, self.SZ
        following = p + size & self.MOST
        top = load(av + self.o_top)
        if p == top:
            self.abort("double free or corruption (top)")
        if not self.noncontiguous(av) and following >= top + self.chunksize(top):
            self.abort("double free or corruption (out)")
        raw = load(following + sz)
        if not raw & PREV_INUSE:
            self.abort("double free or corruption (!prev)")
        if raw <= self.HDR or raw & ~7 >= load(av + self.o_system):
            self.abort("free(): invalid next size (normal)")
        self.free_perturb(p + self.HDR, size - self.HDR & self.MOST)
        if not load(p + sz) & PREV_INUSE:
            before = load(p)
            size, p = size + before & self.MOST, p - before & self.MOST
            self._merge_back(av, p, before, "corrupted size vs. prev_size while consolidating")
        self.free_finish(av, self.free_create(av, p, size, following, raw & ~7))

    checks_merge = False

    def _merge_back(self, av: int, p: int, before: int, text: str) -> None:
        if self.checks_merge and self.chunksize(p) != before:
            self.abort(text)
        self.unlink_chunk(av, p)

    def free_create(self, av: int, p: int, size: int, following: int, next_size: int) -> int:
        """_int_free_create_chunk: merge forward, list the chunk; return its size."""
        load, store, sz = self.load, self.store, self.SZ
        if following == load(av + self.o_top):
            size = size + next_size & self.MOST
            store(p + sz, size | PREV_INUSE)
            store(av + self.o_top, p)
            return size
        if load(following + next_size + sz) & PREV_INUSE:
            store(following + sz, load(following + sz) & ~PREV_INUSE)
        else:
            self.unlink_chunk(av, following)
            size = size + next_size & self.MOST
        back, forward = self._free_place(av, p, size)
        store(p + self.BK, back)
        store(p + self.FD, forward)
        store(back + self.FD, p)
        store(forward + self.BK, p)
        store(p + sz, size | PREV_INUSE)
        store(p + size, size)
        return size

    small_to_bin = False

    def _free_place(self, av: int, p: int, size: int) -> tuple[int, int]:
        """Return (back, forward) of the list that a freed chunk goes to."""
        if self.small_to_bin and size < self.MIN_LARGE:
            index = self.bin_index(size)
            back = self.bin_at(av, index)
            forward = self.load(back + self.FD)
            if self.load(forward + self.BK) != back:
                self.abort("free(): chunks in smallbin corrupted")
            self.mark_bin(av, index)
            return back, forward
        back = av + self.o_top
        forward = self.load(back + self.FD)
        if self.load(forward + self.BK) != back:
            self.abort("free(): corrupted unsorted chunks")
        if size >= self.MIN_LARGE:
            self.store(p + self.FDN, 0)
            self.store(p + self.BKN, 0)
        return back, forward

    def free_finish(self, av: int, size: int) -> None:
        """After a large free: consolidate fast chunks, trim."""
        if size < TRIM_AT:
            return
        if self.have_fastchunks(av):
            self.malloc_consolidate(av)
        top = self.load(av + self.o_top)
        if av == self.main:
            if self.chunksize(top) >= self.load(self.mp["trim_threshold"]):
                self.systrim(self.load(self.mp["top_pad"]), av)
            return
        heap = self.heap_for_ptr(top)
        if self.load(heap) != av:
            self.fail("free_heap")
        self.heap_trim(heap, self.load(self.mp["top_pad"]))

    # --- consolidation ------------------------------------------------------------------------

    def init_state(self, av: int) -> None:
        """malloc_init_state."""
        store = self.store
        for index in range(1, 128):
            bin_ = self.bin_at(av, index)
            store(bin_ + self.FD, bin_)
            store(bin_ + self.BK, bin_)
        flags = 0
        if av != self.main:
            flags = 2
        elif self.has_fastbins:
            self.set_max_fast(self.layout.constants["DEFAULT_MXFAST"])
        if self.has("no_fastchunks_bit"):
            flags |= 1
        self.store_int(av + self.o_flags, self.load_int(av + self.o_flags) | flags)
        store(av + self.o_top, av + self.o_top)

    def set_max_fast(self, size: int) -> None:
        """set_max_fast: what mxfast stands for in this release."""
        value = (size + self.SZ) & ~self.MASK
        none = 4 * self.SZ // 2  # MIN_CHUNK_SIZE / 2
        if self.has("mxfast_zero_align"):
            value = self.ALIGN if size == 0 else value
        elif size <= (self.MASK - self.SZ if self.has("mxfast_small_none") else 0):
            value = none
        at = self.at["global_max_fast"]
        if self.has("max_fast_byte"):
            self.store_byte(at, value)
        else:
            self.store(at, value)

    def malloc_consolidate(self, av: int) -> None:
        """Merge all fast chunks and list them as unsorted."""
        if not self.has_fastbins:
            return
        if self.has("init_by_consolidate") and not self.max_fast():
            self.init_state(av)
            return
        self.set_fastchunks(av, False)
        for index in range(self.nfastbins):
            head = av + self.o_fast + index * self.SZ
            p = self.load(head)
            if p:
                self.store(head, 0)
                self._consolidate_list(av, p, index)

    def _consolidate_list(self, av: int, p: int, index: int) -> None:
        steps = 0
        while p:
            if self.safe and self.misaligned(p):
                self.abort("malloc_consolidate(): unaligned fastbin chunk detected")
            checked = self.has("consolidate_checks_size")
            if checked and self.fast_index(self.chunksize(p)) != index:
                self.abort("malloc_consolidate(): invalid chunk size")
            at = p + self.FD
            following = self.load(at)
            if self.safe:
                following ^= at >> 12
            self._consolidate_chunk(av, p)
            p = following
            steps += 1
            if steps > self.loops:
                raise Endless(p)

    def _consolidate_chunk(self, av: int, p: int) -> None:
        load, store, sz = self.load, self.store, self.SZ
        size = load(p + sz) & ~7
        following = p + size
        next_size = self.chunksize(following)
        if not load(p + sz) & PREV_INUSE:
            before = load(p)
            size, p = size + before & self.MOST, p - before & self.MOST
            self._merge_back(av, p, before, "corrupted size vs. prev_size in fastbins")
        if following == load(av + self.o_top):
            store(p + sz, size + next_size | PREV_INUSE)
            store(av + self.o_top, p)
            return
        if load(following + next_size + sz) & PREV_INUSE:
            self.clear_inuse_at(following)
        else:
            size = size + next_size & self.MOST
            self.unlink_chunk(av, following)
        unsorted = av + self.o_top
        first = load(unsorted + self.FD)
        store(unsorted + self.FD, p)
        store(first + self.BK, p)
        if size >= self.MIN_LARGE:
            store(p + self.FDN, 0)
            store(p + self.BKN, 0)
        store(p + sz, size | PREV_INUSE)
        store(p + self.BK, unsorted)
        store(p + self.FD, first)
        store(p + size, size)

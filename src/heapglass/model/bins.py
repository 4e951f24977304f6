"""`_int_malloc`: fast, small, unsorted and large bins, and top."""

from __future__ import annotations

from .core import MAX_ITERS, NON_MAIN_ARENA, PREV_INUSE, Core, Endless
from .tcache import NoTcache

ROUNDS = 64  # of sorting and consolidating in one call: two are enough in a heap that is whole


class Bins(Core):
    """Taking chunks from the arena's bins."""

    tcache: NoTcache

    def sysmalloc(self, nb: int, av: int) -> int:
        """More memory from the system; in `System`."""
        raise NotImplementedError

    def malloc_consolidate(self, av: int) -> None:
        """Merge the fast chunks; in `Freeing`."""
        raise NotImplementedError

    def init_tcache_inside(self, av: int) -> None:
        """Make the thread's tcache in the middle of malloc; in `Front`."""
        raise NotImplementedError

    def _int_malloc(self, av: int, request: int) -> int:
        """Return a block of the arena, 0 if there is no memory."""
        nb = self.checked_request2size(request)
        if not nb:
            return 0
        if not av:
            mem, cached = self.sysmalloc(nb, 0), False
        else:
            mem, cached = self._take(av, nb)
        if not cached:
            self.alloc_perturb(mem, request)
        return mem

    def _take(self, av: int, nb: int) -> tuple[int, bool]:
        """Return (mem, whether it came out of the tcache)."""
        if self.has_fastbins and nb <= self.max_fast():
            mem = self._from_fastbin(av, nb)
            if mem:
                return mem, False
        if nb < self.MIN_LARGE:
            mem = self._from_smallbin(av, nb)
            if mem:
                return mem, False
        elif self.have_fastchunks(av):
            self.malloc_consolidate(av)
        return self._from_lists(av, nb)

    # --- fast and small -----------------------------------------------------------------------

    def _from_fastbin(self, av: int, nb: int) -> int:
        load, index = self.load, (nb >> self.fast_shift) - 2
        head = av + self.o_fast + index * self.SZ
        victim = load(head)
        if not victim:
            return 0
        if self.safe and self.misaligned(victim):
            self.abort("malloc(): unaligned fastbin chunk detected 2")
        self._pop_fast(head, victim)
        if self.fast_index(self.chunksize(victim)) != index:
            self.abort("malloc(): memory corruption (fast)")
        self._stash_fast(head, nb)
        return victim + self.HDR

    safe = False  # safe-linking

    def fast_index(self, size: int) -> int:
        """fastbin_index, which takes an unsigned int."""
        return ((size & 0xFFFFFFFF) >> self.fast_shift) - 2

    def _pop_fast(self, head: int, victim: int) -> None:
        at = victim + self.FD
        following = self.load(at)
        if self.safe:
            following ^= at >> 12
            if following and self.misaligned(following) and self.multi_threaded():
                self.abort("malloc(): unaligned fastbin chunk detected")
        self.store(head, following)

    def multi_threaded(self) -> bool:
        """Whether this process ever had a second thread."""
        return not self.load(self.at["single_threaded"])

    def _stash_fast(self, head: int, nb: int) -> None:
        tcache = self.tcache
        index = tcache.stash_index(nb)
        if index < 0:
            return
        while tcache.room(index):
            victim = self.load(head)
            if not victim:
                return
            if self.safe and self.misaligned(victim):
                self.abort("malloc(): unaligned fastbin chunk detected 3")
            if self.has("stash_checks_index"):
                size = self.chunksize(victim)
                if ((size - self.MIN) & self.MOST) // self.ALIGN != index:
                    self.abort("malloc(): chunk size mismatch in fastbin")
            self._pop_fast(head, victim)
            tcache.put(victim, index)

    def _from_smallbin(self, av: int, nb: int) -> int:
        load, store = self.load, self.store
        small = av + self.o_bins + (nb // self.ALIGN + self._small_extra - 2) * self.HDR
        victim = load(small + self.BK)
        if victim == small:
            return 0
        if not victim and self.has("init_by_consolidate"):
            self.malloc_consolidate(av)
            return 0
        back = load(victim + self.BK)
        if load(back + self.FD) != victim:
            self.abort("malloc(): smallbin double linked list corrupted")
        self.set_inuse_at(victim + nb)
        store(small + self.BK, back)
        store(back + self.FD, small)
        self._mark_arena(av, victim)
        self._stash_small(av, small, nb)
        return victim + self.HDR

    def _mark_arena(self, av: int, p: int) -> None:
        if av != self.main:
            self.store(p + self.SZ, self.load(p + self.SZ) | NON_MAIN_ARENA)

    def _stash_small(self, av: int, small: int, nb: int) -> None:
        tcache, load, store = self.tcache, self.load, self.store
        index = tcache.stash_index(nb)
        if index < 0:
            return
        if tcache.inactive():
            self.init_tcache_inside(av)
        while tcache.room(index):
            victim = load(small + self.BK)
            if victim == small:
                return
            back = load(victim + self.BK)
            self.set_inuse_at(victim + nb)
            self._mark_arena(av, victim)
            store(small + self.BK, back)
            store(back + self.FD, small)
            tcache.put(victim, index)

    # --- unsorted, large, top -----------------------------------------------------------------

    def _from_lists(self, av: int, nb: int) -> tuple[int, bool]:
        """The outer loop: sort, best fit, next bins, top; again after a consolidation."""
        state = _Scan(self.tcache.stash_index(nb) if self.has("unsorted_stash") else -1)
        for _ in range(ROUNDS):
            mem = self._scan_unsorted(av, nb, state)
            if mem:
                return mem, state.returned_cached
            if nb >= self.MIN_LARGE:
                mem = self._best_fit(av, nb)
            mem = mem or self._next_bins(av, nb) or self._from_top(av, nb)
            if mem:
                return mem, False
            if not self.have_fastchunks(av):
                return self.sysmalloc(nb, av), False
            self.malloc_consolidate(av)
        raise Endless(av)  # a consolidation that leaves its work

    def _scan_unsorted(self, av: int, nb: int, state: _Scan) -> int:
        """Empty the unsorted list into the bins; return an exact fit if there is one."""
        load, store, fd, bk = self.load, self.store, self.FD, self.BK
        unsorted, iters = av + self.o_top, 0
        small = nb < self.MIN_LARGE
        while True:
            victim = load(unsorted + bk)
            if victim == unsorted:
                break
            back = load(victim + bk)
            size = self.check_unsorted(av, victim, back)
            only = small and back == unsorted
            if only and victim == load(av + self.o_remainder) and size > nb + self.MIN:
                return self._split_remainder(av, victim, size, nb)
            if self.checks_unsorted_unlink and load(back + fd) != victim:
                self.abort("malloc(): corrupted unsorted chunks 3")
            store(unsorted + bk, back)
            store(back + fd, unsorted)
            if size == nb:
                if self._keep_exact(av, victim, size, state):
                    continue
                return victim + self.HDR
            self.sort_into_bin(av, victim, size)
            state.sorted += 1
            if state.cached and self.limit_at and 0 < load(self.limit_at) < state.sorted:
                break
            iters += 1
            if iters >= MAX_ITERS:
                break
        if state.cached:
            state.returned_cached = True
            return self.tcache.get(state.index)
        return 0

    checks_unsorted_unlink = checks_unsorted = False
    limit_at = 0  # mp_.tcache_unsorted_limit

    def _keep_exact(self, av: int, victim: int, size: int, state: _Scan) -> bool:
        """An exact fit: put it into the tcache if that takes it."""
        self.set_inuse_at(victim + size)
        self._mark_arena(av, victim)
        tcache = self.tcache
        if self.has("tcache_init_on_exact") and tcache.inactive():
            self.init_tcache_inside(av)
        if state.index >= 0 and tcache.room(state.index):
            tcache.put(victim, state.index)
            state.cached = True
            return True
        return False

    def check_unsorted(self, av: int, victim: int, back: int) -> int:
        """The checks of a chunk in the unsorted list; return its size."""
        load, sz = self.load, self.SZ
        system = load(av + self.o_system)
        raw = load(victim + sz)
        if not self.checks_unsorted:
            if raw <= self.HDR or raw > system:
                self.tell(av, "malloc(): memory corruption")
            return raw & ~7
        size = raw & ~7
        if size <= self.HDR or size > system:
            self.abort("malloc(): invalid size (unsorted)")
        following = victim + size
        next_raw = load(following + sz)
        if next_raw < self.HDR or next_raw > system:
            self.abort("malloc(): invalid next size (unsorted)")
        if load(following) & ~7 != size:
            self.abort("malloc(): mismatching next->prev_size (unsorted)")
        if load(back + self.FD) != victim or load(victim + self.FD) != av + self.o_top:
            self.abort("malloc(): unsorted double linked list corrupted")
        if next_raw & PREV_INUSE:
            self.abort("malloc(): invalid next->prev_inuse (unsorted)")
        return size

    def _split_remainder(self, av: int, victim: int, size: int, nb: int) -> int:
        """Take a small request from the last remainder."""
        store, unsorted, rest = self.store, av + self.o_top, victim + nb
        store(unsorted + self.FD, rest)
        store(unsorted + self.BK, rest)
        store(av + self.o_remainder, rest)
        store(rest + self.FD, unsorted)
        store(rest + self.BK, unsorted)
        self._finish_split(av, victim, nb, size - nb)
        return victim + self.HDR

    def _finish_split(self, av: int, victim: int, nb: int, rest_size: int) -> None:
        """Write the heads of a chunk and its remainder, and the remainder's foot."""
        store, rest = self.store, victim + nb
        if rest_size >= self.MIN_LARGE:
            store(rest + self.FDN, 0)
            store(rest + self.BKN, 0)
        store(victim + self.SZ, nb | PREV_INUSE | (0 if av == self.main else NON_MAIN_ARENA))
        store(rest + self.SZ, rest_size | PREV_INUSE)
        store(rest + rest_size, rest_size)

    def sort_into_bin(self, av: int, victim: int, size: int) -> None:
        """Put a chunk that came out of the unsorted list into its bin."""
        load, store = self.load, self.store
        index = self.bin_index(size)
        back = self.bin_at(av, index)
        forward = load(back + self.FD)
        if size >= self.MIN_LARGE:
            if forward != back:
                back, forward = self._large_place(victim, size | PREV_INUSE, back, forward)
            else:
                store(victim + self.BKN, victim)
                store(victim + self.FDN, victim)
        self.mark_bin(av, index)
        store(victim + self.BK, back)
        store(victim + self.FD, forward)
        store(forward + self.BK, victim)
        store(back + self.FD, victim)

    def _large_place(self, victim: int, size: int, large: int, first: int) -> tuple[int, int]:
        """Find (back, forward) in a large bin that is not empty, and join its list of sizes."""
        load, sz = self.load, self.SZ
        last = load(large + self.BK)
        if load(last + sz) & NON_MAIN_ARENA:
            self.fail("largebin_tail")
        if size < load(last + sz):
            self._append_size(victim, load(large + self.FD))
            return last, large
        forward = self._walk_sizes(first, size)
        if size == load(forward + sz):
            forward = load(forward + self.FD)
        else:
            self._insert_size(victim, forward)
        back = load(forward + self.BK)
        if self.has("largebin_checks") and load(back + self.FD) != forward:
            self.abort("malloc(): largebin double linked list corrupted (bk)")
        return back, forward

    def _append_size(self, victim: int, first: int) -> None:
        load, store, fdn, bkn = self.load, self.store, self.FDN, self.BKN
        if self.has("largebin_append_check") and load(load(first + bkn) + fdn) != first:
            self.abort("malloc(): largebin double linked list corrupted (nextsize)")
        store(victim + fdn, first)
        store(victim + bkn, load(first + bkn))
        store(load(victim + bkn) + fdn, victim)
        store(first + bkn, victim)

    def _walk_sizes(self, forward: int, size: int) -> int:
        load, sz, steps = self.load, self.SZ, 0
        if load(forward + sz) & NON_MAIN_ARENA:
            self.fail("largebin_first")
        while size < load(forward + sz):
            forward = load(forward + self.FDN)
            if load(forward + sz) & NON_MAIN_ARENA:
                self.fail("largebin_next")
            steps += 1
            if steps > self.loops:
                raise Endless(forward)
        return forward

    def _insert_size(self, victim: int, forward: int) -> None:
        load, store, fdn, bkn = self.load, self.store, self.FDN, self.BKN
        store(victim + fdn, forward)
        store(victim + bkn, load(forward + bkn))
        if self.has("largebin_checks") and load(load(forward + bkn) + fdn) != forward:
            self.abort("malloc(): largebin double linked list corrupted (nextsize)")
        store(forward + bkn, victim)
        store(load(victim + bkn) + fdn, victim)

    def _best_fit(self, av: int, nb: int) -> int:
        """The smallest chunk of the request's own large bin that is large enough."""
        load, sz, steps = self.load, self.SZ, 0
        large = self.bin_at(av, self.bin_index(nb))
        victim = load(large + self.FD)
        if victim == large or load(victim + sz) < nb:
            return 0
        victim = load(victim + self.BKN)
        size = load(victim + sz) & ~7
        while size < nb:
            victim = load(victim + self.BKN)
            size = load(victim + sz) & ~7
            steps += 1
            if steps > self.loops:
                raise Endless(victim)
        if victim != load(large + self.BK):
            following = load(victim + self.FD)
            if load(victim + sz) == load(following + sz):
                victim = following
        return self._carve(av, victim, size, nb, "malloc(): corrupted unsorted chunks")

    def _carve(self, av: int, victim: int, size: int, nb: int, text: str) -> int:
        """Unlink a chunk that is large enough; what is over goes to the unsorted list."""
        load, store, rest_size = self.load, self.store, size - nb
        self.unlink_chunk(av, victim)
        if rest_size < self.MIN:
            self.set_inuse_at(victim + size)
            self._mark_arena(av, victim)
            return victim + self.HDR
        rest, unsorted = victim + nb, av + self.o_top
        forward = load(unsorted + self.FD)
        if load(forward + self.BK) != unsorted:
            self.abort(text)
        store(rest + self.BK, unsorted)
        store(rest + self.FD, forward)
        store(unsorted + self.FD, rest)
        store(forward + self.BK, rest)
        if text.endswith("2") and nb < self.MIN_LARGE:
            store(av + self.o_remainder, rest)
        self._finish_split(av, victim, nb, rest_size)
        return victim + self.HDR

    def _next_bins(self, av: int, nb: int) -> int:
        """The first chunk of the next larger bin that has one, by the binmap."""
        load, index = self.load, self.bin_index(nb) + 1
        block, low = index >> 5, 1 << (index & 31)
        bits = self.load_int(av + self.o_binmap + block * 4)
        while True:
            rest = bits & -low
            while not rest:
                block += 1
                if block >= 4:
                    return 0
                rest = bits = self.load_int(av + self.o_binmap + block * 4)
            low = rest & -rest
            place = self.bin_at(av, block * 32 + low.bit_length() - 1)
            victim = load(place + self.BK)
            if victim != place:
                break
            bits &= ~low
            self.store_int(av + self.o_binmap + block * 4, bits)
            low <<= 1
        size = self.chunksize(victim)
        if size < nb:
            self.fail("bin_size")
        return self._carve(av, victim, size, nb, "malloc(): corrupted unsorted chunks 2")

    def _from_top(self, av: int, nb: int) -> int:
        """Take from the top chunk, 0 if it is too small."""
        load, store, sz = self.load, self.store, self.SZ
        victim = load(av + self.o_top)
        size = load(victim + sz) & ~7
        if self.checks_top and size > load(av + self.o_system):
            self.abort("malloc(): corrupted top size")
        if size < nb + self.MIN:
            return 0
        rest = victim + nb
        store(av + self.o_top, rest)
        store(victim + sz, nb | PREV_INUSE | (0 if av == self.main else NON_MAIN_ARENA))
        store(rest + sz, size - nb | PREV_INUSE)
        return victim + self.HDR

    checks_top = False


class _Scan:
    """What one `_int_malloc` remembers across its unsorted scans."""

    def __init__(self, index: int) -> None:
        self.index = index  # tcache bin for exact fits, -1: none
        self.cached = False
        self.returned_cached = False
        self.sorted = 0  # chunks put into bins

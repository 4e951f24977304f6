"""Aligned blocks: `_mid_memalign` and `_int_memalign`."""

from __future__ import annotations

from .core import IS_MMAPPED, NON_MAIN_ARENA, PREV_INUSE, Endless
from .engine import Engine


class Memalign(Engine):
    """memalign and its relatives, behind the entry."""

    def cached_aligned(self, request: int, alignment: int) -> int | None:
        """A block out of the tcache; in the entry."""
        raise NotImplementedError

    def mid_memalign(self, alignment: int, request: int) -> int:
        """Return an aligned block, 0 if there is none."""
        if alignment <= self.ALIGN:
            return self.malloc_entry(request)
        alignment = max(alignment, self.MIN)
        if alignment > (self.MOST >> 1) + 1:
            return 0
        if self.has("memalign_limit") and request > self.MOST - alignment - self.MIN:
            return 0
        if alignment & (alignment - 1):
            alignment = 1 << alignment.bit_length()
        mem = self.cached_aligned(request, alignment)
        if mem is None or mem:
            return mem or 0
        return self._memalign_past(alignment, request)

    def _memalign_past(self, alignment: int, request: int) -> int:
        if self.single():
            mem = self._int_memalign(self.main, alignment, request)
            self._check_arena(self.main, mem, "memalign", True)
            return mem
        av = self.arena_get(request + alignment + self.MIN & self.MOST)
        mem = self._int_memalign(av, alignment, request)
        if not mem and av:
            av = self.arena_get_retry(av, request)
            mem = self._int_memalign(av, alignment, request)
        self._check_arena(av, mem, "memalign", False)
        return mem

    def _int_memalign(self, av: int, alignment: int, request: int) -> int:
        most = self.MOST >> 1
        if self.has("memalign_ptrdiff") and (request > most or alignment > most):
            return 0
        nb = self.checked_request2size(request)
        if not nb:
            return 0
        if self.has("memalign_limit_chunk") and nb > self.MOST - alignment - self.MIN:
            return 0
        mem = self._search_bins(av, alignment, nb) if self.has("memalign_from_bins") else 0
        mem = mem or self._int_malloc(av, nb + alignment + self.MIN & self.MOST)
        if not mem:
            return 0
        p = mem - self.HDR
        if self.load(p + self.SZ) & IS_MMAPPED:
            return self._align_mmapped(p, mem, alignment)
        if mem % alignment:
            p = self._cut_lead(av, p, mem, alignment, nb)
        self._cut_tail(av, p, nb)
        return p + self.HDR

    def _align_mmapped(self, p: int, mem: int, alignment: int) -> int:
        """Move the header of an mmapped chunk up to the aligned place."""
        aligned = mem + alignment - 1 & -alignment
        if self.has("mmap_header_apart"):
            start, size, _ = self.mapping_of(p)
            huge = bool(self.load(p) & 1)
            return self._set_chunk(start, size, aligned - self.HDR - start, huge) + self.HDR
        if aligned == mem:
            return mem
        if aligned - mem < self.MIN:
            aligned += alignment
        lead, new = aligned - mem, aligned - self.HDR
        self.store(new, self.load(p) + lead)
        self.store(new + self.SZ, self.chunksize(p) - lead | IS_MMAPPED)
        return aligned

    def _cut_lead(self, av: int, p: int, mem: int, alignment: int, nb: int) -> int:
        """Free what stands before the aligned place; the new chunk."""
        aligned = mem + alignment - 1 & -alignment
        if aligned - mem < self.MIN:
            aligned += alignment
        lead, new, flag = aligned - mem, aligned - self.HDR, self.arena_flag(av)
        size = self.chunksize(p) - lead & self.MOST
        self.store(new + self.SZ, size | PREV_INUSE | flag)
        self.set_inuse_at(new + size)
        self.set_head_size(p, lead | flag)
        if self.has("memalign_merges"):
            self._free_merge(av, p, lead)
        else:
            self.int_free(av, p, True)
        if not self.has("memalign_exact_tail") and size < nb:
            self.fail("memalign_size")
        return new

    def _cut_tail(self, av: int, p: int, nb: int) -> None:
        """Free what stands behind the request."""
        size = self.chunksize(p)
        rest = size - nb & self.MOST
        if not self.has("memalign_merges"):
            if size > nb + self.MIN:
                self.store(p + nb + self.SZ, rest | PREV_INUSE | self.arena_flag(av))
                self.set_head_size(p, nb)
                self.int_free(av, p + nb, True)
            return
        following = p + size
        next_size = self.chunksize(following)
        if rest >= self.MIN or self._tail_merges(av, size - nb, following, next_size):
            if size <= nb and not self.has("memalign_exact_tail"):
                return
            self.set_head_size(p, nb)
            done = self.free_create(av, p + nb, rest, following, next_size)
            self.free_finish(av, done)

    def _tail_merges(self, av: int, rest: int, following: int, next_size: int) -> bool:
        if rest <= 0 or not self.has("memalign_any_tail"):
            return False
        if following == self.load(av + self.o_top):
            return True
        return not self.load(following + next_size + self.SZ) & PREV_INUSE

    # --- 2.38: a chunk of a bin that has an aligned place --------------------------------------

    def _search_bins(self, av: int, alignment: int, nb: int) -> int:
        if not av:
            return 0
        first_large = self.bin_index(self.MIN_LARGE)
        for index in range(self.bin_index(nb), self.bin_index(2 * nb)):
            bin_ = self.bin_at(av, index)
            if index < first_large:
                victim = self._first_fit(bin_, alignment, nb)
            else:
                victim = self._least_excess(av, bin_, alignment, nb)
            if victim:
                self.set_inuse_at(victim + self.chunksize(victim))
                if av != self.main:
                    head = victim + self.SZ
                    self.store(head, self.load(head) | NON_MAIN_ARENA)
                return victim + self.HDR
        return 0

    def _suits(self, p: int, alignment: int, nb: int) -> int:
        """chunk_ok_for_memalign: 0, or by how much the chunk is too large (1: not at all)."""
        mem, size = p + self.HDR, self.chunksize(p)
        if self.misaligned(p):
            self.abort("_int_memalign(): unaligned chunk detected")
        front = -mem & alignment - 1
        if 0 < front < self.MIN:
            return 0
        if size == nb and not front:
            return 1
        return size - nb if size > nb + front else 0

    def _first_fit(self, bin_: int, alignment: int, nb: int) -> int:
        p, steps = self.load(bin_ + self.FD), 0
        while p != bin_:
            if self._suits(p, alignment, nb):
                forward, back = self.load(p + self.FD), self.load(p + self.BK)
                self.store(forward + self.BK, back)
                self.store(self.load(p + self.BK) + self.FD, self.load(p + self.FD))
                return p
            p = self.load(p + self.FD)
            steps += 1
            if steps > self.loops:
                raise Endless(p)
        return 0

    def _least_excess(self, av: int, bin_: int, alignment: int, nb: int) -> int:
        p, best, best_size, steps = self.load(bin_ + self.FD), 0, 0, 0
        while p != bin_ and self.chunksize(p) >= nb:
            extra = self._suits(p, alignment, nb)
            if extra and (not best or extra <= best_size):
                best, best_size = p, extra
            p = self.load(p + self.FD)
            steps += 1
            if steps > self.loops:
                raise Endless(p)
        if best:
            self.unlink_chunk(av, best)
        return best

"""sysmalloc and systrim: the main arena and the break; where the others grow is in `Heaps`."""

from __future__ import annotations

from .complaints import DEFAULT_ACTION
from .core import NON_MAIN_ARENA, NONCONTIGUOUS, PREV_INUSE
from .freeing import Freeing

MMAP_AS_MORECORE = 1 << 20


class System(Freeing):
    """Memory from the system for the main arena."""

    def mmap_request(self, nb: int) -> int:
        """A chunk with a mapping of its own, 0 if that fails; in `Mmapped`."""
        raise NotImplementedError

    def grow_arena(self, av: int, nb: int, old_top: int, old_size: int) -> bool:
        """A longer or a new heap for another arena; in `Heaps`."""
        raise NotImplementedError

    def morecore(self, delta: int) -> int:
        """MORECORE: where the break was, 0 if it cannot move."""
        if self.hugetlb_mainly():
            return 0
        return self.kernel.sbrk(delta) or 0

    def hugetlb_mainly(self) -> bool:
        """__always_fail_morecore: the main arena is made of huge pages, by mmap."""
        huge = self.huge_page()
        return bool(huge) and (not self.has("hugetlb_within_heap") or huge <= self.heap_max_size())

    def sysmalloc(self, nb: int, av: int) -> int:
        """Return a block of fresh memory, 0 if there is none."""
        tried = False
        if not av or self.wants_mmap(nb):
            mem = self.mmap_request(nb)
            if mem or not av:
                return mem
            tried = True
        old_top = self.load(av + self.o_top)
        old_size = self.chunksize(old_top)
        self._check_old_top(av, old_top, old_size)
        if av == self.main:
            self._grow_main(nb, old_top, old_size)
        elif not self.grow_arena(av, nb, old_top, old_size) and not tried:
            mem = self.mmap_request(nb)
            if mem:
                return mem
        if self.load(av + self.o_system) > self.load(av + self.o_max_system):
            self.store(av + self.o_max_system, self.load(av + self.o_system))
        return self._split_top(av, nb)

    def wants_mmap(self, nb: int) -> bool:
        """Whether a request gets a mapping of its own."""
        mp = self.mp
        if nb < self.load(mp["mmap_threshold"]):
            return False
        most = self.load_int(mp["n_mmaps_max"])
        return signed(self.load_int(mp["n_mmaps"])) < signed(most)

    def _check_old_top(self, av: int, old_top: int, old_size: int) -> None:
        initial = old_top == av + self.o_top and not old_size
        old_end = old_top + old_size
        if not initial and (
            old_size < self.MIN
            or not self.inuse_at(old_top)
            or old_end & (self.kernel.page_size - 1)
        ):
            self.fail("old_top")

    def _split_top(self, av: int, nb: int) -> int:
        """Take the request from top; as `_from_top`, but past its check."""
        p = self.load(av + self.o_top)
        size = self.chunksize(p)
        if size < nb + self.MIN:
            return 0
        self.store(av + self.o_top, p + nb)
        self.store(p + self.SZ, nb | PREV_INUSE | (0 if av == self.main else NON_MAIN_ARENA))
        self.store(p + nb + self.SZ, size - nb | PREV_INUSE)
        return p + self.HDR

    # --- the break ----------------------------------------------------------------------------

    def _grow_main(self, nb: int, old_top: int, old_size: int) -> None:
        av, mp = self.main, self.mp
        size = nb + self.load(mp["top_pad"]) + self.MIN
        if not self.noncontiguous(av):
            size -= old_size
        size = self._whole_pages(size) & self.MOST  # a huge request may wrap around to a small one
        brk = self.morecore(size) if 0 < size < self.MOST >> 1 else 0
        second = 0
        if not brk:
            brk, size = self._mmap_instead(nb, size, old_size)
            second = brk + size
        if not brk:
            return
        if not self.load(mp["sbrk_base"]):
            self.store(mp["sbrk_base"], brk)
        self._add_system(size)
        old_end = old_top + old_size
        if brk == old_end and not second:
            self.store(old_top + self.SZ, size + old_size | PREV_INUSE)
        elif not self.noncontiguous(av) and old_size and brk < old_end:
            self.tell(av, "break adjusted to free malloc space", DEFAULT_ACTION)
        else:
            self._new_region(brk, size, second, old_top, old_size)

    def _add_system(self, size: int) -> None:
        at = self.main + self.o_system
        self.store(at, self.load(at) + size)

    def _whole_pages(self, size: int) -> int:
        """Round the growth up: to pages, or so that the break is a huge page's."""
        huge = self.load(self.mp["thp_pagesize"]) if "thp_pagesize" in self.mp else 0
        if huge:
            brk = self.kernel.curbrk if self.has("thp_by_curbrk") else self.kernel.brk
            return (brk + size + huge - 1 & -huge) - brk
        return self.kernel.page_up(size)

    def _mmap_instead(self, nb: int, size: int, old_size: int) -> tuple[int, int]:
        """Where the break cannot move: a mapping (start or 0, size)."""
        huge, start = self.huge_page(), None
        if huge:
            wanted = self._fallback_size(nb, size, old_size, huge, huge)
            start = self._map_fallback(nb, wanted, huge)
        if start is None:
            wanted = self._fallback_size(
                nb, size, old_size, self.kernel.page_size, MMAP_AS_MORECORE
            )
            start = self._map_fallback(nb, wanted, 0)
        if start is None:
            return 0, wanted
        at = self.main + self.o_flags
        self.store_int(at, self.load_int(at) | NONCONTIGUOUS)
        return start, wanted

    def _map_fallback(self, nb: int, size: int, huge: int) -> int | None:
        if self.has("fallback_checks_size") and size <= nb:
            return None
        return self.kernel.mmap(size, huge=huge)

    def _fallback_size(self, nb: int, size: int, old_size: int, unit: int, least: int) -> int:
        if self.has("fallback_by_request"):
            wanted = nb + self.load(self.mp["top_pad"]) + self.MIN
            return max(wanted + unit - 1 & -unit & self.MOST, least)
        if self.has("fallback_swapped"):
            unit, least = least, unit
        if not self.noncontiguous(self.main):
            size = size + old_size + unit - 1 & -unit & self.MOST
        return max(size, least)

    def _new_region(self, brk: int, size: int, second: int, old_top: int, old_size: int) -> None:
        """The break did not continue top: a new region, and the old top is closed."""
        aligned, correction = brk, 0
        misalign = brk + self.HDR & self.MASK
        if misalign:
            aligned += self.ALIGN - misalign
        if not self.noncontiguous(self.main):
            if old_size:
                self._add_system(brk - (old_top + old_size))
            correction = aligned - brk + old_size
            end = brk + size + correction
            correction += self.kernel.page_up(end) - end
            second = self.morecore(correction)
            if not second:
                correction, second = 0, self.morecore(0)
        elif not second:
            second = self.morecore(0)
        if not second:
            return
        self.store(self.main + self.o_top, aligned)
        self.store(aligned + self.SZ, second - aligned + correction | PREV_INUSE)
        self._add_system(correction)
        if old_size:
            self._close_old_top(old_top, old_size)

    def _close_old_top(self, old_top: int, old_size: int) -> None:
        """Two fenceposts at the end of the old top; what is before them is freed."""
        size = old_size - 2 * self.HDR & ~self.MASK
        self.store(old_top + self.SZ, size | PREV_INUSE)
        self.store(old_top + size + self.SZ, self.HDR | PREV_INUSE)
        self.store(old_top + size + self.HDR + self.SZ, self.HDR | PREV_INUSE)
        if size & self.MOST >= self.MIN:
            self.free_inside(self.main, old_top)

    # --- giving back --------------------------------------------------------------------------

    def systrim(self, pad: int, av: int) -> int:
        """Move the break down over what of top exceeds *pad*; 1 if it moved."""
        top = self.load(av + self.o_top)
        size = self.chunksize(top)
        area = size - self.MIN - 1 & self.MOST
        if area <= pad:
            return 0
        huge = self.load(self.mp["thp_pagesize"]) if "thp_pagesize" in self.mp else 0
        extra = area - pad & -(huge or self.kernel.page_size)
        if extra > self.MOST >> 1:
            extra -= self.MOST + 1
        current = self.morecore(0)
        if not extra or current != top + size:
            return 0
        self.morecore(-extra)
        released = current - self.morecore(0)
        if not released:
            return 0
        self._add_system(-released)
        self.store(top + self.SZ, size - released | PREV_INUSE)
        return 1


def signed(value: int) -> int:
    """An int of C from its four bytes."""
    return value - (1 << 32) if value >> 31 else value

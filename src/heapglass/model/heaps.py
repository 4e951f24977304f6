"""Heaps of arenas other than main_arena: heap_info segments, made, grown, trimmed."""

from __future__ import annotations

from .core import NON_MAIN_ARENA, PREV_INUSE
from .mmapped import Mmapped


class Heaps(Mmapped):
    """Segments of HEAP_MAX_SIZE, aligned to it, of which the beginning is in use."""

    def _info(self, heap: int, field: str) -> int:
        """The address of a field of heap_info."""
        return heap + self.layout.structs["heap_info"].offset(field)

    @property
    def heap_info_size(self) -> int:
        """Sizeof heap_info."""
        return self.layout.structs["heap_info"].size

    def heap_page(self, heap: int) -> int:
        """The page size that a heap grows by."""
        if "pagesize" in self.layout.structs["heap_info"]:
            return self.load(self._info(heap, "pagesize"))
        return self.kernel.page_size

    # --- making and growing -------------------------------------------------------------------

    def new_heap(self, size: int, top_pad: int) -> int:
        """Return a new heap of at least *size* bytes, 0 if there is no room."""
        huge = self.huge_page()
        page = huge
        if not huge and self.has("heap_of_thp"):
            page = self.load(self.mp["thp_pagesize"])
        if page and page <= self.heap_max_size():
            heap = self._new_heap(size, top_pad, page, huge)
            if heap:
                return heap
        return self._new_heap(size, top_pad, self.kernel.page_size, 0)

    def _heap_min_size(self) -> int:
        huge = self.huge_page()
        if self.has("hugetlb_within_heap") and huge > self.layout.constants["HEAP_MAX_SIZE"]:
            huge = 0
        return huge or self.layout.constants["HEAP_MIN_SIZE"]

    def _new_heap(self, size: int, top_pad: int, page: int, huge: int) -> int:
        least, most = self._heap_min_size(), self.heap_max_size()
        if size + top_pad & self.MOST < least:
            size = least
        elif size + top_pad & self.MOST <= most:
            size += top_pad
        elif size > most:
            return 0
        else:
            size = most
        size = size + page - 1 & -page
        heap = self._reserve(most, huge)
        if not heap:
            return 0
        self.kernel.mprotect(heap, size, "rw-")
        self.store(self._info(heap, "size"), size)
        self.store(self._info(heap, "mprotect_size"), size)
        if "pagesize" in self.layout.structs["heap_info"]:
            self.store(self._info(heap, "pagesize"), page)
        return heap

    def _reserve(self, size: int, huge: int) -> int:
        """Return *size* bytes of address space, aligned to it, without access; 0: no room."""
        kernel, at = self.kernel, self.at["aligned_heap_area"]
        hint = self.load(at)
        if hint:
            start = kernel.mmap(size, "---", hint, huge)
            self.store(at, 0)
            if start is not None and not start & size - 1:
                return start
            if start is not None:
                kernel.munmap(start, size)
        first = kernel.mmap(2 * size, "---", huge=huge)
        if first is None:
            return self._reserve_exactly(size, huge)
        start = first + size - 1 & -size
        lead = start - first
        if lead:
            kernel.munmap(first, lead)
        else:
            self.store(at, start + size)
        kernel.munmap(start + size, size - lead)
        return start

    def _reserve_exactly(self, size: int, huge: int) -> int:
        start = self.kernel.mmap(size, "---", huge=huge)
        if start is not None and start & size - 1:
            self.kernel.munmap(start, size)
            return 0
        return start or 0

    def grow_heap(self, heap: int, more: int) -> bool:
        """Extend the used part of a heap."""
        page = self.heap_page(heap)
        size = self.load(self._info(heap, "size")) + (more + page - 1 & -page)
        if size > self.heap_max_size():
            return False
        done = self.load(self._info(heap, "mprotect_size"))
        if size > done:
            self.kernel.mprotect(heap + done, size - done, "rw-")
            self.store(self._info(heap, "mprotect_size"), size)
        self.store(self._info(heap, "size"), size)
        return True

    def grow_arena(self, av: int, nb: int, old_top: int, old_size: int) -> bool:
        """Make an arena's top large enough: by its heap, or a new one."""
        heap = self.heap_for_ptr(old_top)
        before = self.load(self._info(heap, "size"))
        more = self.MIN + nb - old_size
        if more > 0 and self.grow_heap(heap, more):
            size = self.load(self._info(heap, "size"))
            self._add_arena(av, size - before)
            self.store(old_top + self.SZ, heap + size - old_top | PREV_INUSE)
            return True
        new = self.new_heap(nb + self.MIN + self.heap_info_size, self.load(self.mp["top_pad"]))
        if not new:
            return False
        self.store(new, av)
        self.store(self._info(new, "prev"), heap)
        size = self.load(self._info(new, "size"))
        self._add_arena(av, size)
        top = new + self.heap_info_size
        self.store(av + self.o_top, top)
        self.store(top + self.SZ, size - self.heap_info_size | PREV_INUSE)
        self._close_heap(av, old_top, old_size)
        return True

    def _add_arena(self, av: int, size: int) -> None:
        self.store(av + self.o_system, self.load(av + self.o_system) + size)

    def _close_heap(self, av: int, old_top: int, old_size: int) -> None:
        """The fencepost at the end of a full heap; what is before it is freed."""
        store, size = self.store, old_size - self.MIN & ~self.MASK
        store(old_top + size + self.HDR + self.SZ, PREV_INUSE)
        if size >= self.MIN:
            store(old_top + size + self.SZ, self.HDR | PREV_INUSE)
            store(old_top + size + self.HDR, self.HDR)
            store(old_top + self.SZ, size | PREV_INUSE | NON_MAIN_ARENA)
            self.free_inside(av, old_top)
        else:
            store(old_top + self.SZ, size + self.HDR | PREV_INUSE)
            store(old_top + size + self.HDR, size + self.HDR)

    # --- trimming -----------------------------------------------------------------------------

    def heap_trim(self, heap: int, pad: int) -> int:
        """Unmap heaps that hold nothing but top, then shorten the last one; 1 if it did."""
        av = self.load(heap)
        top = self.load(av + self.o_top)
        while top == heap + self.heap_info_size:
            found = self._step_back(av, heap, pad)
            if not found:
                break
            heap, top = found
        size = self.chunksize(top)
        area = size - self.MIN - 1
        if size < self.load(self.mp["trim_threshold"]) or area < 0 or area <= pad:
            return 0
        extra = area - pad & -self.heap_page(heap)
        if not extra or not self._shrink_heap(heap, extra):
            return 0
        self._add_arena(av, -extra)
        self.store(top + self.SZ, size - extra | PREV_INUSE)
        return 1

    def _step_back(self, av: int, heap: int, pad: int) -> tuple[int, int] | None:
        """Give a heap back whose only chunk is top; return the one before and the new top."""
        most, before = self.heap_max_size(), self.load(self._info(heap, "prev"))
        before_size = self.load(self._info(before, "size"))
        p = before + before_size - (self.MIN - self.HDR)
        misalign = p & self.MASK
        p -= misalign
        if self.load(p + self.SZ) != PREV_INUSE:
            self.fail("heap_fence")
        p -= self.load(p)
        size = self.chunksize(p) + (self.MIN - self.HDR) + misalign
        if not 0 < size < 2 * self.MIN:
            self.fail("heap_fence_size")
        if not self.inuse_at(p):
            size += self.load(p)
        if not 0 < size < most:
            self.fail("heap_new_size")
        page = self.heap_page(heap)
        if size + most - before_size < pad + self.MIN + page:
            return None
        self._add_arena(av, -self.load(self._info(heap, "size")))
        if heap + most == self.load(self.at["aligned_heap_area"]):
            self.store(self.at["aligned_heap_area"], 0)
        self.kernel.munmap(heap, most)
        if not self.inuse_at(p):
            p -= self.load(p)
            self.unlink_chunk(av, p)
        self._check_new_top(before, before_size, p, size)
        self.store(av + self.o_top, p)
        self.store(p + self.SZ, size | PREV_INUSE)
        return before, p

    def _check_new_top(self, heap: int, heap_size: int, p: int, size: int) -> None:
        if p + size & self.heap_page(heap) - 1:
            self.fail("heap_page")
        if p + size != heap + heap_size:
            self.fail("heap_end")

    def _shrink_heap(self, heap: int, less: int) -> bool:
        size = self.load(self._info(heap, "size")) - less
        if size < self.heap_info_size:
            return False
        if self.may_shrink:
            self.kernel.mprotect(heap + size, less, "---")
            self.space.discard(heap + size, heap + size + less)
            self.store(self._info(heap, "mprotect_size"), size)
        else:
            self.kernel.discard(heap + size, less)
        self.store(self._info(heap, "size"), size)
        return True

    may_shrink = False  # check_may_shrink_heap: overcommit_memory is 2, or AT_SECURE

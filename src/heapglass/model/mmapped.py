"""Chunks with a mapping of their own: made, resized, unmapped."""

from __future__ import annotations

from .core import IS_MMAPPED
from .system import System

HUGE_BIT = 1  # in prev_size, since 2.43


class Mmapped(System):
    """mmap, munmap and mremap of single chunks, and their accounts in mp_."""

    def mmap_request(self, nb: int) -> int:
        """sysmalloc_mmap: with huge pages if they are set and it is worth one, else without."""
        huge = self.huge_page()
        mem = self._mmap_chunk(nb, huge) if huge and nb >= huge else 0
        return mem or self._mmap_chunk(nb, 0)

    def _mmap_chunk(self, nb: int, huge: int) -> int:
        page = huge or self.kernel.page_size
        offset = self.ALIGN - self.HDR
        if self.has("mmap_header_apart"):
            size = nb + offset + self.HDR
        else:
            size = nb + self.SZ + (self.MASK if offset else 0)
        size = size + page - 1 & -page & self.MOST
        if size <= nb:
            return 0
        start = self.kernel.mmap(size, huge=huge)
        if start is None:
            return 0
        p = self._set_chunk(start, size, offset, bool(huge))
        self._account(1, size)
        return p + self.HDR

    def _set_chunk(self, start: int, size: int, offset: int, huge: bool) -> int:
        """Write the header of an mmapped chunk that stands *offset* behind its mapping's start."""
        p = start + offset
        apart = self.has("mmap_header_apart")
        self.store(p, offset | (HUGE_BIT if huge and apart else 0))
        self.store(p + self.SZ, size - offset - (self.HDR if apart else 0) | IS_MMAPPED)
        return p

    def _account(self, count: int, size: int) -> None:
        """Add to n_mmaps and mmapped_mem, and to their maxima."""
        mp = self.mp
        if count > 0:
            number = self.load_int(mp["n_mmaps"]) + count
            self.store_int(mp["n_mmaps"], number)
            self.store_int(mp["max_n_mmaps"], max(number, self.load_int(mp["max_n_mmaps"])))
        total = self.load(mp["mmapped_mem"]) + size & self.MOST
        self.store(mp["mmapped_mem"], total)
        self.store(mp["max_mmapped_mem"], max(total, self.load(mp["max_mmapped_mem"])))

    def mapping_of(self, p: int) -> tuple[int, int, int]:
        """Return (start, size, offset) of an mmapped chunk's mapping, as its header says."""
        offset, size = self.load(p), self.chunksize(p)
        if self.has("mmap_header_apart"):
            offset, size = offset & ~HUGE_BIT, size + self.HDR
        return p - offset & self.MOST, size + offset & self.MOST, offset

    def _check_mapping(self, p: int, start: int, size: int, page: int, text: str) -> None:
        bad = (start | size) & (page - 1)
        if self.has("mmap_checks_mem"):
            inside = p + self.HDR & (page - 1)
            bad = bad or inside & (inside - 1)
        if bad:
            self.abort(text)

    def munmap_chunk(self, p: int) -> None:
        """Unmap the mapping of a chunk."""
        if not self.load(p + self.SZ) & IS_MMAPPED:
            self.fail("munmap_mmapped")
        start, size, _ = self.mapping_of(p)
        page = self.kernel.page_size
        self._check_mapping(p, start, size, page, "munmap_chunk(): invalid pointer")
        mp = self.mp
        self.store_int(mp["n_mmaps"], self.load_int(mp["n_mmaps"]) - 1)
        self.store(mp["mmapped_mem"], self.load(mp["mmapped_mem"]) - size)
        self.kernel.munmap(start, size)

    def free_mmapped(self, p: int) -> None:
        """Free an mmapped chunk; the thresholds follow its size."""
        mp, raw = self.mp, self.load(p + self.SZ)
        most = self.layout.constants["DEFAULT_MMAP_THRESHOLD_MAX"]
        dynamic = not self.load_int(mp["no_dyn_threshold"])
        if dynamic and self.load(mp["mmap_threshold"]) < raw <= most:
            self.store(mp["mmap_threshold"], raw & ~7)
            self.store(mp["trim_threshold"], 2 * (raw & ~7))
        self.munmap_chunk(p)

    def mremap_chunk(self, p: int, nb: int) -> int:
        """Resize an mmapped chunk; its new address, 0 if the kernel refuses."""
        start, size, offset = self.mapping_of(p)
        page = self.kernel.page_size
        apart = self.has("mmap_header_apart")
        huge = bool(apart and self.load(p) & HUGE_BIT)
        if huge:
            page = self.load(self.mp["hp_pagesize"])
        if self.has("mmap_checks_mem"):
            self._check_mapping(p, start, size, page, "mremap_chunk(): invalid pointer")
        elif size & (page - 1):
            self.fail("mremap_aligned")
        new = nb + offset + (self.HDR if apart else self.SZ) + page - 1 & -page & self.MOST
        if new == size:
            return p
        to = self.kernel.mremap(start, size, new)
        if to is None:
            return 0
        self._set_size(to, new, offset, huge)
        self._account(0, new - size + (self.HDR if apart else 0))
        return to + offset

    def _set_size(self, start: int, size: int, offset: int, huge: bool) -> None:
        if self.has("mmap_header_apart"):
            self._set_chunk(start, size, offset, huge)
        else:
            self.store(start + offset + self.SZ, size - offset | IS_MMAPPED)

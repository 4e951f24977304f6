"""malloc, calloc, realloc and memalign behind the tcache."""

from __future__ import annotations

from .arenas import Arenas
from .core import IS_MMAPPED, PREV_INUSE
from .tcache import NoTcache


class Engine(Arenas):
    """The parts of the entry points that do not depend on the kind of tcache."""

    def put_inside(self, p: int, size: int) -> bool:
        """The tcache part of `_int_free`; in the entry."""
        raise NotImplementedError

    def malloc_entry(self, request: int) -> int:
        """Malloc from the start, tcache included; in the entry."""
        raise NotImplementedError

    def prepare_tcache(self) -> None:
        """MAYBE_INIT_TCACHE; in the entry."""
        raise NotImplementedError

    tcache: NoTcache

    def single(self) -> bool:
        """SINGLE_THREAD_P, where the release asks for it."""
        return self.has("single_thread_paths") and not self.multi_threaded()

    def _check_arena(self, av: int, mem: int, what: str, single: bool) -> None:
        """The assertion that a block is from the arena that was asked."""
        if not mem or self.load(mem - self.SZ) & IS_MMAPPED:
            return
        if self.arena_for_chunk(mem - self.HDR) != av:
            self.fail(f"{what}_{'main' if single else 'arena'}")

    def malloc_past(self, request: int) -> int:
        """__libc_malloc behind the tcache."""
        if self.single():
            mem = self._int_malloc(self.main, request)
            self._check_arena(self.main, mem, "malloc", True)
            return mem
        av = self.arena_get(request)
        mem = self._int_malloc(av, request)
        if not mem and av:
            av = self.arena_get_retry(av, request)
            mem = self._int_malloc(av, request)
        self._check_arena(av, mem, "malloc", False)
        return mem

    def int_free(self, av: int, p: int, locked: bool) -> None:
        """_int_free, up to 2.41."""
        size = self.chunksize(p)
        self.check_free(p, size)
        if not self.put_inside(p, size):
            self._int_free_chunk(av, p, size, locked)

    def free_inside(self, av: int, p: int) -> None:
        """Free a chunk on malloc's own account."""
        if self.has("free_internal_bypasses"):
            self._int_free_chunk(av, p, self.chunksize(p), True)
        else:
            self.int_free(av, p, True)

    # --- calloc -------------------------------------------------------------------------------

    def calloc_past(self, size: int) -> int:
        """__libc_calloc behind the tcache."""
        single = self.single()
        av = self.main if single else self.arena_get(size)
        old_top, old_size = self._old_top(av)
        mem = self._int_malloc(av, size)
        self._check_arena(av, mem, "calloc", False)
        if not mem and not single and av:
            mem = self._int_malloc(self.arena_get_retry(av, size), size)
        if mem:
            self._clear(mem, size, old_top, old_size)
        return mem

    def _old_top(self, av: int) -> tuple[int, int]:
        """Top before the call, and how many of its bytes may not be zero."""
        if not av:
            return 0, 0
        top = self.load(av + self.o_top)
        size = self.chunksize(top) if top else 0
        if av != self.main:
            heap = self.heap_for_ptr(top)
            size = max(size, heap + self.load(self._info(heap, "mprotect_size")) - top)
        return top, size

    def _clear(self, mem: int, size: int, old_top: int, old_size: int) -> None:
        p = mem - self.HDR
        perturb = self.load_int(self.at["perturb_byte"])
        if self.load(p + self.SZ) & IS_MMAPPED:
            if perturb:
                self.space.fill(mem, 0, size)
            return
        length = self.chunksize(p)
        if not perturb and p == old_top and length > old_size:
            length = old_size
        length -= self.SZ
        if self.has("calloc_asserts") and length // self.SZ < 3:
            self.fail("calloc_clears")
        self.space.fill(mem, 0, length & self.MOST)

    # --- realloc ------------------------------------------------------------------------------

    def usable(self, mem: int) -> int:
        """Musable: malloc_usable_size of a block that is not NULL."""
        p = mem - self.HDR
        size = self.chunksize(p)
        if self.load(p + self.SZ) & IS_MMAPPED:
            return size - (self.SZ if self.has("mmap_header_apart") else self.HDR) & self.MOST
        return size - self.SZ & self.MOST if self.inuse_at(p + size) else 0

    def _keeps(self, mem: int, request: int) -> bool:
        """Whether realloc returns the block as it is, before it looks closer."""
        if self.has("realloc_keeps_trim"):
            spare = self.usable(mem) - request
            return 0 <= spare <= self.load(self.mp["trim_threshold"])
        if not self.has("realloc_keeps_usable"):
            return False
        spare = self.usable(mem) - request
        if 0 <= spare < 2 * self.SZ:
            return True
        if not self.has("realloc_keeps_page") or not 0 <= spare <= self.kernel.page_size:
            return False
        return bool(self.load(mem - self.SZ) & IS_MMAPPED)

    def realloc_block(self, mem: int, request: int) -> int:
        """__libc_realloc of a block to a size, neither of them 0."""
        if self._keeps(mem, request):
            return mem
        p = mem - self.HDR & self.MOST
        size, av = self.chunksize(p), 0
        mmapped = self.load(p + self.SZ) & IS_MMAPPED
        late = self.has("realloc_arena_late")
        if not mmapped and not late:
            self.prepare_tcache()
            av = self.arena_for_chunk(p)
        if p > -size & self.MOST or self.misaligned(p):
            self.abort("realloc(): invalid pointer")
        nb = self.checked_request2size(request)
        if not nb:
            return 0
        if mmapped:
            return self._realloc_mmapped(mem, p, size, request, nb)
        av = self.arena_for_chunk(p) if late else av
        return self._realloc_inside(av, mem, p, size, request, nb)

    def _realloc_inside(self, av: int, mem: int, p: int, size: int, request: int, nb: int) -> int:
        single = self.single()
        new = self._int_realloc(av, p, size, nb)
        self._check_arena(av, new, "realloc", single)
        if new or single:
            return new
        new = self.malloc_entry(request)
        if new:
            self.space.copy(new, mem, size - self.SZ)
            if self.has("free_internal_bypasses"):
                self._int_free_chunk(av, p, self.chunksize(p), False)
            else:
                self.int_free(av, p, False)
        return new

    def _realloc_mmapped(self, mem: int, p: int, size: int, request: int, nb: int) -> int:
        new = self.mremap_chunk(p, nb)
        if new:
            return new + self.HDR
        if self.has("mmap_header_apart"):
            keep = request <= self.usable(mem)
        else:
            keep = size - self.SZ >= nb
        if keep:
            return mem
        new = self.malloc_entry(request)
        if new:
            self.space.copy(new, mem, size - self.HDR)
            self.munmap_chunk(p)
        return new

    def _int_realloc(self, av: int, p: int, size: int, nb: int) -> int:
        """Resize in place if possible, else move; 0 if there is no memory."""
        load, sz = self.load, self.SZ
        system = load(av + self.o_system)
        if load(p + sz) <= self.HDR or size >= system:
            self.abort("realloc(): invalid old size")
        following = p + size
        raw = load(following + sz)
        if raw <= self.HDR or raw & ~7 >= system:
            self.abort("realloc(): invalid next size")
        if size >= nb:
            return self._fit(av, p, size, nb)
        total = size + (raw & ~7)
        if following == load(av + self.o_top):
            if total >= nb + self.MIN:
                self.set_head_size(p, nb | self.arena_flag(av))
                self.store(av + self.o_top, p + nb)
                self.store(p + nb + sz, total - nb | PREV_INUSE)
                return p + self.HDR
        elif not load(following + (raw & ~7) + sz) & PREV_INUSE and total >= nb:
            self.unlink_chunk(av, following)
            return self._fit(av, p, total, nb)
        return self._move(av, p, size, following, nb)

    def _move(self, av: int, p: int, size: int, following: int, nb: int) -> int:
        new = self._int_malloc(av, nb - self.MASK)
        if not new:
            return 0
        if new - self.HDR == following:
            return self._fit(av, p, size + self.chunksize(following), nb)
        if self.has("realloc_asserts_copies") and (size - self.SZ) // self.SZ < 3:
            self.fail("realloc_copies")
        self.space.copy(new, p + self.HDR, size - self.SZ)
        self.free_inside(av, p)
        return new

    def _fit(self, av: int, p: int, size: int, nb: int) -> int:
        """Give back what a chunk has too much; its mem."""
        if size < nb:
            self.fail("realloc_size")
        rest, flag = size - nb, self.arena_flag(av)
        if rest < self.MIN:
            self.set_head_size(p, size | flag)
            self.set_inuse_at(p + size)
            return p + self.HDR
        remainder = p + nb
        self.set_head_size(p, nb | flag)
        self.store(remainder + self.SZ, rest | PREV_INUSE | flag)
        self.set_inuse_at(remainder + rest)
        self.free_inside(av, remainder)
        return p + self.HDR

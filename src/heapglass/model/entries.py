"""How malloc, free and calloc are entered: without a tcache, with counts, with slots.

One of the three is chosen once, from the layout's features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .core import IS_MMAPPED
from .engine import Engine
from .tcache import CountingTcache, NoTcache, SlotTcache


class PlainEntry:
    """2.23 to 2.25, and what the others build on."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tcache: NoTcache = NoTcache(engine)

    def prepare(self) -> None:
        """Make the thread's tcache if it has none."""

    def init_inside(self, av: int) -> None:
        """Make the thread's tcache in the middle of malloc."""

    def malloc(self, request: int) -> int:
        """Return a block, 0 if there is none."""
        return self.engine.malloc_past(request)

    def free(self, mem: int) -> None:
        """Free a block that is not NULL."""
        engine = self.engine
        p = mem - engine.HDR & engine.MOST
        if engine.load(p + engine.SZ) & IS_MMAPPED:
            engine.free_mmapped(p)
            return
        self.prepare()
        engine.int_free(engine.arena_for_chunk(p), p, False)

    def calloc(self, size: int) -> int:
        """Return a cleared block of *size* bytes."""
        self.prepare()
        return self.engine.calloc_past(size)

    def aligned(self, request: int, alignment: int) -> int | None:  # noqa: ARG002
        """Return a cached block that happens to be aligned, 0; None: the request is refused."""
        return 0

    def put_inside(self, p: int, size: int) -> bool:  # noqa: ARG002
        """The tcache part of `_int_free`; False: go on."""
        return False

    def shutdown(self) -> Iterator[int]:
        """Empty the thread's tcache: the thread ends. Yields each block before it is freed."""
        return iter(())


class CountingEntry(PlainEntry):
    """2.26 to 2.41."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.tcache: CountingTcache = CountingTcache(engine)
        self._unchecked = engine.has("request_wraps")
        self._calloc_takes = engine.has("calloc_from_tcache")
        self.put_inside = self.tcache.free  # type: ignore[method-assign]

    def prepare(self) -> None:
        """MAYBE_INIT_TCACHE."""
        if not self.tcache.pointer():
            self._init()

    def _init(self) -> None:
        engine, size = self.engine, self.tcache.size
        if engine.load(engine.tls + engine.places.tls.shutting_down):
            return
        av = engine.arena_get(size)
        victim = engine._int_malloc(av, size)
        if not victim and av:
            av = engine.arena_get_retry(av, size)
            victim = engine._int_malloc(av, size)
        if victim:
            self.tcache.set_pointer(victim)
            engine.space.fill(victim, 0, size)

    def _cached(self, nb: int) -> int:
        """Take a block of this chunk size from the tcache, 0 if there is none."""
        tcache = self.tcache
        index = tcache.index(nb)
        pointer = tcache.pointer()
        if not pointer:
            self._init()
            pointer = tcache.pointer()
        if not pointer or index >= self.engine.load(tcache.mp_bins):
            return 0
        return tcache.get(index) if tcache.available(pointer, index) else 0

    def malloc(self, request: int) -> int:
        """Return a block, 0 if there is none."""
        engine = self.engine
        if self._unchecked:
            nb = engine.request2size(request)
        else:
            nb = engine.checked_request2size(request)
            if not nb:
                return 0
        return self._cached(nb) or engine.malloc_past(request)

    def calloc(self, size: int) -> int:
        """Return a cleared block; from the tcache only since 2.41."""
        engine = self.engine
        if not self._calloc_takes:
            self.prepare()
            return engine.calloc_past(size)
        nb = engine.checked_request2size(size)
        if not nb:
            return 0
        mem = self._cached(nb)
        if not mem:
            return engine.calloc_past(size)
        engine.space.fill(mem, 0, engine.chunksize(mem - engine.HDR) - engine.SZ)
        return mem

    def aligned(self, request: int, alignment: int) -> int | None:
        """Since 2.38: memalign looks into the tcache."""
        if not self.engine.has("memalign_from_tcache"):
            return 0
        nb = self.engine.checked_request2size(request)
        return self.tcache.take_aligned(nb, alignment) if nb else None

    def shutdown(self) -> Iterator[int]:
        """tcache_thread_shutdown: everything is freed, then the struct."""
        engine, tcache = self.engine, self.tcache
        old = tcache.pointer()
        flag = engine.tls + engine.places.tls.shutting_down
        late = engine.has("tcache_recreated_on_exit")
        if not late:
            engine.store(flag, 1)
        if not old:
            return
        tcache.set_pointer(0)
        yield from drain(engine, tcache, old, self.free)
        yield old
        self.free(old)
        engine.store(flag, 1)


class SlotEntry(PlainEntry):
    """2.42 on."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.tcache: SlotTcache = SlotTcache(engine)
        self._lazy = bool(self.tcache.dummy)

    def init_inside(self, av: int) -> None:
        """tcache_init; *av* 0: with a request of its own."""
        engine, tcache = self.engine, self.tcache
        size = tcache.size
        if self._lazy:
            tcache.set_disabled()
            if not engine.load(tcache.mp_count):
                return
        elif engine.load(engine.tls + engine.places.tls.shutting_down):
            return
        elif engine.layout.tcache_small_max - engine.SZ >= engine.kernel.page_size // 2:
            engine.abort("max tcache size too large")
        if av:
            twice = engine.has("tcache_struct_rounded_twice")
            mem = engine._int_malloc(av, engine.request2size(size) if twice else size)
        else:
            mem = engine.malloc_past(size)
        if mem:
            self._make(mem, size)

    def _make(self, mem: int, size: int) -> None:
        engine, tcache = self.engine, self.tcache
        tcache.set_pointer(mem)
        engine.space.fill(mem, 0, size)
        count = engine.load(tcache.mp_count)
        for index in range(tcache.bins):
            tcache.store_count(mem + index * 2, count)

    def _chunk_size(self, request: int) -> int:
        """Return the chunk size; for a request that is refused 0, or (2.43 on) the maximum."""
        nb = self.engine.checked_request2size(request)
        return nb or (self.engine.MOST if self.engine.has("request_saturates") else 0)

    def _cached(self, nb: int) -> int:
        """Take a block from the tcache; 0: there is none (2.42: it was made just now)."""
        tcache = self.tcache
        if nb >= self.engine.load(tcache.mp_max):
            return 0
        if not self._lazy and not tcache.pointer():
            self.init_inside(0)
            return 0
        return tcache.take(nb)

    def malloc(self, request: int) -> int:
        """Return a block, 0 if there is none."""
        nb = self._chunk_size(request)
        if not nb:
            return 0
        return self._cached(nb) or self.engine.malloc_past(request)

    def calloc(self, size: int) -> int:
        """Return a cleared block."""
        engine = self.engine
        nb = self._chunk_size(size)
        if not nb:
            return 0
        mem = self._cached(nb)
        if not mem:
            return engine.calloc_past(size)
        small = nb <= engine.layout.tcache_small_max
        length = nb - engine.SZ if small else engine.chunksize(mem - engine.HDR) - engine.SZ
        engine.space.fill(mem, 0, length)
        return mem

    def free(self, mem: int) -> None:
        """Free a block that is not NULL."""
        engine, tcache = self.engine, self.tcache
        p = mem - engine.HDR & engine.MOST
        size = engine.chunksize(p)
        if mem & engine.MASK:
            engine.abort("free(): invalid pointer")
        if size < engine.load(tcache.mp_max) and tcache.pointer():
            if engine.load(mem + engine.SZ) == engine.load(tcache.key_at):
                tcache.scan_all(mem)
                self.free(mem)
                return
            if tcache.free(p, size):
                return
            if self._lazy and tcache.inactive():
                self.init_inside(0)
                self.free(mem)
                return
        if p + (size - engine.MIN & engine.MOST) > engine.MOST:
            engine.abort("free(): invalid size")
        engine._int_free_chunk(engine.arena_for_chunk(p), p, size, False)

    def aligned(self, request: int, alignment: int) -> int | None:
        """tcache_get_align."""
        nb = self._chunk_size(request)
        if not nb:
            return None
        if nb >= self.engine.load(self.tcache.mp_max):
            return 0
        if not self._lazy and not self.tcache.pointer():
            self.init_inside(0)
            return 0
        return self.tcache.take_aligned(nb, alignment)

    def shutdown(self) -> Iterator[int]:
        """tcache_thread_shutdown."""
        engine, tcache = self.engine, self.tcache
        old = tcache.pointer()
        if not engine.has("tcache_exit_bypasses"):
            engine.store(engine.tls + engine.places.tls.shutting_down, 1)
            tcache.set_pointer(0)
            if old:
                yield from drain(engine, tcache, old, self.free)
                yield old
                self.free(old)
            return
        tcache.set_disabled()
        if old not in (tcache.dummy, tcache.dummy + engine.SZ):
            yield from drain(engine, tcache, old, self._free_past)
            yield old
            self._free_chunk(old)

    def _free_past(self, mem: int) -> None:
        self.engine.store(mem + self.engine.SZ, 0)
        self._free_chunk(mem)

    def _free_chunk(self, mem: int) -> None:
        engine = self.engine
        p = mem - engine.HDR
        engine._int_free_chunk(engine.arena_for_chunk(p), p, engine.chunksize(p), False)


def drain(
    engine: Engine, tcache: CountingTcache | SlotTcache, old: int, free: Callable[[int], None]
) -> Iterator[int]:
    """Free every entry of a tcache struct that no thread has any more, each when it is asked."""
    for index in range(tcache.bins):
        at = old + tcache.o_entries + index * engine.SZ
        while True:
            e = engine.load(at)
            if not e:
                break
            if tcache.safe and e & engine.MASK:
                engine.abort("tcache_thread_shutdown(): unaligned tcache chunk detected")
            engine.store(at, tcache.link(e, engine.load(e)))
            yield e
            free(e)

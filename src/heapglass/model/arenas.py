"""Which arena a thread uses: its own, a free one, a new one, a shared one."""

from __future__ import annotations

from .core import PREV_INUSE
from .heaps import Heaps


class Arenas(Heaps):
    """arena_get and what it needs; locks are always free here."""

    ncpu = 1

    def thread_arena_at(self) -> int:
        """The address of the thread's thread_arena."""
        return self.tls + self.places.tls.thread_arena

    def arena_get(self, size: int) -> int:
        """The thread's arena, found or made for a first request of *size*."""
        av = self.load(self.thread_arena_at())
        return av if av and not self.complaints.corrupt(av) else self._arena_get2(size)

    def _arena_get2(self, size: int) -> int:
        av = self._from_free_list()
        if av:
            return av
        limit = self._arena_limit()
        number = self.load(self.at["narenas"])
        if number > limit - 1 & self.MOST:
            return self._reused_arena()
        self.store(self.at["narenas"], number + 1)
        av = self._new_arena(size)
        if not av:
            self.store(self.at["narenas"], number)
        return av

    def _arena_limit(self) -> int:
        """narenas_limit, computed once there are enough arenas; 0: not yet."""
        limit = self.load(self.at["narenas_limit"])
        if limit:
            return limit
        test, number = self.load(self.mp["arena_test"]), self.load(self.at["narenas"])
        limit = self.load(self.mp["arena_max"])
        if not limit and self.has("arena_limit_at_test"):
            limit = max(self.ncpu, test) if number >= test else 0
        elif not limit and number > test:
            limit = self.ncpu * (2 if self.SZ == 4 else 8)
        self.store(self.at["narenas_limit"], limit)
        return limit

    def _from_free_list(self) -> int:
        """An arena that no thread is attached to."""
        av = self.load(self.at["free_list"])
        if not av:
            return 0
        self.store(self.at["free_list"], self.load(av + self.o_next_free))
        at = av + self.o_attached
        if self.has("arena_leaves_free_list") and self.load(at):
            self.fail("free_list")
        self.store(at, self.load(at) + 1)
        self._attach(av)
        return av

    def _attach(self, av: int) -> None:
        """Leave the old arena, use this one."""
        at = self.thread_arena_at()
        old = self.load(at)
        if old:
            attached = self.load(old + self.o_attached)
            if not attached:
                self.fail("detach")
            self.store(old + self.o_attached, attached - 1)
        self.store(at, av)

    def _new_arena(self, size: int) -> int:
        """_int_new_arena: a heap with its arena at the beginning."""
        info, state = self.heap_info_size, self.layout.state.size
        pad = self.load(self.mp["top_pad"])
        heap = self.new_heap(size + info + state + self.ALIGN & self.MOST, pad)
        heap = heap or self.new_heap(info + state + self.ALIGN, pad)
        if not heap:
            return 0
        av, end = heap + info, heap + self.load(self._info(heap, "size"))
        self.store(heap, av)
        self.init_state(av)
        self.store(av + self.o_attached, 1)
        self.store(av + self.o_system, end - heap)
        self.store(av + self.o_max_system, end - heap)
        top = av + state
        misalign = top + self.HDR & self.MASK
        top += self.ALIGN - misalign if misalign else 0
        self.store(av + self.o_top, top)
        self.store(top + self.SZ, end - top | PREV_INUSE)
        self._attach(av)
        self.store(av + self.o_next, self.load(self.main + self.o_next))
        self.store(self.main + self.o_next, av)
        return av

    def _reused_arena(self) -> int:
        """The next arena in turn that is not corrupt: its lock is free; 0 if all are corrupt."""
        at = self.at["next_to_use"]
        first = av = self.load(at) or self.main
        while self.complaints.corrupt(av):
            av = self.load(av + self.o_next)
            if av == first:
                return 0
        if self.has("arena_leaves_free_list"):
            self._leave_free_list(av)
        self.store(av + self.o_attached, self.load(av + self.o_attached) + 1)
        self._attach(av)
        self.store(at, self.load(av + self.o_next))
        return av

    def _leave_free_list(self, av: int) -> None:
        at = self.at["free_list"]
        while self.load(at):
            one = self.load(at)
            if self.load(one + self.o_attached):
                self.fail("in_free_list")
            if one == av:
                self.store(at, self.load(one + self.o_next_free))
                return
            at = one + self.o_next_free

    def arena_get_retry(self, av: int, size: int) -> int:
        """Another arena after one had no memory."""
        if av == self.main:
            return self._arena_get2(size)
        return 0 if self.complaints.corrupt(self.main) else self.main

    def leave_arena(self) -> None:
        """What becomes of a thread's arena when the thread ends."""
        av = self.load(self.thread_arena_at())
        self.store(self.thread_arena_at(), 0)
        if not av:
            return
        attached = self.load(av + self.o_attached)
        if not attached:
            self.fail("thread_exit")
        self.store(av + self.o_attached, attached - 1)
        if attached == 1:
            self.store(av + self.o_next_free, self.load(self.at["free_list"]))
            self.store(self.at["free_list"], av)

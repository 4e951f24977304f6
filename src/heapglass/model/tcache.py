"""The per-thread cache: none, counted up (2.26 to 2.41), counted down with large bins (2.42 on).

Each variant has the same few operations for `_int_malloc` (stash_index, room, put, get) and those
of its own front end.
"""

from __future__ import annotations

from ..glibc.layout import Layout
from ..glibc.structs import Struct
from .core import Core, Endless

SMALL_BINS = 64


class NoTcache:
    """2.23 to 2.25: there is none."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def stash_index(self, nb: int) -> int:  # noqa: ARG002 - for those that have bins
        """The bin that chunks of this size may be stashed in, -1: none."""
        return -1

    def room(self, index: int) -> bool:
        """Whether a bin takes another chunk."""
        raise NotImplementedError

    def put(self, p: int, index: int) -> None:
        """Put a chunk in front of its bin."""

    def inactive(self) -> bool:
        """Whether the thread has made none yet, and malloc's inside should (2.43 on)."""
        return False

    def get(self, index: int) -> int:
        """Take the first chunk of a bin; its mem."""
        raise NotImplementedError


class Tcache(NoTcache):
    """What both kinds share: entries, keys, links."""

    counters = ""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        layout: Layout = core.layout
        struct: Struct = layout.tcache
        self.size = struct.size
        self.o_entries = struct.offset("entries")
        self.bins = struct.fields["entries"].length
        field = struct.fields[self.counters]
        self.width = field.size
        self.load_count, self.store_count = core.space.accessors(field.size)
        self.safe = layout.has("safe_linking")
        self.keyed = layout.has("tcache_key_struct") or layout.has("tcache_key_random")
        self.random_key = layout.has("tcache_key_random")
        self.bounded = layout.has("tcache_scan_bounded")
        self.o_tcache = core.places.tls.tcache
        self.mp_bins, self.mp_count = core.mp["tcache_bins"], core.mp["tcache_count"]
        self.mp_max = core.mp["tcache_max_bytes"]
        self.key_at = core.at["tcache_key"]

    def pointer(self) -> int:
        """The thread's tcache pointer."""
        return self.core.load(self.core.tls + self.o_tcache)

    def set_pointer(self, tcache: int) -> None:
        """Set the thread's tcache pointer."""
        self.core.store(self.core.tls + self.o_tcache, tcache)

    def key(self, tcache: int) -> int:
        """What stands in the second word of a cached block."""
        return self.core.load(self.key_at) if self.random_key else tcache

    def link(self, at: int, pointer: int) -> int:
        """PROTECT_PTR and REVEAL_PTR, where there is safe-linking."""
        return at >> 12 ^ pointer if self.safe else pointer

    def scan(self, tcache: int, index: int, e: int) -> None:
        """Look for *e* in a bin: freed twice?"""
        load, link, steps = self.core.load, self.link, 0
        tmp = load(tcache + self.o_entries + index * self.core.SZ)
        while tmp:
            if self.bounded and steps >= load(self.mp_count):
                self.core.abort("free(): too many chunks detected in tcache")
            if self.safe and tmp & self.core.MASK:
                self.core.abort("free(): unaligned chunk detected in tcache 2")
            if tmp == e:
                self.core.abort("free(): double free detected in tcache 2")
            tmp = link(tmp, load(tmp))
            steps += 1
            if steps > self.core.loops:
                raise Endless(tmp)

    def put_at(self, e: int, at: int, mangled: bool, tcache: int) -> None:
        """Put a block in front of what the word at *at* leads to."""
        store, core = self.core.store, self.core
        if self.keyed:
            store(e + core.SZ, self.key(tcache))
        head = core.load(at)
        store(e, self.link(e, self.link(at, head) if mangled else head))
        store(at, self.link(at, e) if mangled else e)

    def take_at(self, at: int, mangled: bool) -> int:
        """Take the block that the word at *at* leads to."""
        load, store, core = self.core.load, self.core.store, self.core
        e = self.link(at, load(at)) if mangled else load(at)
        if self.safe and e & core.MASK:
            core.abort("malloc(): unaligned tcache chunk detected")
        following = self.link(e, load(e))
        store(at, self.link(at, following) if mangled else following)
        return e


class CountingTcache(Tcache):
    """2.26 to 2.41: counts[] of what is cached, by chunk size."""

    counters = "counts"

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.by_count = core.has("tcache_pop_by_count")
        self.asserts = core.has("tcache_asserts")

    def index(self, nb: int) -> int:
        """csize2tidx."""
        core = self.core
        return ((nb - core.MIN + core.MASK) & core.MOST) // core.ALIGN

    def stash_index(self, nb: int) -> int:
        """The bin for chunks of this size, -1: no tcache, or not cached."""
        if not self.pointer():
            return -1
        index = self.index(nb)
        return index if index < self.core.load(self.mp_bins) else -1

    def room(self, index: int) -> bool:
        """Whether a bin takes another chunk; counts of 2.26 to 2.29 are signed chars."""
        count = self.load_count(self.pointer() + index * self.width)
        if self.width == 1 and count > 127:
            return False
        return count < self.core.load(self.mp_count)

    def put(self, p: int, index: int) -> None:
        """tcache_put."""
        tcache, core = self.pointer(), self.core
        if self.asserts and index >= self.bins:
            core.fail("tcache_put_index")
        at = tcache + self.o_entries + index * core.SZ
        self.put_at(p + core.HDR, at, False, tcache)
        count_at = tcache + index * self.width
        self.store_count(count_at, self.load_count(count_at) + 1)

    def available(self, tcache: int, index: int) -> bool:
        """Whether malloc takes from a bin: by its count since 2.30, by its head before."""
        if self.by_count:
            return self.load_count(tcache + index * self.width) > 0
        return self.core.load(tcache + self.o_entries + index * self.core.SZ) != 0

    def get(self, index: int) -> int:
        """tcache_get."""
        tcache, core = self.pointer(), self.core
        at = tcache + self.o_entries + index * core.SZ
        if self.asserts and not core.load(at):
            core.fail("tcache_get_entry")
        return self.get_at(tcache, index, at, False)

    def get_at(self, tcache: int, index: int, at: int, mangled: bool) -> int:
        """tcache_get_n."""
        e = self.take_at(at, mangled)
        count_at = tcache + index * self.width
        self.store_count(count_at, self.load_count(count_at) - 1)
        if self.keyed:
            self.core.store(e + self.core.SZ, 0)
        return e

    def free(self, p: int, size: int) -> bool:
        """Put a freed chunk in, if it belongs there and there is room."""
        tcache, core = self.pointer(), self.core
        index = self.index(size)
        if not tcache or index >= core.load(self.mp_bins):
            return False
        e = p + core.HDR
        if self.keyed and core.load(e + core.SZ) == self.key(tcache):
            self.scan(tcache, index, e)
        if not self.room(index):
            return False
        self.put(p, index)
        return True

    def take_aligned(self, nb: int, alignment: int) -> int:
        """Take a block of this chunk size that is aligned by chance (memalign, 2.38 on)."""
        tcache, core, index = self.pointer(), self.core, self.index(nb)
        if index >= core.load(self.mp_bins) or not tcache or not self.available(tcache, index):
            return 0
        at, mangled, steps = tcache + self.o_entries + index * core.SZ, False, 0
        e = core.load(at)
        while e and e & alignment - 1:
            at, mangled, e = e, True, self.link(e, core.load(e))
            steps += 1
            if steps > self.core.loops:
                raise Endless(e)
        return self.get_at(tcache, index, at, mangled) if e else 0


class SlotTcache(Tcache):
    """2.42 on: num_slots[] of what still fits, twelve bins for large chunks."""

    counters = "num_slots"

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        layout = core.layout
        largest = layout.tcache_small_max
        if layout.has("tcache_maxsmall_usable"):
            largest -= layout.word
        self._bits = largest.bit_length()
        self.dummy = core.places.dummy if layout.has("tcache_dummy") else 0
        self.exact = layout.has("tcache_large_exact")

    def inactive(self) -> bool:
        """Whether the thread has made none yet, and malloc's inside should (2.43 on)."""
        return bool(self.dummy) and self.pointer() == self.dummy

    def set_disabled(self) -> None:
        """Point to the dummy that never has anything."""
        self.set_pointer(self.dummy + self.core.SZ)

    def index(self, nb: int) -> int:
        """The bin for a chunk size, small or large."""
        core = self.core
        small = ((nb - core.MIN) & core.MOST) // core.ALIGN
        return small if small < SMALL_BINS else self.large_index(nb)

    def large_index(self, nb: int) -> int:
        """large_csize2tidx, on the low 32 bits."""
        return SMALL_BINS + (nb & 0xFFFFFFFF).bit_length() - self._bits

    def stash_index(self, nb: int) -> int:
        """The small bin for chunks of this size, -1: no tcache, or not cached."""
        if not self.dummy and not self.pointer():
            return -1
        core = self.core
        index = ((nb - core.MIN) & core.MOST) // core.ALIGN
        return index if index < core.load(self.mp_bins) else -1

    def room(self, index: int) -> bool:
        """Whether a bin takes another chunk."""
        return self.load_count(self.pointer() + index * 2) != 0

    def put(self, p: int, index: int) -> None:
        """tcache_put."""
        tcache, core = self.pointer(), self.core
        at = tcache + self.o_entries + index * core.SZ
        self.put_slot(p + core.HDR, tcache, index, at, False)

    def put_slot(self, e: int, tcache: int, index: int, at: int, mangled: bool) -> None:
        """tcache_put_n."""
        self.put_at(e, at, mangled, tcache)
        self.store_count(tcache + index * 2, self.load_count(tcache + index * 2) - 1)

    def get(self, index: int) -> int:
        """tcache_get."""
        tcache = self.pointer()
        return self.get_at(tcache, index, tcache + self.o_entries + index * self.core.SZ, False)

    def get_at(self, tcache: int, index: int, at: int, mangled: bool) -> int:
        """tcache_get_n."""
        e = self.take_at(at, mangled)
        self.store_count(tcache + index * 2, self.load_count(tcache + index * 2) + 1)
        self.core.store(e + self.core.SZ, 0)
        return e

    def find_large(self, tcache: int, index: int, nb: int) -> tuple[int, bool, int]:
        """tcache_location_large: (word that leads to it, mangled?, entry), ascending by size."""
        load, core = self.core.load, self.core
        at, mangled, steps = tcache + self.o_entries + index * core.SZ, False, 0
        e = load(at)
        while e and core.chunksize(e - core.HDR) < nb:
            at, mangled, e = e, True, self.link(e, load(e))
            steps += 1
            if steps > self.core.loops:
                raise Endless(e)
        return at, mangled, e

    def take(self, nb: int) -> int:
        """Take a block for malloc, 0 if there is none; nb is below tcache_max_bytes."""
        tcache, core = self.pointer(), self.core
        index = ((nb - core.MIN) & core.MOST) // core.ALIGN
        if index < SMALL_BINS:
            at = tcache + self.o_entries + index * core.SZ
            return self.get_at(tcache, index, at, False) if core.load(at) else 0
        index = self.large_index(nb)
        at, mangled, e = self.find_large(tcache, index, nb)
        if not e or (self.exact and core.chunksize(e - core.HDR) != nb):
            return 0
        return self.get_at(tcache, index, at, mangled)

    def take_aligned(self, nb: int, alignment: int) -> int:
        """Take a block of exactly this chunk size that is aligned by chance."""
        tcache, core, index = self.pointer(), self.core, self.index(nb)
        at, mangled, steps = tcache + self.o_entries + index * core.SZ, False, 0
        e, size = core.load(at), 0
        while e:
            size = core.chunksize(e - core.HDR)
            if size > nb or (size == nb and not e & alignment - 1):
                break
            at, mangled, e = e, True, self.link(e, core.load(e))
            steps += 1
            if steps > self.core.loops:
                raise Endless(e)
        if e and size == nb and not e & alignment - 1:
            return self.get_at(tcache, index, at, mangled)
        return 0

    def free(self, p: int, size: int) -> bool:
        """Put a freed chunk in, if there is room; size is below tcache_max_bytes."""
        tcache, core = self.pointer(), self.core
        index = ((size - core.MIN) & core.MOST) // core.ALIGN
        e = p + core.HDR
        if index < SMALL_BINS:
            if not self.load_count(tcache + index * 2):
                return False
            self.put_slot(e, tcache, index, tcache + self.o_entries + index * core.SZ, False)
            return True
        index = self.large_index(size)
        if size < core.MIN or (core.has("tcache_not_mmapped") and core.load(p + core.SZ) & 2):
            return False
        if not self.load_count(tcache + index * 2):
            return False
        at, mangled, _ = self.find_large(tcache, index, core.chunksize(p))
        self.put_slot(e, tcache, index, at, mangled)
        return True

    def scan_all(self, e: int) -> None:
        """Look for *e* in every bin: freed twice? Else take the key off."""
        tcache = self.pointer()
        for index in range(self.bins):
            self.scan(tcache, index, e)
        self.core.store(e + self.core.SZ, 0)

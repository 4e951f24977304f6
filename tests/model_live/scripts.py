"""Misuse, one script for each message: what a program does so that malloc says it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .play import Session
from .real import ARCHES, RELEASES

OFF = {"tcache_count": 0}
LARGE = 0x500  # a request that no tcache takes


class Script(NamedTuple):
    """A misuse; *text* is what malloc says where it checks (a key of an assertion: `!key`)."""

    text: str
    run: Callable[[Hand], None]
    tunables: dict[str, int]
    elsewhere: tuple[str, ...] = ()  # "2.41-i386", where another check comes first or it is lacking


class Hand:
    """What scripts need: blocks, and words written where a program should not."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.word = session.model.layout.word

    def m(self, size: int, thread: int = 1) -> int:
        """Malloc."""
        return self.session.call("m", size, thread=thread)

    def f(self, block: int, thread: int = 1) -> None:
        """Free."""
        self.session.call("f", block, thread=thread)

    def put(self, address: int, value: int) -> None:
        """Write a word."""
        mask = (1 << 8 * self.word) - 1
        self.session.write(address, (value & mask).to_bytes(self.word, "little"))

    def get(self, address: int) -> int:
        """Read a word of the model's memory."""
        return int.from_bytes(self.session.model.read(address, self.word), "little")

    def size(self, block: int, value: int) -> None:
        """Overwrite the size word of a block's chunk."""
        self.put(block - self.word, value)

    def link(self, block: int, value: int) -> None:
        """Overwrite a protected link (plain before 2.32)."""
        safe = self.session.model.layout.has("safe_linking")
        self.put(block, block >> 12 ^ value if safe else value)

    def pair(self, size: int = 24) -> tuple[int, int]:
        """Two freed blocks of a size, with a live one behind: second, then first in the list."""
        a, b, _ = self.m(size), self.m(size), self.m(size)
        self.f(a)
        self.f(b)
        return a, b

    def free_large(self, size: int = LARGE) -> tuple[int, int]:
        """A freed large block in the unsorted list, and the live one behind it."""
        a, b = self.m(size), self.m(LARGE)
        self.f(a)
        return a, b

    def sorted_large(self, size: int = LARGE) -> tuple[int, int]:
        """The same, in its bin."""
        a, b = self.free_large(size)
        self.m(size + 0x400)
        return a, b

    @property
    def unsorted(self) -> int:
        """The pseudo chunk of the unsorted list."""
        machine = self.session.model.machine
        return machine.main + machine.o_top

    @property
    def top(self) -> int:
        """The mem of top."""
        return self.get(self.unsorted) + 2 * self.word


def _misaligned(h: Hand) -> None:
    a = h.m(100)
    h.f(a + 4)


def _tiny(h: Hand) -> None:
    a = h.m(100)
    h.size(a, h.word * 2 | 1)
    h.f(a)


def _twice(h: Hand) -> None:
    a = h.m(24)
    h.f(a)
    h.f(a)


def _tcache_unaligned(h: Hand) -> None:
    a, b = h.pair()
    h.link(b, a + 4)
    h.f(a)


def _tcache_cycle(h: Hand) -> None:
    c = h.m(24)
    a, b = h.pair()
    h.link(a, b)
    h.put(c + h.word, h.get(h.session.model.machine.at["tcache_key"]))
    h.f(c)


def _next_size(value: int, size: int) -> Callable[[Hand], None]:
    def run(h: Hand) -> None:
        a, b = h.m(size), h.m(size)
        h.m(24)
        h.size(b, value)
        h.f(a)

    return run


def _fast_entry(h: Hand) -> None:
    a, b = h.m(24), h.m(0x60)
    h.m(24)
    h.f(a)
    h.size(a, 0x41)
    h.session.call("r", b, 0x50 - h.word)


def _top(h: Hand) -> None:
    a = h.m(0x2000)
    h.f(a)
    h.f(a)


def _beyond(h: Hand) -> None:
    a = h.m(LARGE)
    h.size(a, 0x100001)
    h.f(a)


def _prev(h: Hand) -> None:
    a, _ = h.free_large()
    h.f(a)


def _merge(h: Hand) -> None:
    _, b = h.free_large()
    h.m(24)
    h.put(b - 2 * h.word, 0x300)
    h.f(b)


def _unsorted_bk(h: Hand) -> None:
    a, b, c, _ = h.m(LARGE), h.m(LARGE), h.m(LARGE), h.m(24)
    h.f(a)
    h.put(a + h.word, b)
    h.f(c)


def _small_bk(h: Hand) -> None:
    a, b, c, _ = h.m(0x100), h.m(24), h.m(0x100), h.m(24)
    h.f(a)
    h.put(a + h.word, b)
    h.f(c)


def _unlink_size(h: Hand) -> None:
    a, _ = h.sorted_large()
    h.size(a, h.get(a - h.word) + 0x20)
    h.m(LARGE)


def _unlink_links(h: Hand) -> None:
    a, _ = h.sorted_large()
    h.put(a, a - 2 * h.word)
    h.m(LARGE)


def _unlink_nextsize(h: Hand) -> None:
    a, b = h.sorted_large()
    h.put(a + 2 * h.word, b)
    h.m(LARGE)


def _consolidate_size(h: Hand) -> None:
    a = h.m(24)
    h.m(24)
    h.f(a)
    h.size(a, 0x91)
    h.m(0x900)


def _consolidate_unaligned(h: Hand) -> None:
    a, b = h.pair()
    h.link(b, a + 4)
    h.m(0x900)


def _consolidate_merge(h: Hand) -> None:
    a, b = h.m(LARGE), h.m(24)
    h.m(24)
    h.f(a)
    h.f(b)
    h.put(b - 2 * h.word, 0x300)
    h.m(0x900)


def _fast_size(h: Hand) -> None:
    a = h.m(24)
    h.m(24)
    h.f(a)
    h.size(a, 0x91)
    h.m(24)


def _fast_unaligned(threads: bool) -> Callable[[Hand], None]:
    def run(h: Hand) -> None:
        a, b = h.pair()
        if threads:
            h.session.call("n", thread=2)
        h.link(b, a + 4)
        h.m(24)
        h.m(24)

    return run


def _stash_unaligned(h: Hand) -> None:
    blocks = [h.m(24) for _ in range(9)]
    h.m(24)
    for block in blocks:
        h.f(block)
    h.link(blocks[8], blocks[7] + 4)
    for _ in range(8):
        h.m(24)


def _tcache_pop(h: Hand) -> None:
    a, b = h.pair()
    h.link(b, a + 4)
    h.m(24)
    h.m(24)


def _small_list(h: Hand) -> None:
    a, b, _ = h.m(0x100), h.m(0x40), h.m(24)
    h.f(a)
    h.m(0x900)
    h.put(a + h.word, b)
    h.m(0x100)


def _unsorted(offset: int, value: int) -> Callable[[Hand], None]:
    """Overwrite a word of a chunk in the unsorted list (offset in words), or of the next one."""

    def run(h: Hand) -> None:
        a, b = h.free_large()
        base = a if offset < 8 else b
        h.put(base + (offset % 8 - 2) * h.word, value)
        h.m(0x900)

    return run


def _tiny_unsorted(h: Hand) -> None:
    a, _ = h.free_large()
    h.size(a, 2 * h.word | 1)
    h.m(0x900)


def _unsorted_list(h: Hand) -> None:
    a, b = h.free_large()
    h.put(a, b)
    h.m(0x900)


def _prev_inuse(h: Hand) -> None:
    _, b = h.free_large()
    h.size(b, h.get(b - h.word) | 1)
    h.m(0x900)


def _large_insert(offset: int) -> Callable[[Hand], None]:
    """A larger chunk is put before one whose link (offset in words from mem) was overwritten."""

    def run(h: Hand) -> None:
        a, _ = h.m(0x408), h.m(24)
        c, d = h.m(0x418), h.m(24)
        h.f(a)
        h.m(0x900)
        h.put(a + offset * h.word, d)
        h.f(c)
        h.m(0x900)

    return run


def _large_append(h: Hand) -> None:
    a, _, c, d = h.m(0x418), h.m(24), h.m(0x408), h.m(24)
    h.f(a)
    h.m(0x900)
    h.put(a + 3 * h.word, d)
    h.f(c)
    h.m(0x900)


def _split(request: int) -> Callable[[Hand], None]:
    def run(h: Hand) -> None:
        _, b = h.sorted_large(0x11D0)
        h.put(h.unsorted + 2 * h.word, b)
        h.m(request)

    return run


def _top_huge(h: Hand) -> None:
    h.m(24)
    h.size(h.top, -0x100 | 1)
    h.m(0x2000)


def _top_small(h: Hand) -> None:
    h.m(24)
    h.size(h.top, 0x101)
    h.m(0x2000)


def _break(h: Hand) -> None:
    h.m(24)
    h.m(0x8000)
    h.size(h.top, h.get(h.top - h.word) + 0x1000)
    h.m(0x1F000)


def _realloc_pointer(h: Hand) -> None:
    h.session.call("r", h.m(100) + 4, 300)


def _realloc_old(h: Hand) -> None:
    a = h.m(100)
    h.m(24)
    h.size(a, 2 * h.word)
    h.session.call("r", a, 300)


def _realloc_next(h: Hand) -> None:
    a, b = h.m(100), h.m(100)
    h.m(24)
    h.size(b, 1)
    h.session.call("r", a, 300)


def _munmap(h: Hand) -> None:
    a = h.m(300000)
    h.put(a - 2 * h.word, 0x120)
    h.f(a)


def _mremap(h: Hand) -> None:
    a = h.m(300000)
    h.put(a - 2 * h.word, 0x120)
    h.session.call("r", a, 600000)


def _thread_exit(h: Hand) -> None:
    h.session.call("n", thread=2)
    a, b = h.m(24, 2), h.m(24, 2)
    h.m(24, 2)
    h.f(a, 2)
    h.f(b, 2)
    h.link(b, a + 4)
    h.session.call("x", thread=2)


def _tell(op: str) -> Callable[[Hand], None]:
    def run(h: Hand) -> None:
        a, b = h.pair()
        h.link(b, a + 4)
        h.session.call(op)

    return run


def _arena_bit(before: bool) -> Callable[[Hand], None]:
    """A chunk in a large bin says that it is another arena's."""

    def run(h: Hand) -> None:
        sizes = (0x418, 0x408) if before else (0x408, 0x428)
        a, _, c, _ = h.m(sizes[0]), h.m(24), h.m(sizes[1]), h.m(24)
        h.f(a)
        h.m(0x900)
        h.size(a, h.get(a - h.word) | 4)
        h.f(c)
        h.m(0x900)

    return run


def _bin_size(h: Hand) -> None:
    a = h.m(0x300)
    h.m(24)
    h.f(a)
    h.m(0x900)
    h.size(a, 0x41)
    h.m(0x200)


def _fence(h: Hand) -> None:
    """The fencepost of a thread's first heap, when the second one is given back (i386)."""
    h.session.call("n", thread=2)
    blocks = [h.m(60000, 2) for _ in range(24)]
    heap = blocks[0] & -(1 << 20)
    info = h.session.model.machine.layout.structs["heap_info"]
    size = h.get(heap + info.offset("size"))
    at = heap + size - 8
    for address in range(at - 16, at + 8, h.word):
        if h.get(address) == 1:
            h.put(address, 0x41)
    for block in reversed(blocks):
        h.f(block, 2)


_BEFORE_2_42 = tuple(f"{glibc}-{arch}" for glibc in ("2.31", "2.36", "2.41") for arch in ARCHES)
SCRIPTS: tuple[Script, ...] = (
    Script("free(): invalid pointer", _misaligned, {}),
    Script("free(): invalid size", _tiny, {}),
    Script("free(): double free detected in tcache 2", _twice, {}),
    Script("free(): unaligned chunk detected in tcache 2", _tcache_unaligned, {}),
    Script("free(): too many chunks detected in tcache", _tcache_cycle, {}),
    Script("free(): invalid next size (fast)", _next_size(0, 24), OFF),
    Script("double free or corruption (fasttop)", _twice, OFF),
    Script("invalid fastbin entry (free)", _fast_entry, OFF),
    Script("double free or corruption (top)", _top, {}, ("2.31-i386", "2.36-i386", "2.41-i386")),
    Script("double free or corruption (out)", _beyond, {}),
    Script("double free or corruption (!prev)", _prev, {}),
    Script("free(): invalid next size (normal)", _next_size(1, LARGE), {}),
    Script("corrupted size vs. prev_size while consolidating", _merge, {}),
    Script("free(): corrupted unsorted chunks", _unsorted_bk, OFF),
    Script("free(): chunks in smallbin corrupted", _small_bk, OFF),
    Script("corrupted size vs. prev_size", _unlink_size, {}),
    Script("corrupted double-linked list", _unlink_links, {}),
    Script("corrupted double-linked list (not small)", _unlink_nextsize, {}),
    Script("malloc_consolidate(): invalid chunk size", _consolidate_size, OFF),
    Script("malloc_consolidate(): unaligned fastbin chunk detected", _consolidate_unaligned, OFF),
    Script("corrupted size vs. prev_size in fastbins", _consolidate_merge, OFF),
    Script("malloc(): memory corruption (fast)", _fast_size, OFF),
    Script("malloc(): unaligned fastbin chunk detected", _fast_unaligned(True), OFF),
    Script("malloc(): unaligned fastbin chunk detected 2", _fast_unaligned(False), OFF),
    Script("malloc(): unaligned fastbin chunk detected 3", _stash_unaligned, {}),
    Script("malloc(): unaligned tcache chunk detected", _tcache_pop, {}),
    Script("malloc(): smallbin double linked list corrupted", _small_list, OFF),
    Script("malloc(): invalid size (unsorted)", _tiny_unsorted, {}),
    Script("malloc(): invalid next size (unsorted)", _unsorted(9, 0), {}),
    Script("malloc(): mismatching next->prev_size (unsorted)", _unsorted(8, 0x300), {}),
    Script("malloc(): unsorted double linked list corrupted", _unsorted_list, {}),
    Script("malloc(): invalid next->prev_inuse (unsorted)", _prev_inuse, {}),
    Script("malloc(): largebin double linked list corrupted (nextsize)", _large_insert(3), OFF),
    Script(
        "malloc(): largebin double linked list corrupted (nextsize)",
        _large_append,
        OFF,
        _BEFORE_2_42,
    ),
    Script("malloc(): largebin double linked list corrupted (bk)", _large_insert(1), OFF),
    Script("malloc(): corrupted unsorted chunks", _split(0x1000), {}),
    Script("malloc(): corrupted unsorted chunks 2", _split(0x300), {}),
    Script("malloc(): corrupted top size", _top_huge, {}),
    Script("break adjusted to free malloc space", _break, {}),
    Script("realloc(): invalid pointer", _realloc_pointer, {}),
    Script("realloc(): invalid old size", _realloc_old, {}),
    Script("realloc(): invalid next size", _realloc_next, {}),
    Script("munmap_chunk(): invalid pointer", _munmap, {}),
    Script("mremap_chunk(): invalid pointer", _mremap, {}),
    Script("tcache_thread_shutdown(): unaligned tcache chunk detected", _thread_exit, {}),
    Script("int_mallinfo(): unaligned fastbin chunk detected", _tell("i"), OFF),
    Script("__malloc_info(): unaligned fastbin chunk detected", _tell("I"), OFF),
    Script("!old_top", _top_small, {}),
    Script("!largebin_tail", _arena_bit(True), OFF),
    Script("!largebin_tail", _arena_bit(False), OFF),
    Script("!bin_size", _bin_size, OFF),
    Script("!heap_fence", _fence, {}, tuple(f"{glibc}-amd64" for glibc in RELEASES)),
)

"""A small heap made by hand: chunks one behind the other, an arena, lists as asked for."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from heapglass.glibc.layout import Layout, layout_for
from heapglass.heap.heap import Heap
from heapglass.heap.target import HeapThread, Place, Target
from heapglass.memory import ByteMemory, Region

BASE = 0x56559000
ARENA = 0xF7E00C80
MP = ARENA - 0x900
PAGES = 0x8000


class MadeHeap:
    """Chunks of given size words from BASE on, then top. Words can be written afterwards."""

    def __init__(
        self,
        size_words: Sequence[int],
        version: tuple[int, int] = (2, 36),
        word: int = 8,
        order: str = "little",
        threads: Sequence[HeapThread] | None = None,
        extra: Sequence[Region] = (),
    ) -> None:
        self.layout: Layout = layout_for(version, word, order)
        state, mp = self.layout.state, self.layout.structs["malloc_par"]
        self.start = BASE + self.layout.mmap_offset
        pieces = {BASE: bytes(PAGES), MP: bytes(mp.size), ARENA: bytes(state.size)}
        pieces.update({region.start: bytes(region.size) for region in extra})
        self.memory = ByteMemory(
            pieces,
            [
                Region(BASE, BASE + PAGES),
                *extra,
                Region(MP & -4096, (ARENA + state.size + 4095) & -4096, "rw-", "/libc.so.6"),
            ],
        )
        self.chunks = self._lay(size_words)
        self.top = self.chunks.pop()
        self._arena()
        self.set_word(MP + mp.offset("sbrk_base"), BASE)
        if "tcache_bins" in mp.fields:
            self.set_word(MP + mp.offset("tcache_bins"), 64)
        if threads is None:
            threads = [HeapThread(7, tcache_state="none", arena=ARENA, arena_known=True)]
        self.target = Target(
            self.memory, self.layout, Place(ARENA, "symbol"), Place(MP, "symbol"), threads, pid=7
        )

    def _lay(self, size_words: Sequence[int]) -> list[int]:
        chunks, address = [], self.start
        for size_word in size_words:
            chunks.append(address)
            self.set_word(address + self.layout.word, size_word)
            address += size_word & ~7
        self.set_word(address + self.layout.word, BASE + PAGES - address | 1)
        return [*chunks, address]

    def _arena(self) -> None:
        state = self.layout.state
        for index in range(1, 128):
            for side in (0, 1):
                at = ARENA + state.offset("bins") + (2 * (index - 1) + side) * self.layout.word
                self.set_word(at, self.layout.bin_at(ARENA, index))
        self.set_word(ARENA + state.offset("top"), self.top)
        self.set_word(ARENA + state.offset("next"), ARENA)
        self.set_word(ARENA + state.offset("attached_threads"), 1)
        self.set_word(ARENA + state.offset("system_mem"), PAGES)
        self.set_word(ARENA + state.offset("max_system_mem"), PAGES)

    def set_word(self, address: int, value: int) -> None:
        """Write a word of the target's size and order."""
        code = ("<" if self.layout.order == "little" else ">") + "QI"[self.layout.word == 4]
        self.memory.write(address, struct.pack(code, value))

    def set_size(self, chunk: int, size_word: int) -> None:
        """Write a chunk's size word."""
        self.set_word(chunk + self.layout.word, size_word)

    def add_arena(self, heap: int, after: int = ARENA) -> int:
        """Write an arena with one empty heap at *heap*; it comes behind *after* in the ring.

        The memory must have a region there (`extra`).
        """
        info, state = self.layout.structs["heap_info"], self.layout.state
        arena = heap + info.size
        top = (arena + state.size + 2 * self.layout.word + 15) // 16 * 16 - 2 * self.layout.word
        self.set_word(heap + info.offset("ar_ptr"), arena)
        self.set_word(heap + info.offset("size"), 0x2000)
        self.set_word(heap + info.offset("mprotect_size"), 0x2000)
        self.set_size(top, heap + 0x2000 - top | 1)
        for index in range(1, 128):
            for side in (0, 1):
                at = arena + state.offset("bins") + (2 * (index - 1) + side) * self.layout.word
                self.set_word(at, self.layout.bin_at(arena, index))
        ring = self.word(after + state.offset("next"))
        for name, value in (("top", top), ("next", ring), ("attached_threads", 1)):
            self.set_word(arena + state.offset(name), value)
        self.set_word(arena + state.offset("system_mem"), 0x2000)
        self.set_word(arena + state.offset("max_system_mem"), 0x2000)
        self.set_word(after + state.offset("next"), arena)
        return arena

    def link(self, index: int, chunks: Sequence[int]) -> None:
        """Put chunks into a bin, in the order of fd, and clear the P bit behind each."""
        bin_ = self.layout.bin_at(ARENA, index)
        ring = [bin_, *chunks, bin_]
        for before, after in zip(ring, ring[1:]):
            self.set_word(before + 2 * self.layout.word, after)
            self.set_word(after + 3 * self.layout.word, before)
        for chunk in chunks:
            behind = chunk + (self.word(chunk + self.layout.word) & ~7)
            size = self.word(behind + self.layout.word)
            self.set_size(behind, size & ~1)
            self.set_word(behind, behind - chunk)

    def word(self, address: int) -> int:
        """Return a word of the memory."""
        order = self.layout.order
        return int.from_bytes(self.memory.read(address, self.layout.word), order)  # type: ignore[arg-type]

    def heap(self) -> Heap:
        """Return a fresh reader of what the memory now holds."""
        self.target.warnings.clear()
        return Heap(self.target)

    def states(self) -> list[str | None]:
        """Return the states of all chunks, in the order of addresses."""
        return [chunk.state for chunk in self.heap().every_chunk()]

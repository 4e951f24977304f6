"""A heap made by hand whose blocks hold each other as told; with variables and a stack."""

from __future__ import annotations

from heapglass.heap.target import HeapThread
from heapglass.memory import Region

from ..heap.made import ARENA, MadeHeap

VARIABLES = 0x400000  # a writable mapping of a file
STACK = 0xBF000000
SIZE = 0x1000


class HeldHeap(MadeHeap):
    """Chunks of 0x41, 0x51, 0x61 … bytes in turn; `hold` writes a pointer to one of them."""

    def __init__(
        self,
        count: int = 12,
        word: int = 8,
        order: str = "little",
        registers: tuple[tuple[str, int], ...] = (),
    ) -> None:
        extra = [
            Region(VARIABLES, VARIABLES + SIZE, "rw-", "/program"),
            Region(STACK, STACK + SIZE, "rw-", "[stack]"),
        ]
        thread = HeapThread(
            *(7, None, STACK + SIZE - 0x40, None, None, "none", ARENA, True, STACK + 0x800),
            registers,
        )
        sizes = [0x41 + 0x10 * (number % 4) for number in range(count)]
        super().__init__(sizes, word=word, order=order, threads=[thread], extra=extra)
        regions = sorted(self.memory.regions())
        self.memory.regions = lambda: regions  # type: ignore[method-assign]

    def mem(self, number: int) -> int:
        """Return the mem of a chunk."""
        return self.chunks[number] + self.layout.header

    def usable(self, number: int) -> int:
        """Return the usable bytes of a chunk."""
        return (self.word(self.chunks[number] + self.layout.word) & ~7) - self.layout.word

    def hold(self, at: int, number: int, offset: int = 0) -> None:
        """Write a pointer into a chunk at an address."""
        self.set_word(at, self.mem(number) + offset)

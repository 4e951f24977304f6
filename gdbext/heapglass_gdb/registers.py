"""Where a function finds its arguments, its result and where it returns to, by ABI."""

from __future__ import annotations

from dataclasses import dataclass

import gdb

from .exports import Libc, read


@dataclass(frozen=True)
class Convention:
    """The calling convention of C for words: registers by gdb's names."""

    arguments: tuple[str, ...]  # empty: on the stack
    result: str
    stack: str
    link: str = ""  # holds the return address; empty: it is on the stack


CONVENTIONS = {
    "x86_64": Convention(("rdi", "rsi", "rdx"), "rax", "rsp"),
    "i386": Convention((), "eax", "esp"),
    "aarch64": Convention(("x0", "x1", "x2"), "x0", "sp", "x30"),
    "arm": Convention(("r0", "r1", "r2"), "r0", "sp", "lr"),
    "riscv64": Convention(("a0", "a1", "a2"), "a0", "sp", "ra"),
    "ppc64le": Convention(("r3", "r4", "r5"), "r3", "r1", "lr"),
    "s390x": Convention(("r2", "r3", "r4"), "r2", "r15", "r14"),
}


class Registers:
    """Reads the registers of the thread that has just stopped, at a function's first instruction
    or behind a call of it."""

    def __init__(self, libc: Libc) -> None:
        self._libc = libc
        self._by = CONVENTIONS[libc.abi]
        self._most = (1 << 8 * libc.word) - 1

    def _register(self, name: str) -> int:
        return int(gdb.newest_frame().read_register(name)) & self._most

    def stack(self) -> int:
        """Return the stack pointer."""
        return self._register(self._by.stack)

    def result(self) -> int:
        """Return what a function gave."""
        return self._register(self._by.result)

    def entry(self) -> tuple[int, int, tuple[int, int, int]]:
        """Return the stack pointer, the return address and three arguments.

        :raises MemoryFault: if the stack cannot be read.
        """
        stack, word = self.stack(), self._libc.word
        if self._by.arguments:
            first, second, third = (self._register(name) for name in self._by.arguments)
            if self._by.link:
                return stack, self._register(self._by.link), (first, second, third)
            return stack, self._word(read(stack, word)), (first, second, third)
        data = read(stack, 4 * word)
        words = [self._word(data[at : at + word]) for at in range(0, 4 * word, word)]
        return stack, words[0], (words[1], words[2], words[3])

    def after(self, stack: int) -> int:
        """Return what the stack pointer is behind a call that began with *stack*."""
        return stack if self._by.link else stack + self._libc.word

    def _word(self, data: bytes) -> int:
        return int.from_bytes(data, self._libc.order)  # type: ignore[arg-type]


def frames(most: int) -> list[str]:
    """Return up to *most* return addresses of the selected thread: "0x401136 main+0x12"."""
    found: list[str] = []
    frame = gdb.newest_frame()
    try:
        frame = frame.older()
        while frame is not None and len(found) < most:
            found.append(_named(frame))
            frame = frame.older()
    except (gdb.error, gdb.MemoryError):
        pass  # gdb cannot unwind further
    return found


def _named(frame: gdb.Frame) -> str:
    pc = int(frame.pc())
    try:
        said = gdb.execute(f"info symbol {pc:#x}", to_string=True)
    except gdb.error:
        return hex(pc)
    symbol, found, _ = said.partition(" in section ")
    return f"{pc:#x} {symbol.replace(' + ', '+')}" if found else hex(pc)

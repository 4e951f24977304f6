"""A source made by hand: memory, threads and symbols as a test wants them."""

from __future__ import annotations

from collections.abc import Sequence

from heapglass.memory import Memory
from heapglass.source import Machine, Module, Part, Symbol, Thread

BANNER = b"GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.\n"
X86_64 = Machine("x86_64", 8, "little")


class FakeSource:
    """What a target would offer."""

    kind = "core"
    name = "fake"

    def __init__(
        self,
        memory: Memory,
        symbols: Sequence[Symbol] = (),
        threads: Sequence[Thread] = (),
        machine: Machine = X86_64,
        banner: bytes | None = BANNER,
        libc: str = "/lib/libc.so.6",
        parts: Sequence[Part] = (),
    ) -> None:
        self.memory = memory
        self.machine = machine
        self.pid = 7
        self.warnings: list[str] = []
        self._symbols = symbols
        self._threads = threads
        self._banner = banner
        self._libc = libc
        self._parts = parts

    def threads(self) -> Sequence[Thread]:
        return self._threads

    def auxv(self) -> dict[int, int]:
        return {}

    def modules(self) -> Sequence[Module]:
        return [Module("/bin/program", 0x1000, "", "", ""), Module(self._libc, 0, "", "", "")]

    def parts(self, module: Module) -> Sequence[Part]:
        return self._parts if module.path == self._libc else []

    def symbols(self, name: str) -> Sequence[Symbol]:
        return [symbol for symbol in self._symbols if symbol.name == name]

    def symbol_at(self, address: int) -> Symbol | None:
        """Return nothing: no file was loaded."""
        return None

    def frame_at(self, thread: int, address: int) -> str:
        """Return nothing: there are no stacks."""
        return ""

    def file_bytes(self, module: Module, pattern: bytes, limit: int) -> bytes | None:
        if self._banner is None or module.path != self._libc:
            return None
        return self._banner[:limit]

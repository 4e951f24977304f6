"""Processes that the model has made, as a source that has no symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from heapglass.memory import ByteMemory, Memory, Region
from heapglass.model import Allocator
from heapglass.model.allocator import Thread as ModelThread
from heapglass.source import Machine, Module, Part, Symbol, Thread

AT_PAGESZ = 6
LIBC = "libc.so.6"  # as the model's regions are named
SIZES = (24, 24, 100, 100, 600, 1300, 1300, 40000)


class Played(NamedTuple):
    """A process: its malloc, and the threads that have used it, main first."""

    allocator: Allocator
    threads: Sequence[ModelThread]


def play(release: str, abi: str = "x86_64", threads: int = 2, **more: object) -> Played:
    """Return a process with blocks in use, in the tcaches and in the bins of each thread."""
    allocator = Allocator(release, abi, ncpu=4, **more)  # type: ignore[arg-type]
    running = [allocator, *(allocator.thread() for _ in range(threads - 1))]
    for thread in running:
        blocks = [thread.malloc(size) for size in (*SIZES, *SIZES)]
        for block in blocks[1::2]:
            thread.free(block)
        thread.malloc(33)
    return Played(allocator, running)


class ModelSource:
    """What a stripped process would offer. *banner*: the release that its libc says, if any."""

    pid: int | None = None
    kind = "core"
    name = "a model"

    def __init__(
        self,
        played: Played,
        banner: str | None = None,
        modules: Sequence[str] = (LIBC,),
        memory: Memory | None = None,
        tp: bool = True,
    ) -> None:
        layout = played.allocator.layout
        self.machine = Machine(layout.abi, layout.word, layout.order)
        self.memory = memory or played.allocator.memory
        self.warnings: list[str] = []
        self._banner = banner
        self._modules = modules
        self._page_size = played.allocator.machine.kernel.page_size
        self._threads = [
            Thread(thread.number, tp=thread.tp if tp else None) for thread in played.threads
        ]

    def threads(self) -> Sequence[Thread]:
        return self._threads

    def auxv(self) -> dict[int, int]:
        return {AT_PAGESZ: self._page_size}

    def modules(self) -> Sequence[Module]:
        return [Module(name, 0, "", "", "") for name in self._modules]

    def parts(self, module: Module) -> Sequence[Part]:
        return []

    def symbols(self, name: str) -> Sequence[Symbol]:
        return []

    def symbol_at(self, address: int) -> Symbol | None:
        """Return nothing: no file was loaded."""
        return None

    def frame_at(self, thread: int, address: int) -> str:
        """Return nothing: there are no stacks."""
        return ""

    def file_bytes(self, module: Module, pattern: bytes, limit: int) -> bytes | None:
        if self._banner is None:
            return None
        text = f"GNU C Library (a model) stable release version {self._banner}.\n"
        return text.encode()[:limit]


def copied(*renamed: tuple[Played, str]) -> ByteMemory:
    """Return the memory of several processes as one; each one's libc is renamed.

    Regions that overlap one of an earlier process are left out.
    """
    pieces: dict[int, bytes] = {}
    regions: list[Region] = []
    for played, libc in renamed:
        memory = played.allocator.memory
        for region in memory.regions():
            if any(region.start < r.end and r.start < region.end for r in regions):
                continue
            pieces[region.start] = bytes(memory.view(region.start, region.end))
            path = libc if region.path == LIBC else region.path
            regions.append(Region(region.start, region.end, region.perms, path))
    return ByteMemory(pieces, sorted(regions))

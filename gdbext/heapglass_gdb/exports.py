"""What recording needs of a process's C library: its exports by name, nothing more."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import gdb

from heapglass.errors import HeapglassError, MemoryFault, NotFound
from heapglass.glibc.releases import name as release_name
from heapglass.locate.release import read_banner
from heapglass.recorder.convert import VARIABLES, tunables
from heapglass.source import Module, Part
from heapglass.targets.process import ProcessSource

from .source import open_options

LAST_STEP = "__call_tls_dtors"  # what a thread's end begins with; exported by every release
LEAVING = "__libc_thread_freeres"  # what empties its tcache; exported up to 2.33
BREAK = "__curbrk"
ABORT = "__abort_msg"
MARK = "gnu_get_libc_version"
MOST_TEXT = 512
_ARENA = {8: (2000, 2300), 4: (1000, 1300)}  # how far behind main_arena its `next` may stand


@dataclass
class Libc:
    """A process's C library as its own ELF tables have it."""

    pid: int
    version: str
    abi: str
    word: int
    order: str
    ncpu: int
    page_size: int
    functions: Mapping[str, int]
    last_step: int  # 0: not there
    leaving: int
    break_at: int  # of libc's own note of the break; 0: not there
    abort_at: int  # of the pointer to what malloc says before abort; 0: not there
    code: Sequence[Part] = ()
    data: Sequence[Part] = ()
    settings: tuple[str, ...] = field(default_factory=tuple)

    def holds(self, address: int) -> bool:
        """Whether an address is in the library's code."""
        return any(part.start <= address < part.end for part in self.code)

    def tunables(self) -> dict[str, int]:
        """Return what the process's environment sets."""
        return tunables(self.settings)

    def start_brk(self) -> tuple[int, bool]:
        """Return where the break began, and whether it has not moved yet."""
        with open(f"/proc/{self.pid}/stat", "rb") as file:
            said = file.read()
        start = int(said[said.rfind(b")") + 2 :].split()[44])
        with open(f"/proc/{self.pid}/maps", "rb") as file:
            moved = b"[heap]" in file.read()
        return start, not moved

    def main_arena(self) -> tuple[int, int]:
        """Return where main_arena and its `next` are, while it is the only arena; else 0, 0."""
        least, most = _ARENA[self.word]
        for part in self.data:
            try:
                data = read(part.start, part.end - part.start)
            except MemoryFault:
                continue
            form = f"{'<' if self.order == 'little' else '>'}{len(data) // self.word}"
            words = struct.unpack_from(form + {8: "Q", 4: "I"}[self.word], data)
            for index in range(len(words) - 2):
                at = part.start + index * self.word
                if least <= at - words[index] < most and words[index + 1 : index + 3] == (0, 1):
                    return words[index], at
        return 0, 0

    def word_at(self, address: int) -> int:
        """Return a word of memory, 0 if it cannot be read."""
        try:
            return int.from_bytes(read(address, self.word), self.order)  # type: ignore[arg-type]
        except MemoryFault:
            return 0

    def abort_text(self) -> str:
        """Return what malloc said, empty if nothing."""
        at = self.word_at(self.abort_at) if self.abort_at else 0
        if not at:
            return ""
        try:
            said = read(at + 4, MOST_TEXT)
        except MemoryFault:
            return ""
        return said.partition(b"\0")[0].decode("utf-8", "replace")


def read(address: int, size: int) -> bytes:
    """Return bytes of the process that gdb has selected.

    :raises MemoryFault: if they cannot be read.
    """
    try:
        return bytes(gdb.selected_inferior().read_memory(address, size))
    except (gdb.error, gdb.MemoryError, OverflowError) as error:
        raise MemoryFault(address, size) from error


def find_libc(pid: int, names: Sequence[str]) -> Libc:
    """Return the C library of a process of this machine.

    :raises NotFound: if none is loaded yet, or its malloc is not to be found.
    :raises HeapglassError: if the process cannot be read.
    """
    with ProcessSource(pid, open_options()) as source:
        module, version = _libc_module(source)

        def at(name: str) -> int:
            found = (
                symbol.value for symbol in source.symbols(name) if symbol.module == module.path
            )
            return next(found, 0)

        functions = {name: address for name in names if (address := at(name))}
        if "malloc" not in functions or "free" not in functions:
            raise NotFound(f"{module.path} exports no malloc", "it is static, and stripped?")
        parts = [part for part in source.parts(module) if part.kind == "load"]
        return Libc(
            pid=pid,
            version=version,
            abi=source.machine.abi,
            word=source.machine.word,
            order=source.machine.order,
            ncpu=_processors(pid),
            page_size=source.auxv().get(6, 4096),
            functions=functions,
            last_step=at(LAST_STEP),
            leaving=at(LEAVING),
            break_at=at(BREAK),
            abort_at=at(ABORT),
            code=[part for part in parts if "x" in part.perms],
            data=[part for part in parts if "w" in part.perms],
            settings=_settings(pid),
        )


def _libc_module(source: ProcessSource) -> tuple[Module, str]:
    """Return the file that malloc is in, and its release; in a static program that is itself."""
    modules = {module.path: module for module in source.modules()}
    for symbol in (*source.symbols(MARK), *source.symbols("__libc_malloc")):
        module = modules.get(symbol.module)
        banner = read_banner(source, module) if module else None
        if module and banner:
            return module, release_name(banner.version)
    raise NotFound("no C library is loaded yet", "heap trace start waits for it")


def _processors(pid: int) -> int:
    try:
        return len(os.sched_getaffinity(pid))
    except OSError:
        return os.cpu_count() or 1


def _settings(pid: int) -> tuple[str, ...]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            said = file.read().decode("utf-8", "replace").split("\0")
    except OSError as error:
        raise HeapglassError(f"process {pid}: its environment cannot be read") from error
    wanted = ("GLIBC_TUNABLES", *VARIABLES)
    return tuple(one for one in said if one.partition("=")[0] in wanted)

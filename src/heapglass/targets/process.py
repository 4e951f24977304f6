"""A running process, read through /proc. Nothing is stopped, attached to or written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from ..errors import BadTarget, MemoryFault
from ..memory import Region
from ..room import Room
from ..source import Machine, Module, Part, Symbol, Thread
from .elf import BadElf, read_header
from .files import FileFinder
from .modules import ModuleFinder
from .notes import AT_ENTRY, read_auxv
from .options import OpenOptions
from .symbolfinder import SymbolFinder

PIECE = 16 << 20  # bytes asked for in one call
MOST_MAPPINGS = 1 << 21
MOST_THREADS = 1 << 17
STOPPED = "Tt"  # states of proc(5): stopped by a signal, stopped by a tracer
RUNNING = (
    "the process is not stopped while it is read: what it changes meanwhile looks damaged. Stop it "
    "with kill -STOP, or make a core with gcore, for an exact answer"
)
_MAPPING = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (...). ([0-9a-f]+) \S+ \d+ *(.*)")


class ProcessMemory:
    """The memory of a process, through /proc/PID/mem. A `Memory`; regions are as at the start."""

    def __init__(self, descriptor: int, regions: Sequence[Region], room: Room) -> None:
        self._descriptor = descriptor
        self._regions = regions
        self._room = room

    def regions(self) -> Sequence[Region]:
        """Return what was mapped when the process was opened."""
        return self._regions

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*; see `Memory.read`."""
        if not 0 <= size <= PIECE:
            return bytes(self.view(address, address + size))
        try:
            data = os.pread(self._descriptor, size, address)
        except (OSError, OverflowError, ValueError) as error:
            raise MemoryFault(address, size, _why(error)) from error
        if len(data) != size:
            raise MemoryFault(address + len(data), size - len(data), "not mapped")
        return data

    def view(self, start: int, end: int) -> memoryview:
        """Return a copy of a range, read in large pieces into one buffer."""
        if end < start:
            raise MemoryFault(start, end - start, "a negative size")
        self._probe(start, end)
        buffer = self._room.buffer(start, end - start)
        here = start
        while here < end:
            here += self._read_into(buffer[here - start : here - start + PIECE], here)
        return buffer.toreadonly()

    def at_once(self) -> int:
        """Return how many bytes there is room for in memory."""
        return self._room.limit

    def _probe(self, start: int, end: int) -> None:
        """Touch each piece of a large range before a buffer of that size is made."""
        if end - start > PIECE:
            if end - start > sum(region.size for region in self._regions):
                raise MemoryFault(start, end - start, "more than the process has mapped")
            self.read(start, 1)
            self.read(end - 1, 1)

    def _read_into(self, part: memoryview, address: int) -> int:
        try:
            count = os.preadv(self._descriptor, [part], address)
        except (OSError, OverflowError, ValueError) as error:
            raise MemoryFault(address, len(part), _why(error)) from error
        if not count:
            raise MemoryFault(address, len(part), "the process is gone")
        return count


def _why(error: Exception) -> str:
    return (error.strerror or "") if isinstance(error, OSError) else "no address"


class ProcessSource:
    """A process as a `Source`. Close it, or use it as a context manager."""

    kind = "process"

    def __init__(self, pid: int, options: OpenOptions) -> None:
        """Open a process for reading.

        :raises BadTarget: if there is none of that id, or this user may not read it.
        """
        self.pid: int | None = pid
        self.name = f"process {pid}"
        self._folder = f"/proc/{pid}"
        self.machine = self._machine()
        self.warnings = [] if self._stopped() else [RUNNING]
        regions = parse_maps(self._slurp("maps"))
        if not regions:
            raise BadTarget(self.name, "it has no memory: it is a zombie or a kernel thread")
        self._auxv = read_auxv(self._slurp("auxv"), self.machine)
        self._files = FileFinder(options, self._folder)
        self._descriptor = self._open_memory()
        self.memory = ProcessMemory(self._descriptor, regions, Room(options.memory_limit))
        inside = self._auxv.get(AT_ENTRY)
        exe = options.exe or f"{self._folder}/exe"
        self._finder = ModuleFinder(
            self.memory, regions, self._files, inside, exe, warnings=self.warnings
        )
        self._symbols = SymbolFinder(self._finder, self._files, self.memory)

    # --- what /proc says --------------------------------------------------------------------------

    def _slurp(self, file: str) -> bytes:
        try:
            with open(f"{self._folder}/{file}", "rb") as stream:
                return stream.read()
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> BadTarget:
        if isinstance(error, PermissionError):
            return BadTarget(
                self.name,
                "permission denied",
                "only its owner may read it, and only if /proc/sys/kernel/yama/ptrace_scope is 0; "
                "root may (sudo)",
            )
        if isinstance(error, (FileNotFoundError, ProcessLookupError)):
            return BadTarget(self.name, "there is no such process", "ps shows which there are")
        return BadTarget(self.name, f"it cannot be read: {error.strerror}")

    def _machine(self) -> Machine:
        if not os.path.isdir(self._folder):
            raise self._refused(FileNotFoundError())
        try:
            with open(f"{self._folder}/exe", "rb") as stream:
                return read_header(stream.read(64)).machine
        except FileNotFoundError as error:
            raise BadTarget(
                self.name, "it runs no program: it is a zombie or a kernel thread"
            ) from error
        except OSError as error:
            raise self._refused(error) from error
        except BadElf as error:
            raise BadTarget(self.name, f"its program: {error}") from error

    def _open_memory(self) -> int:
        try:
            return os.open(f"{self._folder}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._refused(error) from error

    def _task_ids(self) -> list[int]:
        try:
            names = os.listdir(f"{self._folder}/task")
        except OSError as error:
            raise self._refused(error) from error
        return sorted(int(name) for name in names if name.isdigit())[:MOST_THREADS]

    def _stopped(self) -> bool:
        """Whether all threads are stopped, by a signal or a tracer."""
        for task in self._task_ids():
            try:
                status = self._slurp(f"task/{task}/stat")
            except BadTarget:
                continue  # it has just ended
            state = status[status.rfind(b")") + 2 :][:1].decode("ascii", "replace")
            if state not in STOPPED:
                return False
        return True

    # --- Source -----------------------------------------------------------------------------------

    def threads(self) -> Sequence[Thread]:
        """Return the threads, ascending by id. A thread pointer cannot be had without ptrace."""
        return [Thread(task, None, None, self._stack_pointer(task)) for task in self._task_ids()]

    def _stack_pointer(self, task: int) -> int | None:
        """Return the stack pointer of a thread that waits in the kernel, see proc(5), syscall."""
        try:
            words = self._slurp(f"task/{task}/syscall").split()
            return int(words[-2], 16) or None if len(words) >= 3 else None
        except (BadTarget, ValueError):
            return None

    def auxv(self) -> dict[int, int]:
        """Return the auxiliary vector."""
        return self._auxv

    def modules(self) -> Sequence[Module]:
        """Return the loaded ELF files; the first call adds to `warnings`."""
        return self._finder.modules()

    def parts(self, module: Module) -> Sequence[Part]:
        """Return a module's parts; empty if its program headers are not at hand."""
        return self._finder.parts(module)

    def symbols(self, name: str) -> Sequence[Symbol]:
        """Return every definition of *name*; see `SymbolFinder.symbols`."""
        return self._symbols.symbols(name)

    def symbol_at(self, address: int) -> Symbol | None:
        """Return the symbol that an address lies in; None if none is known."""
        return self._symbols.at(address)

    def frame_at(self, thread: int, address: int) -> str:  # noqa: ARG002
        """Return nothing: only gdb unwinds stacks."""
        return ""

    def file_bytes(self, module: Module, pattern: bytes, limit: int) -> bytes | None:
        """Return bytes of a module's file, or of its memory, from *pattern* on."""
        return self._symbols.file_bytes(module, pattern, limit)

    def close(self) -> None:
        """Let the process and all files go."""
        self._files.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> ProcessSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def parse_maps(text: bytes) -> list[Region]:
    """Read /proc/PID/maps."""
    return list(_parse_maps(text))


def _parse_maps(text: bytes) -> Iterator[Region]:
    for line in text.split(b"\n")[:MOST_MAPPINGS]:
        found = _MAPPING.match(line)
        if found:
            path = found[5].replace(b"\\012", b"\n").decode("utf-8", "surrogateescape")
            start, end, offset = (int(found[number], 16) for number in (1, 2, 4))
            yield Region(start, end, found[3].decode("ascii"), path, offset)

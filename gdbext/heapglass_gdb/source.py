"""gdb's current target as a `Source`: a live process, a core, or a remote one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import gdb

from heapglass.errors import BadTarget, NotFound
from heapglass.memory import Memory, Region
from heapglass.room import Room
from heapglass.source import Machine, Module, Part, Source, Symbol, Thread
from heapglass.targets import OpenOptions, open_target
from heapglass.targets.files import FileFinder
from heapglass.targets.modules import ModuleFinder
from heapglass.targets.process import ProcessSource
from heapglass.targets.symbolfinder import SymbolFinder

from .frames import frame_at
from .memory import GdbMemory, KeptMemory
from .stopped import NO_TARGET
from .threads import read_threads

_CORE = re.compile(r"core dump file:\s+`([^\n]*)', file type")
_MAPPING = re.compile(
    r"^[ \t]*0x([0-9a-f]+)[ \t]+0x([0-9a-f]+)[ \t]+0x[0-9a-f]+[ \t]+0x([0-9a-f]+)[ \t]*(.*)$",
    re.M,
)
_SYMBOL = re.compile(r"(\S.*?)(?: \+ (\d+))? in section ")
_AUXV = re.compile(r"^(\d+)\s+AT_\S+\s+.*?\s(0x[0-9a-f]+|\d+)$", re.M)
_ABIS = (
    (r"^i386:x64-32", "x32", 4),
    (r"^i386:x86-64", "x86_64", 8),
    (r"^i[3-6]86", "i386", 4),
    (r"^aarch64(?!:ilp32)", "aarch64", 8),
    (r"^arm", "arm", 4),
    (r"^riscv:rv64", "riscv64", 8),
    (r"^powerpc:common64", "ppc64", 8),
    (r"^s390:64-bit", "s390x", 8),
)


class GdbSource(Source, Protocol):
    """A source that holds files open until it is closed."""

    def close(self) -> None:
        """Let the files go."""
        ...


class Selected(NamedTuple):
    """What gdb has selected: two that are equal are one target, as long as it stands still."""

    kind: str  # "core", "live" or "remote"
    inferior: int  # gdb's number
    pid: int
    core: str  # a core's file, and what tells it from another of that name
    stamp: tuple[int, ...]
    options: OpenOptions


def selected(memory_limit: int | None) -> Selected:
    """Return what gdb has selected.

    :raises HeapglassError: if there is none, or it cannot be used.
    """
    inferior = gdb.selected_inferior()
    options = replace(open_options(), exe=_program(), memory_limit=memory_limit)
    core = core_path(inferior)
    if core is not None:
        return Selected("core", inferior.num, inferior.pid, core, _stamp(core), options)
    threads = inferior.threads() if inferior.pid else ()
    if not threads:
        raise NotFound(NO_TARGET)
    if any(thread.is_running() for thread in threads):
        raise BadTarget(f"process {inferior.pid}", "it is running", "stop it first: interrupt")
    kind = "live" if _is_native(inferior) else "remote"
    return Selected(kind, inferior.num, inferior.pid, "", (), options)


def _stamp(path: str) -> tuple[int, ...]:
    try:
        said = os.stat(path)
    except OSError:
        return ()
    return said.st_dev, said.st_ino, said.st_size, said.st_mtime_ns


def open_selected(chosen: Selected) -> GdbSource:
    """Open what is selected. Close it.

    :raises HeapglassError: if it cannot be used.
    """
    if chosen.kind == "core":
        return _core(chosen.core, chosen.options)
    inferior = gdb.selected_inferior()
    if chosen.kind == "live":
        return _LiveSource(inferior, replace(chosen.options, exe=""))
    return _RemoteSource(inferior, chosen.options)


def open_options() -> OpenOptions:
    """Return where files are, as gdb's own settings say."""
    sysroot = str(gdb.parameter("sysroot") or "")
    folders = str(gdb.parameter("debug-file-directory") or "")
    return OpenOptions(
        sysroot="" if sysroot.startswith("target:") else sysroot.rstrip("/"),
        debug_dirs=tuple(folder for folder in folders.split(":") if folder),
    )


def core_path(inferior: gdb.Inferior) -> str | None:
    """Return the core file that gdb has open, None if it has none."""
    corefile = getattr(inferior, "corefile", None)  # gdb 17
    if corefile is not None:
        return str(corefile.filename)
    connection = getattr(inferior, "connection", None)  # gdb 11
    if connection is not None and connection.type != "core":
        return None
    if inferior.pid and connection is None and hasattr(inferior, "connection"):
        return None
    found = _CORE.search(gdb.execute("info files", to_string=True))
    return found[1] if found else None


def _is_native(inferior: gdb.Inferior) -> bool:
    """Whether the process is one of this machine, under gdb's own control."""
    connection = getattr(inferior, "connection", None)
    if connection is not None:
        return str(connection.type) == "native"
    said = gdb.execute("info files", to_string=True)
    return "Native process" in said or "native process" in said


def _core(path: str, options: OpenOptions) -> GdbSource:
    """Open the core itself: its tables say more than gdb tells, and its memory needs no copy."""
    source = open_target(path, options)
    numbers = {thread.ptid[1] or thread.ptid[0]: thread.num for thread in _gdb_threads()}
    threads = [t._replace(number=numbers.get(t.id)) for t in source.threads()]
    return _Numbered(source, threads)


def _program() -> str:
    """Return the program that gdb was given with `file`, if any."""
    return str(gdb.current_progspace().filename or "")


def _gdb_threads() -> Sequence[gdb.InferiorThread]:
    return gdb.selected_inferior().threads()  # type: ignore[no-any-return]


class _Numbered:
    """A source whose threads have gdb's numbers; all else is the source's own."""

    def __init__(self, source: GdbSource, threads: Sequence[Thread]) -> None:
        self._threads = threads
        self.close = source.close
        self.machine, self.memory = source.machine, source.memory
        self.pid, self.kind, self.name = source.pid, source.kind, source.name
        self.warnings = source.warnings
        self.auxv, self.modules = source.auxv, source.modules
        self.parts = source.parts
        self.symbols, self.file_bytes = source.symbols, source.file_bytes
        self._symbol_at = source.symbol_at

    def threads(self) -> Sequence[Thread]:
        """Return the threads, ascending by id."""
        return self._threads

    def symbol_at(self, address: int) -> Symbol | None:
        """Return the symbol that an address lies in, of the files, else of what gdb knows."""
        return self._symbol_at(address) or gdb_symbol_at(address)

    def frame_at(self, thread: int, address: int) -> str:
        """Return the variable and the function of a thread's frame, as far as gdb knows them."""
        return frame_at(thread, address)


class _LiveSource(_Numbered):
    """A process of this machine: mappings, files and large pieces of memory through /proc.

    Small pieces come through gdb, which hides its breakpoints: there are none in a heap.
    """

    def __init__(self, inferior: gdb.Inferior, options: OpenOptions) -> None:
        process = ProcessSource(int(inferior.pid), options)
        super().__init__(process, read_threads(process.machine.abi))
        self._process = process
        self.kind, self.name = "live", f"process {inferior.pid}"
        room = Room(options.memory_limit)
        through_gdb = GdbMemory(inferior, process.memory.regions(), room)
        self.memory: Memory = KeptMemory(through_gdb, process.memory, room.limit)
        process.modules()
        self.warnings = [text for text in process.warnings if "not stopped" not in text]
        self.symbols = self._symbols

    def _symbols(self, name: str) -> Sequence[Symbol]:
        """Return the files' symbols, then what gdb itself knows (it may have been told more)."""
        return [*self._process.symbols(name), *gdb_symbols(name)]


class _RemoteSource:
    """A process behind gdbserver or the like: what is not at hand here is asked of gdb."""

    kind = "remote"

    def __init__(self, inferior: gdb.Inferior, options: OpenOptions) -> None:
        self.machine = _machine(inferior)
        self.pid = int(inferior.pid)
        self.name = f"remote process {inferior.pid}"
        self.warnings: list[str] = []
        regions = _mappings(self.machine)
        if not regions:
            self.warnings.append("the remote target does not tell its mappings")
        room = Room(options.memory_limit)
        through_gdb = GdbMemory(inferior, regions, room)
        self.memory: Memory = KeptMemory(through_gdb, through_gdb, room.limit)
        self._files = FileFinder(options)
        self._auxv = _read_auxv()
        self._finder = ModuleFinder(
            self.memory,
            regions,
            self._files,
            self._auxv.get(9),  # AT_ENTRY
            warnings=self.warnings,
        )
        self._symbols = SymbolFinder(self._finder, self._files, self.memory)
        self._threads = read_threads(self.machine.abi)

    def threads(self) -> Sequence[Thread]:
        """Return the threads, ascending by id."""
        return self._threads

    def auxv(self) -> dict[int, int]:
        """Return the auxiliary vector; empty if the target does not tell it."""
        return self._auxv

    def modules(self) -> Sequence[Module]:
        """Return the loaded files, as far as the mappings are known."""
        return self._finder.modules()

    def parts(self, module: Module) -> Sequence[Part]:
        """Return a module's parts; empty if its program headers are not at hand."""
        return self._finder.parts(module)

    def symbols(self, name: str) -> Sequence[Symbol]:
        """Return the symbols of the files at hand, then gdb's own."""
        return [*self._symbols.symbols(name), *gdb_symbols(name)]

    def symbol_at(self, address: int) -> Symbol | None:
        """Return the symbol that an address lies in, of the files at hand, else gdb's own."""
        return self._symbols.at(address) or gdb_symbol_at(address)

    def frame_at(self, thread: int, address: int) -> str:
        """Return the variable and the function of a thread's frame, as far as gdb knows them."""
        return frame_at(thread, address)

    def file_bytes(self, module: Module, pattern: bytes, limit: int) -> bytes | None:
        """Return bytes of a file that is at hand, or as loaded."""
        return self._symbols.file_bytes(module, pattern, limit)

    def close(self) -> None:
        """Let the files go."""
        self._files.close()


def gdb_symbols(name: str) -> list[Symbol]:
    """Return what gdb itself knows under a name: debug information first, then plain symbols.

    Variables of threads are left out: gdb needs libthread_db for them.
    """
    try:
        found = gdb.lookup_static_symbol(name) or gdb.lookup_global_symbol(name)
        if found is not None and found.is_variable and not found.needs_frame:
            value = found.value()
            if value.address is not None:
                where = found.symtab.objfile.filename if found.symtab else ""
                return [Symbol(name, int(value.address), value.type.sizeof, "dwarf", where or "")]
        address = int(gdb.parse_and_eval(f"(unsigned long)&{name}"))
    except (gdb.error, RuntimeError):
        return []
    return [Symbol(name, address, 0, "symbol", "")]


def gdb_symbol_at(address: int) -> Symbol | None:
    """Return the symbol that gdb itself knows at an address."""
    try:
        said = gdb.execute(f"info symbol {address:#x}", to_string=True)
    except gdb.error:
        return None
    found = _SYMBOL.match(said)
    if found is None:
        return None
    name, offset = found[1], int(found[2] or 0)
    return Symbol(name, address - offset, 0, "symbol", "")


def _machine(inferior: gdb.Inferior) -> Machine:
    """Return the kind of machine, by gdb's name of the architecture.

    :raises BadTarget: if heapglass does not know it.
    """
    name = str(inferior.architecture().name())
    order = "big" if "big" in gdb.execute("show endian", to_string=True) else "little"
    for pattern, abi, word in _ABIS:
        if re.search(pattern, name):
            little_power = abi == "ppc64" and order == "little"
            return Machine("ppc64le" if little_power else abi, word, order)
    raise BadTarget(f"architecture {name}", "heapglass has no tables for it")


def _mappings(machine: Machine) -> list[Region]:
    """Return the mappings that a remote target tells; gdb has no other way to ask."""
    try:
        text = gdb.execute("info proc mappings", to_string=True)
    except gdb.error:
        return []
    regions = []
    for found in _MAPPING.finditer(text):
        perms, _, path = found[4].partition(" ")
        if not re.fullmatch(r"[r-][w-][xst-][ps-]?", perms):
            perms, path = "rw-", found[4]
        start, end, offset = (int(found[number], 16) for number in (1, 2, 3))
        if start < end < 1 << 8 * machine.word + 1:
            regions.append(Region(start, end, perms[:3], path.strip(), offset))
    return sorted(regions)


def _read_auxv() -> dict[int, int]:
    try:
        text = gdb.execute("info auxv", to_string=True)
    except gdb.error:
        return {}
    return {int(found[1]): int(found[2], 0) for found in _AUXV.finditer(text)}

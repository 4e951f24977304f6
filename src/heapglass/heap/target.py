"""`Target`: memory, layout, and where the allocator's variables are and how each was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ..errors import NotFound
from ..glibc.layout import Layout
from ..glibc.releases import Version, name
from ..memory import Memory
from ..progress import Report, quiet
from ..source import Stop

NO_SYMBOLS_HINT = (
    "install the C library's debug symbols (libc6-dbg), name their folder with --debug-dir, "
    "or give --main-arena ADDR and --mp ADDR (in gdb: set heapglass main-arena ADDR, …)"
)


class Place(NamedTuple):
    """Where something is and why that is believed."""

    address: int
    how: str  # "symbol", "dwarf", "dynsym", "scan" or "user"
    where: str = ""  # the file that named it, empty if none did
    checks: tuple[str, ...] = ()  # the invariants that it passed, in words
    runners_up: tuple[str, ...] = ()  # what else was found, and is not taken


class Loaded(NamedTuple):
    """A loaded file that may hold malloc, for those who ask why something was not found."""

    path: str
    build_id: str  # hex, empty if not known
    at_hand: bool  # whether the file itself can be read here
    debug_file: bool  # whether a separate debug file was found


class Near(NamedTuple):
    """The symbol that an address lies in."""

    name: str  # as the linker knows it, mangled
    offset: int  # of the address from where the symbol begins
    module: str  # the file that it is in


def _no_symbol(_address: int) -> Near | None:
    return None


def _no_addresses(_name: str) -> Sequence[int]:
    return ()


def _no_origins(_block: int) -> Sequence[tuple[str, str]]:
    return ()


def _no_frame(_thread: int, _address: int) -> str:
    return ""


class TypePrinter(Protocol):
    """Who knows the types of the program's debug information: gdb."""

    def size(self, name: str) -> int:
        """Return the bytes of a type.

        :raises BadRequest: if there is no such type.
        """
        ...

    def text(self, name: str, address: int) -> str:
        """Return what stands at an address as a type, in one line; empty if it cannot be read."""
        ...


class HeapThread(NamedTuple):
    """A thread and what the allocator keeps for it."""

    id: int  # kernel thread id
    number: int | None = None  # gdb's number
    tp: int | None = None  # thread pointer
    tcache: int | None = None  # address of its tcache struct; None: none, or not known
    tcache_how: str | None = None  # None: not known
    tcache_state: str = "unknown"  # "active", "none" (not made yet), "disabled" or "unknown"
    arena: int | None = None  # its thread_arena; None: none yet, or not known
    arena_known: bool = False
    sp: int | None = None  # stack pointer, None if not known
    registers: tuple[tuple[str, int], ...] = ()  # general ones, by name; empty if not known
    stop: Stop | None = None  # of the thread that the signal hit; in gdb the selected one


@dataclass
class Target:
    """Everything that the reader needs; made by `locate/`, or by a test or the model by hand."""

    memory: Memory
    layout: Layout
    main_arena: Place | None
    mp: Place | None
    threads: Sequence[HeapThread] = ()
    names: Mapping[str, Place] = field(default_factory=dict)  # narenas, perturb_byte, …, if found
    glibc_how: str = "user"
    releases: Sequence[Version] = ()  # those that are possible, if none is known; else empty
    files: Sequence[Loaded] = ()
    tools: Mapping[str, str] = field(default_factory=dict)  # name to version: "gdb" where it reads
    page_size: int = 4096
    may_tag: bool = False  # whether the machine can tag memory (MTE), as far as is known
    symbol_at: Callable[[int], Near | None] = _no_symbol
    # Of the variables of a name, by their symbols: of each file that has one.
    addresses_of: Callable[[str], Sequence[int]] = _no_addresses
    frame_at: Callable[[int, int], str] = _no_frame  # of a thread's id and an address
    # Of a block (mem): ("allocated" or "freed", by which call), as far as calls were recorded.
    origins: Callable[[int], Sequence[tuple[str, str]]] = _no_origins
    types: TypePrinter | None = None
    kept: dict[str, Any] | None = None  # what outlives a command, where a door keeps something
    report: Report = quiet  # how far it is: for a command that takes long
    current: int | None = None  # id of the thread that a debugger has selected
    pid: int | None = None
    kind: str = ""
    name: str = ""
    warnings: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # what was looked for in vain, and why

    def require_main_arena(self) -> Place:
        """Return where main_arena is.

        :raises NotFound: if it was not found; says what to do.
        """
        if self.main_arena is None:
            why = next((text for text in self.missing if text.startswith("main_arena")), None)
            raise NotFound(why or "main_arena was not found", NO_SYMBOLS_HINT)
        return self.main_arena

    @property
    def release(self) -> str | None:
        """The release, None if several are possible."""
        return None if len(self.releases) > 1 else self.layout.release

    @property
    def release_text(self) -> str:
        """The release, or those that are possible: "2.35 to 2.41"."""
        if self.release is not None:
            return self.release
        first, last = name(self.releases[0]), name(self.releases[-1])
        return f"{first} to {last}"

    def describe(self) -> dict[str, Any]:
        """Return the `target` member of every JSON document: the same through every door."""
        return {"abi": self.layout.abi, "glibc": self.release, "pid": self.pid}

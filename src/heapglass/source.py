"""What a stopped, dead or running process offers beside its bytes.

`targets/` and `gdbext/` make a `Source`; `locate/` finds the allocator in it. This module holds
only the words that both sides share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from .memory import Memory


class Machine(NamedTuple):
    """The kind of machine whose memory this is."""

    abi: str  # "x86_64", "i386", "aarch64", "arm", "riscv64", "ppc64le", "s390x", "x32"
    word: int  # bytes of a pointer: 8 or 4
    order: str  # byte order: "little" or "big"


class Stop(NamedTuple):
    """Why the target stopped, or died: of the thread that a signal hit."""

    signal: int = 0  # its number, 0 if not known
    address: int | None = None  # si_addr of a fault
    pc: int | None = None
    message: str | None = None  # what malloc said, where the target itself knows: a trace


class Thread(NamedTuple):
    """A thread of the target."""

    id: int  # kernel thread id (LWP)
    number: int | None = None  # gdb's own thread number, None outside of gdb
    tp: int | None = None  # thread pointer (fs_base, gs base, tpidr…), None if not known
    sp: int | None = None  # stack pointer, None if not known
    tag_ctl: int | None = None  # aarch64: PR_GET_TAGGED_ADDR_CTRL, None if not known
    registers: tuple[tuple[str, int], ...] = ()  # general ones, by name; empty if not known
    stop: Stop | None = None  # of the thread that the signal hit; in gdb the selected one


class Symbol(NamedTuple):
    """A name that somebody gave to an address."""

    name: str
    value: int  # address in the target; for a TLS symbol the offset in its module's TLS segment
    size: int  # bytes, 0 if not known
    how: str  # "symbol" (.symtab), "dynsym" or "dwarf"
    module: str  # file that the symbol's code or data was loaded from
    tls: bool = False


class Module(NamedTuple):
    """A loaded ELF file that may be (or hold) a C library."""

    path: str  # as the target names it
    base: int  # load bias: what is added to the file's addresses
    build_id: str  # hex, empty if not known
    file: str  # where the file itself is on this machine, empty if it is not at hand
    debug_file: str  # separate debug file, empty if none was found


class Part(NamedTuple):
    """A part of a module as its program headers describe it, at its place in the target.

    Of "tls" it is the initial image, whose *end* includes what starts as zero; "dynamic" is the
    dynamic section. What of it can be read is for the memory to say.
    """

    kind: str  # "load", "tls", "dynamic"
    start: int
    end: int
    perms: str  # "rwx" with dashes, as loaded, before RELRO


class Source(Protocol):
    """A target before anything was found in it."""

    @property
    def machine(self) -> Machine:
        """The kind of machine."""
        ...

    @property
    def memory(self) -> Memory:
        """Its bytes."""
        ...

    @property
    def pid(self) -> int | None:
        """The process id, None if it is not known."""
        ...

    @property
    def kind(self) -> str:
        """One of core, process, live, remote, trace."""
        ...

    @property
    def name(self) -> str:
        """For people: the core's path, "process 123", …"""
        ...

    @property
    def warnings(self) -> list[str]:
        """What the user should know about this source."""
        ...

    def threads(self) -> Sequence[Thread]:
        """Return the threads, ascending by id."""
        ...

    def auxv(self) -> dict[int, int]:
        """Return the auxiliary vector, AT_* number to value; empty if not known."""
        ...

    def modules(self) -> Sequence[Module]:
        """Return the loaded ELF files, in the order of their addresses."""
        ...

    def parts(self, module: Module) -> Sequence[Part]:
        """Return the module's parts; empty if its program headers are not at hand."""
        ...

    def symbols(self, name: str) -> Sequence[Symbol]:
        """Return every definition of *name*, the most trusted first (.symtab, debug file, …)."""
        ...

    def symbol_at(self, address: int) -> Symbol | None:
        """Return the symbol that an address lies in; None if none is known."""
        ...

    def frame_at(self, thread: int, address: int) -> str:
        """Return what stands at an address of a thread's stack: "line in main ()", if known."""
        ...

    def file_bytes(self, module: Module, pattern: bytes, limit: int) -> bytes | None:
        """Return up to *limit* bytes of the module's read-only data, from where *pattern* is.

        The file is asked first, then the memory. None if it is in neither.
        """
        ...

"""What the notes of a core say: threads and registers, auxiliary vector, mapped files.

Layouts: struct elf_prstatus and elf_prpsinfo of <linux/elfcore.h>, NT_FILE of fs/binfmt_elf.c,
registers of each port's <asm/ptrace.h> and <sys/user.h>.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..source import Machine, Stop, Thread
from .elf import Note

NT_PRSTATUS, NT_PRPSINFO, NT_AUXV, NT_FILE = 1, 3, 6, 0x46494C45
NT_SIGINFO = 0x53494749
NT_386_TLS, NT_ARM_TLS, NT_ARM_TAGGED_ADDR_CTRL = 0x200, 0x401, 0x409
FAULTS = (4, 5, 7, 8, 11)  # SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV: si_addr is there
AT_ENTRY = 9  # of the auxiliary vector: the first instruction of the program itself
MOST_FILE_NOTE = 256 << 20  # bytes; the kernel's own limit is 4 MiB unless raised
MOST_AUXV = 1 << 10
FNAME_AND_ARGS = 16 + 16 + 80  # struct elf_prpsinfo, from pr_pid on: four ids, pr_fname, pr_psargs


class Registers(NamedTuple):
    """Where NT_PRSTATUS has what is needed of a thread; numbers of registers, None: not there."""

    size: int  # bytes of a register
    sp: int
    tp: int | None = None
    general: tuple[tuple[str, int], ...] = ()  # name and number of those that may hold pointers
    pc: int | None = None


def _named(first: int, names: str) -> tuple[tuple[str, int], ...]:
    return tuple((name, first + at) for at, name in enumerate(names.split()))


def _numbered(prefix: str, count: int, first: int = 0) -> tuple[tuple[str, int], ...]:
    return tuple((f"{prefix}{number}", first + number) for number in range(count))


_X86_64 = _named(0, "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi")
_RISCV = "t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"

REGISTERS: dict[str, Registers] = {
    "x86_64": Registers(8, 19, 21, _X86_64, 16),  # fs_base
    "x32": Registers(8, 19, 21, _X86_64, 16),
    # i386: NT_386_TLS, by the selector in gs; arm: NT_ARM_TLS, if the kernel writes it
    "i386": Registers(4, 15, None, _named(0, "ebx ecx edx esi edi ebp eax"), 12),
    "aarch64": Registers(8, 31, None, _numbered("x", 31), 32),  # NT_ARM_TLS
    "arm": Registers(4, 13, None, _numbered("r", 13), 15),
    "riscv64": Registers(8, 2, 4, _named(5, _RISCV), 0),
    "ppc64le": Registers(8, 1, 13, _numbered("r", 32), 32),
    "ppc64": Registers(8, 1, 13, _numbered("r", 32), 32),
    "s390x": Registers(
        8, 17, None, _numbered("r", 16, 2), 1
    ),  # gpr15, behind two words of PSW; access registers 0 and 1
}
GS_OF_I386 = 10
ACCESS_REGISTERS_OF_S390X = 18 * 8  # bytes into the registers


class MappedFile(NamedTuple):
    """A mapping that NT_FILE names."""

    start: int
    end: int
    offset: int  # bytes
    path: str


@dataclass
class _ThreadNotes:
    """The notes of one thread: its status, and those up to the next one's status."""

    status: memoryview
    tls: memoryview | None = None  # NT_386_TLS or NT_ARM_TLS
    tagging: memoryview | None = None  # NT_ARM_TAGGED_ADDR_CTRL
    siginfo: memoryview | None = None  # NT_SIGINFO

    def take(self, note: Note) -> None:
        """Keep what a note behind the status says of this thread."""
        if note.type in (NT_386_TLS, NT_ARM_TLS):
            self.tls = note.desc
        elif note.type == NT_ARM_TAGGED_ADDR_CTRL:
            self.tagging = note.desc
        elif note.type == NT_SIGINFO:
            self.siginfo = note.desc


@dataclass
class CoreNotes:
    """What was read of all notes."""

    threads: list[Thread] = field(default_factory=list)  # ascending by id
    auxv: dict[int, int] = field(default_factory=dict)
    files: list[MappedFile] = field(default_factory=list)
    pid: int | None = None
    warnings: list[str] = field(default_factory=list)


def read_core_notes(notes: Iterable[Note], machine: Machine) -> CoreNotes:
    """Read the notes of a core; what is damaged is left out, and said in `warnings`."""
    found = CoreNotes()
    threads: list[_ThreadNotes] = []
    for note in notes:
        if note.name == b"LINUX" or note.type == NT_SIGINFO:
            if threads:
                threads[-1].take(note)
        elif note.name != b"CORE":
            continue
        elif note.type == NT_PRSTATUS:
            threads.append(_ThreadNotes(note.desc))
        elif note.type == NT_AUXV and not found.auxv:
            found.auxv = read_auxv(bytes(note.desc[: 16 * MOST_AUXV]), machine)
        elif note.type == NT_PRPSINFO and found.pid is None:
            found.pid = _pid(note.desc, machine)
        elif note.type == NT_FILE and not found.files:
            found.files = _files(note.desc, machine, found.warnings)
    _take_threads(found, threads, machine)
    return found


def _take_threads(found: CoreNotes, threads: list[_ThreadNotes], machine: Machine) -> None:
    """Read the threads; the first one is the one that the signal hit."""
    by_id: dict[int, Thread] = {}
    for notes_of_one in threads:
        thread = _thread(notes_of_one, machine)
        if thread is not None and not by_id:
            thread = thread._replace(stop=_stop(notes_of_one, machine))
        if thread is not None:
            by_id.setdefault(thread.id, thread)
    found.threads = [by_id[number] for number in sorted(by_id)]
    if len(by_id) < len(threads):
        found.warnings.append(
            f"{len(threads) - len(by_id)} of {len(threads)} NT_PRSTATUS notes are damaged or "
            "repeat a thread id; they are left out"
        )


def read_auxv(data: bytes, machine: Machine) -> dict[int, int]:
    """Read an auxiliary vector, up to AT_NULL."""
    words = struct.Struct(_prefix(machine) + ("QQ" if machine.word == 8 else "II"))
    vector: dict[int, int] = {}
    for kind, value in words.iter_unpack(data[: len(data) // words.size * words.size]):
        if not kind:
            break
        vector.setdefault(kind, value)
    return vector


def _prefix(machine: Machine) -> str:
    return "<" if machine.order == "little" else ">"


def _number(data: memoryview, at: int, size: int, machine: Machine) -> int | None:
    """Return an unsigned number, None if it is outside of the data."""
    if at < 0 or at + size > len(data):
        return None
    return int.from_bytes(data[at : at + size], "little" if machine.order == "little" else "big")


def _pid(desc: memoryview, machine: Machine) -> int | None:
    """Return pr_pid, counted from the end: uid and gid have 2 or 4 bytes, by port."""
    return _number(desc, len(desc) - FNAME_AND_ARGS, 4, machine) or None


def _thread(notes: _ThreadNotes, machine: Machine) -> Thread | None:
    """Return a thread; None without its id."""
    # pr_info: 12 bytes, pr_cursig: 2 and padding, pr_sigpend, pr_sighold; then pr_pid and three
    # more ids, four times of two words each, and pr_reg.
    id_at = 16 + 2 * machine.word
    thread_id = _number(notes.status, id_at, 4, machine)
    if not thread_id:
        return None
    known = REGISTERS.get(machine.abi)
    if known is None:
        return Thread(thread_id)
    values = notes.status[id_at + 16 + 8 * machine.word :]
    sp = _number(values, known.sp * known.size, known.size, machine)
    tag_ctl = None if notes.tagging is None else _number(notes.tagging, 0, 8, machine)
    general = [
        (name, _number(values, number * known.size, known.size, machine))
        for name, number in known.general
    ]
    pointer = _thread_pointer(values, known, notes.tls, machine)
    registers = tuple((name, value) for name, value in general if value is not None)
    return Thread(thread_id, None, pointer, sp, tag_ctl, registers)


def _stop(notes: _ThreadNotes, machine: Machine) -> Stop:
    """Return the signal: pr_cursig, or si_signo; and of a fault where it was, si_addr."""
    known = REGISTERS.get(machine.abi)
    pc = None
    if known is not None and known.pc is not None:
        values = notes.status[32 + 10 * machine.word :]
        pc = _number(values, known.pc * known.size, known.size, machine)
    signal = _number(notes.status, 12, 2, machine) or 0
    address = None
    if notes.siginfo is not None:
        signal = _number(notes.siginfo, 0, 4, machine) or signal
        if signal in FAULTS:
            address = _number(notes.siginfo, 8 + machine.word, machine.word, machine)
    return Stop(signal, address, pc)


def _thread_pointer(
    values: memoryview, known: Registers, tls: memoryview | None, machine: Machine
) -> int | None:
    if known.tp is not None:
        return _number(values, known.tp * known.size, known.size, machine) or None
    if machine.abi == "s390x":
        high = _number(values, ACCESS_REGISTERS_OF_S390X, 4, machine)
        low = _number(values, ACCESS_REGISTERS_OF_S390X + 4, 4, machine)
        return None if high is None or low is None else (high << 32 | low) or None
    if tls is None:
        return None
    if machine.abi == "i386":
        gs = _number(values, GS_OF_I386 * 4, 4, machine)
        return None if gs is None else _base_of_selector(tls, gs, machine)
    return _number(tls, 0, machine.word, machine) or None


def _base_of_selector(tls: memoryview, selector: int, machine: Machine) -> int | None:
    """Return the base of a segment by NT_386_TLS, an array of struct user_desc of 16 bytes."""
    for at in range(0, min(len(tls), 16 * 16), 16):
        if _number(tls, at, 4, machine) == (selector & 0xFFFF) >> 3:
            return _number(tls, at + 4, 4, machine) or None
    return None


def _files(desc: memoryview, machine: Machine, warnings: list[str]) -> list[MappedFile]:
    """Read NT_FILE: count, page size, (start, end, offset in pages) each, then the names."""
    word = machine.word
    count, page = _number(desc, 0, word, machine), _number(desc, word, word, machine)
    rows_at, names_at = 2 * word, 2 * word + 3 * word * (count or 0)
    if count is None or page is None or names_at > len(desc) or len(desc) > MOST_FILE_NOTE:
        warnings.append("the core's list of mapped files (NT_FILE) is damaged; it is not used")
        return []
    form = struct.Struct(_prefix(machine) + ("QQQ" if word == 8 else "III"))
    names = bytes(desc[names_at:]).split(b"\0", count)[:count]
    rows = form.iter_unpack(desc[rows_at:names_at])
    files = [
        MappedFile(start, end, offset * page, name.decode("utf-8", "surrogateescape"))
        for (start, end, offset), name in zip(rows, names)
        if start < end and name
    ]
    if len(files) < count:
        warnings.append(
            f"the core's list of mapped files (NT_FILE) has {count} entries, {len(files)} are whole"
        )
    return sorted(files)

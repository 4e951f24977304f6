"""Makes ELF cores by hand, of both word sizes and byte orders."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from heapglass.targets import CoreSource, OpenOptions, open_target

PT_LOAD, PT_NOTE = 1, 4
NT_PRSTATUS, NT_PRPSINFO, NT_AUXV, NT_FILE = 1, 3, 6, 0x46494C45
NT_386_TLS, NT_ARM_TLS = 0x200, 0x401
ET_EXEC, ET_CORE = 2, 4
MACHINES = {  # abi: (e_machine, word, order)
    "x86_64": (62, 8, "little"),
    "x32": (62, 4, "little"),
    "i386": (3, 4, "little"),
    "aarch64": (183, 8, "little"),
    "arm": (40, 4, "little"),
    "riscv64": (243, 8, "little"),
    "ppc64le": (21, 8, "little"),
    "ppc64": (21, 8, "big"),
    "ppc": (20, 4, "big"),
    "s390x": (22, 8, "big"),
}
SHAPES = ("x86_64", "i386", "s390x", "ppc")  # each word size in each byte order
PAGE = 0x1000


@dataclass(frozen=True)
class Load:
    """A PT_LOAD to be."""

    start: int
    data: bytes = b""
    size: int | None = None  # bytes in memory; None: as many as the data
    perms: str = "rw-"


@dataclass
class Core:
    """A core to be."""

    abi: str = "x86_64"
    loads: Sequence[Load] = ()
    notes: bytes = b""
    type: int = ET_CORE
    count_in_section: bool = False  # PN_XNUM
    offsets: dict[int, int] = field(default_factory=dict)  # where loads were put, by start

    @property
    def word(self) -> int:
        return MACHINES[self.abi][1]

    @property
    def prefix(self) -> str:
        return "<" if MACHINES[self.abi][2] == "little" else ">"

    def pack(self, form: str, *values: int) -> bytes:
        """Pack numbers; W in the form is a word."""
        return struct.pack(self.prefix + form.replace("W", "Q" if self.word == 8 else "I"), *values)

    def note(self, kind: int, desc: bytes, name: bytes = b"CORE\0") -> bytes:
        return self.pack("III", len(name), len(desc), kind) + padded(name) + padded(desc)

    def status(self, thread: int, registers: bytes) -> bytes:
        """Return an NT_PRSTATUS note."""
        desc = bytes(16) + self.pack("WWIIII", 0, 0, thread, 1, 1, 1) + bytes(8 * self.word)
        return self.note(NT_PRSTATUS, desc + registers + bytes(8))

    def psinfo(self, pid: int) -> bytes:
        ids = {8: 8 + 8 + 8, 4: 4 + 4 + 4}[self.word]
        return self.note(NT_PRPSINFO, bytes(ids) + self.pack("IIII", pid, 1, 1, 1) + bytes(96))

    def auxv(self, *pairs: tuple[int, int]) -> bytes:
        words = b"".join(self.pack("WW", *pair) for pair in (*pairs, (0, 0)))
        return self.note(NT_AUXV, words)

    def files(self, *rows: tuple[int, int, int, str], count: int | None = None) -> bytes:
        """Return an NT_FILE note of rows (start, end, offset in bytes, path)."""
        desc = self.pack("WW", len(rows) if count is None else count, PAGE)
        desc += b"".join(self.pack("WWW", s, e, offset // PAGE) for s, e, offset, _ in rows)
        desc += b"".join(path.encode() + b"\0" for *_, path in rows)
        return self.note(NT_FILE, desc)

    def _phdr(
        self, kind: int, flags: int, offset: int, start: int, filesz: int, memsz: int
    ) -> bytes:
        if self.word == 8:
            return self.pack("IIQQQQQQ", kind, flags, offset, start, 0, filesz, memsz, 4)
        return self.pack("IIIIIIII", kind, offset, start, 0, filesz, memsz, flags, 4)

    def build(self) -> bytes:
        """Return the core's bytes: headers, notes, then the loads, in the order given."""
        ehsize, phsize, shsize = (64, 56, 64) if self.word == 8 else (52, 32, 40)
        count = len(self.loads) + 1
        shoff = ehsize + phsize * count if self.count_in_section else 0
        start = ehsize + phsize * count + (shsize if self.count_in_section else 0)
        headers = bytearray(self._phdr(PT_NOTE, 4, start, 0, len(self.notes), 0))
        body = bytearray(self.notes)
        for load in self.loads:
            flags = sum(bit for c, bit in zip("rwx", (4, 2, 1)) if c in load.perms)
            offset = start + len(body)
            self.offsets[load.start] = offset
            size = len(load.data) if load.size is None else load.size
            headers += self._phdr(PT_LOAD, flags, offset, load.start, len(load.data), size)
            body += load.data
        section = b""
        if self.count_in_section:
            wide = "IIQQQQIIQQ" if self.word == 8 else "IIIIIIIIII"
            section = self.pack(wide, 0, 0, 0, 0, 0, 0, 0, count, 0, 0)
        return self.file_header(0xFFFF if section else count, shoff) + headers + section + body

    def file_header(self, phnum: int, shoff: int) -> bytes:
        machine, word, order = MACHINES[self.abi]
        ident = b"\x7fELF" + bytes([word // 4, 1 if order == "little" else 2, 1]) + bytes(9)
        ehsize, phsize, shsize = (64, 56, 64) if word == 8 else (52, 32, 40)
        rest = self.pack(
            "HHIWWWIHHHHHH",
            self.type,
            machine,
            1,
            0,
            ehsize,
            shoff,
            0,
            ehsize,
            phsize,
            phnum,
            shsize,
            bool(shoff),
            0,
        )
        return ident + rest


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def open_bytes(data: bytes, folder: Path, options: OpenOptions | None = None) -> CoreSource:
    """Write a core into a folder and open it."""
    path = folder / "core"
    path.write_bytes(data)
    source = open_target(str(path), options)
    assert isinstance(source, CoreSource)
    return source

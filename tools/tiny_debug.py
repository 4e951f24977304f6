"""Tiny debug files: what a separate debug file of a libc says of the allocator, in a kilobyte.

Such a file keeps the build id, the program headers for loading and for thread-local storage, and a
.symtab of the few symbols that heapglass looks for. So the way from a core over the build id to the
symbols can be tested without the C library and without its debug package.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from elftools.elf.elffile import ELFFile

NAMES = (
    *("main_arena", "mp_", "tcache", "thread_arena", "tcache_key", "global_max_fast"),
    *("perturb_byte", "narenas", "free_list", "__tcache_dummy"),
)
SEGMENTS = {"PT_LOAD": 1, "PT_TLS": 7}
KINDS = {"STT_OBJECT": 1, "STT_TLS": 6}  # all of them are local: st_info is the type
MACHINES = {"EM_386": 3, "EM_X86_64": 62}
NOTE = ".note.gnu.build-id"
SHT_NOBITS = 8
SECTION_TYPES = {NOTE: 7, ".symtab": 2, ".strtab": 3, ".shstrtab": 3}
WRITE, ALLOC, TLS = 1, 2, 0x400


class Symbol(NamedTuple):
    """A row of .symtab."""

    name: str
    value: int
    size: int
    kind: int
    section: str


class Libc(NamedTuple):
    """What is kept of a C library."""

    wide: bool  # ELFCLASS64
    machine: int  # e_machine
    build_id: str
    segments: tuple[Mapping[str, Any], ...]
    symbols: tuple[Symbol, ...]

    def thread_offset(self, name: str) -> int:
        """Where a thread-local variable lies in the library's TLS segment."""
        return next(s.value for s in self.symbols if s.name == name and s.kind == KINDS["STT_TLS"])


def debug_file(debug_dir: Path, build_id: str) -> Path:
    """Where a separate debug file lies under a debug directory."""
    return debug_dir / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"


def read_libc(library: Path, debug_dir: Path) -> Libc:
    """Read a library's program headers and the wanted symbols of its debug file."""
    with library.open("rb") as stream:
        elf = ELFFile(stream)
        build_id = next(elf.get_section_by_name(NOTE).iter_notes())["n_desc"]
        segments = tuple(dict(s.header) for s in elf.iter_segments() if s["p_type"] in SEGMENTS)
        wide, machine = elf.elfclass == 64, MACHINES[elf.header["e_machine"]]
    with debug_file(debug_dir, build_id).open("rb") as stream:
        return Libc(wide, machine, build_id, segments, tuple(_symbols(ELFFile(stream))))


def _symbols(elf: Any) -> Iterable[Symbol]:
    for row in elf.get_section_by_name(".symtab").iter_symbols():
        if row.name in NAMES:
            home = elf.get_section(row["st_shndx"]).name
            kind = KINDS[row["st_info"]["type"]]
            yield Symbol(row.name, row["st_value"], row["st_size"], kind, home)


def tiny_debug(libc: Libc) -> bytes:
    """The bytes of the file."""
    homes = sorted({symbol.section for symbol in libc.symbols})
    names = [NOTE, *homes, ".symtab", ".strtab", ".shstrtab"]
    strings, shstrings = _strings(s.name for s in libc.symbols), _strings(names)
    symtab = _symtab(libc, names, strings)
    contents = {NOTE: _note(libc), ".symtab": symtab, ".strtab": strings, ".shstrtab": shstrings}

    offset = (64 if libc.wide else 52) + len(libc.segments) * (56 if libc.wide else 32)
    body, headers = b"", [_section(libc, 0, "", 0, b"", 0)]
    for name in names:
        body += bytes(-(offset + len(body)) % 8)
        content = contents.get(name, b"")
        link = names.index(".strtab") + 1 if name == ".symtab" else 0
        at = shstrings.index(f"\0{name}\0".encode()) + 1
        headers.append(_section(libc, at, name, offset + len(body), content, link))
        body += content
    body += bytes(-(offset + len(body)) % 8)
    segments = b"".join(_segment(libc, segment) for segment in libc.segments)
    return _head(libc, offset + len(body), len(headers)) + segments + body + b"".join(headers)


def _strings(names: Iterable[str]) -> bytes:
    return b"\0" + b"".join(name.encode() + b"\0" for name in names)


def _note(libc: Libc) -> bytes:
    build_id = bytes.fromhex(libc.build_id)
    return struct.pack("<3I4s", 4, len(build_id), 3, b"GNU") + build_id


def _symtab(libc: Libc, names: list[str], strings: bytes) -> bytes:
    rows = [bytes(24 if libc.wide else 16)]
    for name, value, size, kind, section in libc.symbols:
        at = strings.index(f"\0{name}\0".encode()) + 1
        home = names.index(section) + 1
        if libc.wide:
            rows.append(struct.pack("<IBBHQQ", at, kind, 0, home, value, size))
        else:
            rows.append(struct.pack("<IIIBBH", at, value, size, kind, 0, home))
    return b"".join(rows)


def _head(libc: Libc, section_headers: int, sections: int) -> bytes:
    sizes = (64, 56, 64) if libc.wide else (52, 32, 40)
    identity = b"\x7fELF" + bytes([2 if libc.wide else 1, 1, 1]) + bytes(9)
    kind = struct.pack("<HHI", 3, libc.machine, 1)
    places = struct.pack("<3Q" if libc.wide else "<3I", 0, sizes[0], section_headers)
    counts = (0, sizes[0], sizes[1], len(libc.segments), sizes[2], sections, sections - 1)
    return identity + kind + places + struct.pack("<I6H", *counts)


def _segment(libc: Libc, segment: Mapping[str, Any]) -> bytes:
    kind, flags = SEGMENTS[segment["p_type"]], segment["p_flags"]
    vaddr, paddr, memsz, align = (segment[f"p_{k}"] for k in ("vaddr", "paddr", "memsz", "align"))
    if libc.wide:
        return struct.pack("<2I6Q", kind, flags, 0, vaddr, paddr, 0, memsz, align)
    return struct.pack("<8I", kind, 0, vaddr, paddr, 0, memsz, flags, align)


def _section(libc: Libc, at: int, name: str, offset: int, content: bytes, link: int) -> bytes:
    # Where symbols lie there is a section without bytes; the null section is all zero.
    kind = SECTION_TYPES.get(name, SHT_NOBITS) if name else 0
    entry = (24 if libc.wide else 16) if name == ".symtab" else 0
    info = len(content) // entry if entry else 0  # all symbols are local
    align = 0 if not name else 4 if name == NOTE else 8
    values = (at, kind, _flags(name), 0, offset, len(content), link, info, align, entry)
    return struct.pack("<2I4Q2I2Q" if libc.wide else "<10I", *values)


def _flags(name: str) -> int:
    if name in (".tdata", ".tbss"):
        return ALLOC | WRITE | TLS
    if name in (".data", ".bss"):
        return ALLOC | WRITE
    return ALLOC if name in (NOTE, ".rodata") else 0

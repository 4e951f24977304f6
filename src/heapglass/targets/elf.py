"""ELF headers, program headers, notes and sections, out of bytes that nobody vouches for.

pyelftools reads the file header and names its numbers. Tables are read in bulk here: a core may
have a hundred thousand segments, a debug file as many symbols. Every offset and count is checked
against the bytes at hand first; what does not fit is `BadElf`, with the reason as its text.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from mmap import mmap
from typing import Any, NamedTuple, Union, cast

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.construct import ConstructError
from elftools.elf.structs import ELFStructs

from ..errors import HeapglassError
from ..source import Machine

Bytes = Union[bytes, bytearray, memoryview, mmap]

MAGIC = b"\x7fELF"
MOST_SEGMENTS = 1 << 21  # the kernel's limit of mappings is 65530 unless somebody raised it
MOST_SECTIONS = 1 << 17
MOST_NOTES = 1 << 20  # a thread has about eight
PN_XNUM = 0xFFFF  # the true number is in sh_info of section 0
PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_TLS = 1, 2, 4, 7
SHT_NOBITS = 8
NT_GNU_BUILD_ID = 3
PAGE = 4096

_ABIS = {
    ("EM_X86_64", 8, "little"): "x86_64",
    ("EM_X86_64", 4, "little"): "x32",
    ("EM_386", 4, "little"): "i386",
    ("EM_AARCH64", 8, "little"): "aarch64",
    ("EM_ARM", 4, "little"): "arm",
    ("EM_RISCV", 8, "little"): "riscv64",
    ("EM_PPC64", 8, "little"): "ppc64le",
    ("EM_PPC64", 8, "big"): "ppc64",
    ("EM_S390", 8, "big"): "s390x",
}


class BadElf(HeapglassError):
    """Bytes that are not the ELF that was expected; the text is a reason, without a file name."""


class Header(NamedTuple):
    """The file header."""

    machine: Machine
    type: str  # "ET_CORE", "ET_DYN", …
    entry: int
    phoff: int
    phentsize: int
    phnum: int  # as written: PN_XNUM is not looked up yet
    shoff: int
    shentsize: int
    shnum: int
    shstrndx: int

    @property
    def prefix(self) -> str:
        """The byte order, in the words of `struct`."""
        return "<" if self.machine.order == "little" else ">"


class Segment(NamedTuple):
    """A program header."""

    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int
    align: int

    @property
    def perms(self) -> str:
        """As "r-x"."""
        return "".join(c if self.flags & bit else "-" for c, bit in zip("rwx", (4, 2, 1)))


class Section(NamedTuple):
    """A section header, with its name looked up."""

    name: str
    type: int
    addr: int
    offset: int
    size: int
    link: int
    entsize: int


class Note(NamedTuple):
    """A note: who defines the type, the type, and its bytes."""

    name: bytes
    type: int
    desc: memoryview


def read_header(data: Bytes) -> Header:
    """Read the header at the start of *data*.

    :raises BadElf: if it is not an ELF header, or is cut off.
    """
    start = bytes(data[:64])
    if start[:4] != MAGIC:
        raise BadElf("not an ELF file")
    if len(start) < 52 or start[4] not in (1, 2) or start[5] not in (1, 2):
        raise BadElf("its ELF header is damaged or cut off")
    word, little = 4 * start[4], start[5] == 1
    structs = ELFStructs(little_endian=little, elfclass=8 * word)
    structs.create_basic_structs()
    try:
        raw = struct_parse(structs.Elf_Ehdr, io.BytesIO(start), 0)
    except (ELFError, ConstructError) as error:
        raise BadElf(f"its ELF header is damaged or cut off ({type(error).__name__})") from error
    return _header(cast("dict[str, Any]", raw), word, "little" if little else "big")


def _header(raw: dict[str, Any], word: int, order: str) -> Header:
    name = str(raw["e_machine"])  # an int where pyelftools has no name
    plain = name[3:].lower() if name.startswith("EM_") else f"machine-{name}"
    abi = _ABIS.get((name, word, order), plain)
    return Header(
        machine=Machine(abi, word, order),
        type=str(raw["e_type"]),
        entry=raw["e_entry"],
        phoff=raw["e_phoff"],
        phentsize=raw["e_phentsize"],
        phnum=raw["e_phnum"],
        shoff=raw["e_shoff"],
        shentsize=raw["e_shentsize"],
        shnum=raw["e_shnum"],
        shstrndx=raw["e_shstrndx"],
    )


def read_segments(data: Bytes, header: Header) -> list[Segment]:
    """Read the program headers.

    :raises BadElf: if the table is cut off, or its size makes no sense.
    """
    count = header.phnum
    if count == PN_XNUM and header.shoff:
        count = _section_zero(data, header)[3]
    if not count:
        return []
    table = _table(data, header.phoff, header.phentsize, count, "program headers", MOST_SEGMENTS)
    if header.machine.word == 8:
        _at_least(header.phentsize, 56, "program headers")
        rows = struct.Struct(header.prefix + f"IIQQ8xQQQ{header.phentsize - 56}x")
        return [Segment(*row) for row in rows.iter_unpack(table)]
    _at_least(header.phentsize, 32, "program headers")
    rows = struct.Struct(header.prefix + f"III4xIIII{header.phentsize - 32}x")
    return [
        Segment(kind, flags, offset, vaddr, filesz, memsz, align)
        for kind, offset, vaddr, filesz, memsz, flags, align in rows.iter_unpack(table)
    ]


def _at_least(size: int, needed: int, what: str) -> None:
    if size < needed:
        raise BadElf(f"its {what} have {size} bytes each, expected {needed}")


def _table(data: Bytes, offset: int, size: int, count: int, what: str, most: int) -> bytes:
    """Return the bytes of a table, checked against the limits and the bytes at hand."""
    if count > most:
        raise BadElf(f"it has {count} {what}, more than {most}")
    if offset + size * count > len(data):
        raise BadElf(f"its {count} {what} at offset {offset:#x} are cut off or damaged")
    return bytes(data[offset : offset + size * count])


def _section_zero(data: Bytes, header: Header) -> tuple[int, int, int, int]:
    """Return size, link, (type), info of section 0, where counts above 16 bits are kept."""
    word = header.machine.word
    _at_least(header.shentsize, 64 if word == 8 else 40, "section headers")
    row = _table(data, header.shoff, header.shentsize, 1, "section headers", 1)
    if word == 8:
        kind, size, link, info = struct.unpack_from(header.prefix + "4xI24xQII", row)
    else:
        kind, size, link, info = struct.unpack_from(header.prefix + "4xI12xIII", row)
    return size, link, kind, info


def read_sections(data: Bytes, header: Header) -> list[Section]:
    """Read the section headers with their names; empty if the file has none.

    :raises BadElf: if the table is cut off, or its size makes no sense.
    """
    if not header.shoff:
        return []
    size, link, _kind, _info = _section_zero(data, header)
    count = header.shnum or size
    names_at = link if header.shstrndx == 0xFFFF else header.shstrndx
    table = _table(data, header.shoff, header.shentsize, count, "section headers", MOST_SECTIONS)
    wide = header.machine.word == 8
    if wide:
        form = f"II8xQQQI4x8xQ{header.shentsize - 64}x"
    else:
        form = f"II4xIIII8xI{header.shentsize - 40}x"
    rows = list(struct.Struct(header.prefix + form).iter_unpack(table))
    names = b""
    if names_at < len(rows):
        _, _, _, offset, length, _, _ = rows[names_at]
        names = bytes(data[offset : offset + min(length, 1 << 24)])
    return [Section(_string(names, row[0]), *row[1:]) for row in rows]


def _string(table: bytes, at: int) -> str:
    end = table.find(b"\0", at, at + 256)
    return table[at:end].decode("ascii", "replace") if end >= 0 else ""


def read_notes(
    data: memoryview, prefix: str, align: int = 4, most: int = MOST_NOTES
) -> Iterator[Note]:
    """Yield the notes of a note segment or section, as far as they are whole.

    *align* is that of the segment; only 8 is not taken as 4 (gABI and what is done).
    """
    step = 8 if align == 8 else 4
    at, head = 0, struct.Struct(prefix + "III")
    for _ in range(most):
        if at + 12 > len(data):
            return
        name_size, size, kind = head.unpack_from(data, at)
        start = _up(at + 12 + name_size, step)
        if start + size > len(data):
            return
        name = bytes(data[at + 12 : at + 12 + min(name_size, 32)]).rstrip(b"\0")
        yield Note(name, kind, data[start : start + size])
        at = _up(start + size, step)


def _up(value: int, step: int) -> int:
    return (value + step - 1) & -step


def build_id_of_notes(data: memoryview, prefix: str, align: int) -> str:
    """Return the build id that a note segment has, as hex; empty if none."""
    for note in read_notes(data, prefix, align, 256):
        if note.name == b"GNU" and note.type == NT_GNU_BUILD_ID and 0 < len(note.desc) <= 64:
            return bytes(note.desc).hex()
    return ""


def build_id_of_file(data: Bytes) -> str:
    """Return a file's build id from its note segments or sections, as hex; empty if it has none.

    :raises BadElf: if it is not an ELF file.
    """
    header = read_header(data)
    places = [
        (s.offset, s.filesz, s.align) for s in read_segments(data, header) if s.type == PT_NOTE
    ]
    if not places:  # a separate debug file keeps the section; some have no segments
        sections = read_sections(data, header)
        places = [(s.offset, s.size, 4) for s in sections if s.name == ".note.gnu.build-id"]
    for offset, size, align in places:
        note = memoryview(bytes(data[offset : offset + min(size, 1 << 16)]))
        found = build_id_of_notes(note, header.prefix, align)
        if found:
            return found
    return ""

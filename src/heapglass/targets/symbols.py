"""Symbols by name, out of symbol tables with tens of thousands of entries, without an index.

The name is searched in the string table's bytes; where it stands are the only numbers that
`st_name` can have, and that column is searched for them.
"""

from __future__ import annotations

import lzma
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .elf import SHT_NOBITS, BadElf, Bytes, Header, Section, read_header, read_sections

BLOCK = 1 << 18  # symbols that are looked at in one piece
MOST_NAMES = 1 << 12  # places of the string table that are believed to be one name
MOST_NAME = 1 << 12  # bytes of a name
MOST_FOUND = 64  # definitions of one name in one table
MOST_MINI = 256 << 20  # bytes that .gnu_debugdata may unpack to
STT_SECTION, STT_FILE, STT_TLS = 3, 4, 6
ENTRY_SIZE = {8: 24, 4: 16}


class Entry(NamedTuple):
    """A defined symbol of a table."""

    value: int
    size: int
    type: int


class SymbolTable:
    """A symbol table and its strings, as bytes."""

    def __init__(self, symbols: memoryview, names: Bytes, span: tuple[int, int], header: Header):
        self._step = ENTRY_SIZE[header.machine.word]
        self._symbols = symbols[: len(symbols) // self._step * self._step]
        self._names = names
        self._span = span  # where in *names* the strings are
        self._word = header.machine.word
        self._swapped = header.machine.order != sys.byteorder
        form = "IBBHQQ" if self._word == 8 else "IIIBBH"
        self._form = struct.Struct(header.prefix + form)

    def find(self, name: str) -> list[Entry]:
        """Return the definitions of *name*; versions ("name@VERSION") count as the name."""
        wanted = self._places(name)
        return [entry for at in self._rows(wanted) for entry in self._entry(at)][:MOST_FOUND]

    def addresses(self, most: int) -> Iterator[tuple[int, int]]:
        """Yield value and offset of the defined symbols that have an address; of *most* at most."""
        whole = self._symbols[: most * self._step]
        wide = self._word == 8
        for number, fields in enumerate(self._form.iter_unpack(whole)):
            info, section, value = (
                (fields[1], fields[3], fields[4]) if wide else (*fields[3:6:2], fields[1])
            )
            if section and value and info & 15 not in (STT_SECTION, STT_FILE, STT_TLS):
                yield value, number * self._step

    def entry(self, at: int) -> Entry | None:
        """Return the symbol at an offset, None if it is not a defined one."""
        return next(self._entry(at), None)

    def name_at(self, at: int) -> str:
        """Return the name of the symbol at an offset, without its version."""
        low, high = self._span
        start = low + int(self._form.unpack_from(self._symbols, at)[0])
        end = min(start + MOST_NAME, high)
        stop = _find(self._names, b"\0", start, end) if start < high else start
        raw = bytes(self._names[start : end if stop < 0 else stop])
        return raw.partition(b"@")[0].decode("utf-8", "replace")

    def _places(self, name: str) -> set[int]:
        """Return where the name ends a string, or stands before a version."""
        low, high = self._span
        raw, found = name.encode(), set[int]()
        if not raw:
            return found
        at = _find(self._names, raw, low, high)
        while at >= 0 and len(found) < MOST_NAMES:
            if self._names[at + len(raw) : at + len(raw) + 1] in (b"\0", b"@"):
                found.add(at - low)
            at = _find(self._names, raw, at + 1, high)
        return found

    def _rows(self, wanted: set[int]) -> Iterator[int]:
        """Yield the offsets of the entries whose st_name is one of *wanted*."""
        if not wanted:
            return
        if self._swapped:  # the few numbers wanted, rather than the column
            wanted = {struct.unpack("<I", struct.pack(">I", value))[0] for value in wanted}
        for low in range(0, len(self._symbols), BLOCK * self._step):
            block = self._symbols[low : low + BLOCK * self._step]
            column = block.cast("I")[:: self._step // 4].tolist()
            for number in _numbers(column, wanted):
                yield low + number * self._step

    def _entry(self, at: int) -> Iterator[Entry]:
        if self._word == 8:
            _, info, _, section, value, size = self._form.unpack_from(self._symbols, at)
        else:
            _, value, size, info, _, section = self._form.unpack_from(self._symbols, at)
        if section and info & 15 not in (STT_SECTION, STT_FILE):
            yield Entry(value, size, info & 15)


def _find(data: Bytes, pattern: bytes, low: int, high: int) -> int:
    assert not isinstance(data, memoryview)
    return data.find(pattern, low, high)


def _numbers(values: list[int], wanted: set[int]) -> Iterator[int]:
    """Yield the indices of the elements that are in a set."""
    if len(wanted) > 4:
        yield from [n for n, value in enumerate(values) if value in wanted]
        return
    for value in wanted:
        at = -1
        for _ in range(values.count(value)):
            at = values.index(value, at + 1)
            yield at


class NamedTable(NamedTuple):
    """A symbol table and the trust it deserves."""

    how: str  # "symbol" or "dynsym"
    table: SymbolTable


def read_tables(data: Bytes, mini: bool = True) -> list[NamedTable]:
    """Return the symbol tables of an ELF file, .symtab before .dynsym; empty if there are none.

    *mini*: look into .gnu_debugdata too, the compressed symbol table of some distributions.
    """
    try:
        header = read_header(data)
        sections = read_sections(data, header)
    except BadElf:
        return []
    tables = list(_section_tables(data, header, sections, ".symtab", "symbol"))
    if not tables and mini:
        tables = _mini_tables(data, sections)
    return tables + list(_section_tables(data, header, sections, ".dynsym", "dynsym"))


def _section_tables(
    data: Bytes, header: Header, sections: Sequence[Section], name: str, how: str
) -> Iterator[NamedTable]:
    for section in sections:
        if section.name != name or section.type == SHT_NOBITS or section.link >= len(sections):
            continue
        names = sections[section.link]
        if names.type == SHT_NOBITS or section.entsize != ENTRY_SIZE[header.machine.word]:
            continue
        symbols = memoryview(data)[section.offset : section.offset + section.size]
        span = (min(names.offset, len(data)), min(names.offset + names.size, len(data)))
        yield NamedTable(how, SymbolTable(symbols, data, span, header))


def _mini_tables(data: Bytes, sections: Sequence[Section]) -> list[NamedTable]:
    packed = next((s for s in sections if s.name == ".gnu_debugdata"), None)
    if packed is None or packed.type == SHT_NOBITS:
        return []
    try:
        unpacked = lzma.LZMADecompressor(memlimit=MOST_MINI).decompress(
            data[packed.offset : packed.offset + packed.size], MOST_MINI
        )
    except (lzma.LZMAError, EOFError, MemoryError):
        return []
    return [found for found in read_tables(unpacked, mini=False) if found.how == "symbol"]

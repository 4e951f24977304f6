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

from ..memory import Memory
from ..source import Module, Symbol
from .elf import SHT_NOBITS, BadElf, Bytes, Header, Section, read_header, read_sections
from .files import FileFinder
from .modules import ModuleFinder

BLOCK = 1 << 18  # symbols that are looked at in one piece
MOST_NAMES = 1 << 12  # places of the string table that are believed to be one name
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


class SymbolFinder:
    """Finds symbols and bytes in the files of a target's modules; *memory* is asked after them."""

    def __init__(self, modules: ModuleFinder, files: FileFinder, memory: Memory) -> None:
        self._modules = modules
        self._files = files
        self._memory = memory
        self._tables: dict[tuple[str, str], list[NamedTable]] = {}

    def symbols(self, name: str) -> list[Symbol]:
        """Return every definition of *name*, the most trusted first.

        C libraries and the program are asked; the other modules only if those do not know it, and
        libc_malloc_debug, which has an unused main_arena of its own, after all others.
        """
        ranked = self._modules.ranked()
        likely = [m for m in ranked if self._modules.rank(m) < 2]
        found = [symbol for module in likely for symbol in self.of_module(module, name)]
        for module in ranked[len(likely) :] if not found else ():
            found += self.of_module(module, name)
        return sorted(found, key=lambda symbol: symbol.how == "dynsym")

    def of_module(self, module: Module, name: str) -> list[Symbol]:
        """Return the definitions of *name* in one module, the most trusted first."""
        found: dict[tuple[int, bool], Symbol] = {}
        for how, table in self._tables_of(module):
            for entry in table.find(name):
                tls = entry.type == STT_TLS
                value = entry.value if tls else entry.value + module.base
                symbol = Symbol(name, value, entry.size, how, module.path, tls)
                found.setdefault((value, tls), symbol)
        return list(found.values())

    def _tables_of(self, module: Module) -> list[NamedTable]:
        key = (module.file, module.debug_file)
        if key not in self._tables:
            tables: list[NamedTable] = []
            for file in key:
                data = self._files.open(file) if file else None
                tables += read_tables(data) if data is not None else []
            self._tables[key] = sorted(tables, key=lambda table: table.how == "dynsym")
        return self._tables[key]

    def file_bytes(self, module: Module, pattern: bytes, limit: int) -> bytes | None:
        """Return up to *limit* bytes of a module, from *pattern* on: of the file, or as loaded."""
        data = self._files.open(module.file) if module.file else None
        if data is not None:
            at = data.find(pattern)
            if at >= 0:
                return data[at : at + limit]
        return self._modules.search(module, pattern, limit, self._memory)

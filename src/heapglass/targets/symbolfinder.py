"""Finds symbols and bytes in the files of a target's modules."""

from __future__ import annotations

from ..memory import Memory
from ..source import Module, Symbol
from .files import FileFinder
from .modules import ModuleFinder
from .nearest import Nearest
from .symbols import STT_TLS, NamedTable, SymbolTable, read_tables


class SymbolFinder:
    """Finds symbols and bytes in the files of a target's modules; *memory* is asked after them."""

    def __init__(self, modules: ModuleFinder, files: FileFinder, memory: Memory) -> None:
        self._modules = modules
        self._files = files
        self._memory = memory
        self._tables: dict[tuple[str, str], list[NamedTable]] = {}
        self._searched: dict[tuple[Module, bytes, int], bytes | None] = {}
        self._nearest: dict[SymbolTable, Nearest] = {}

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

    def at(self, address: int) -> Symbol | None:
        """Return the symbol that an address lies in, of the most trusted table; None if none."""
        module = self._modules.module_at(address)
        if module is None:
            return None
        for how, table in self._tables_of(module):
            found = self._index(table).find(address - module.base)
            if found is not None:
                name, value, size = found
                return Symbol(name, value + module.base, size, how, module.path)
        return None

    def _index(self, table: SymbolTable) -> Nearest:
        index = self._nearest.get(table)
        if index is None:
            index = self._nearest[table] = Nearest(table)
        return index

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
        key = module, pattern, limit
        if key not in self._searched:
            self._searched[key] = self._modules.search(*key, self._memory)
        return self._searched[key]

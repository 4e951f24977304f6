"""The loaded files that may hold malloc, the likeliest first, and where their variables can be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..errors import HeapglassError
from ..memory import Region
from ..source import Module, Part, Source, Symbol
from .release import Banner, read_banner

MOST_SEARCHED = 64 << 20  # bytes of one writable part that are searched; a .data is far smaller
_LIBC = re.compile(r"(^|/)libc[.-][^/]*so[^/]*$")
_LIBC_MALLOC_DEBUG = re.compile(r"(^|/)libc_malloc_debug\.so[^/]*$")


class Library(NamedTuple):
    """A loaded file, or (module None) all writable memory where no file is known."""

    module: Module | None
    parts: tuple[Part, ...]
    writable: tuple[tuple[int, int], ...]  # ranges that are searched, ascending
    likely: bool  # whether it is a C library by its name, or the program itself

    @property
    def path(self) -> str:
        """As the target names it; empty for memory without a file."""
        return self.module.path if self.module else ""

    def holds(self, address: int) -> bool:
        """Whether an address lies in what was loaded of it."""
        return any(start <= address < end for start, end in self.writable)

    def owns(self, symbol: Symbol) -> bool:
        """Whether a symbol is this one's: one file may be loaded twice (dlmopen)."""
        if self.writable:
            return self.holds(symbol.value)
        return bool(symbol.module) and symbol.module == self.path

    def has(self, symbol: Symbol) -> bool:
        """Whether a symbol is this one's, also one of read-only data."""
        loaded = any(part.start <= symbol.value < part.end for part in self.of_kind("load"))
        return loaded or self.owns(symbol)

    def of_kind(self, kind: str) -> list[Part]:
        """Return its parts of a kind: "load", "tls", "dynamic"."""
        return [part for part in self.parts if part.kind == kind]


def libraries(source: Source) -> list[Library]:
    """Return what may hold malloc: C libraries by name, the program, all others."""
    regions = source.memory.regions()
    entry = source.auxv().get(9)  # AT_ENTRY
    ranked = []
    modules = list(source.modules())
    for number, module in enumerate(modules):
        parts = tuple(source.parts(module))
        rank = _rank(module, parts, entry, alone=len(modules) == 1)
        found = Library(module, parts, tuple(_writable(module, parts, regions)), rank < 2)
        ranked.append((rank, number, found))
    return [library for _, _, library in sorted(ranked, key=lambda row: row[:2])]


def _rank(module: Module, parts: Sequence[Part], entry: int | None, alone: bool) -> int:
    if _LIBC.search(module.path):
        return 0
    if _LIBC_MALLOC_DEBUG.search(module.path):
        return 3  # it has a main_arena of its own, which is not the one in use
    is_program = alone or any(part.start <= entry < part.end for part in parts if entry)
    return 1 if is_program else 2


def _writable(
    module: Module, parts: Sequence[Part], regions: Sequence[Region]
) -> Iterator[tuple[int, int]]:
    """Yield where a module's variables are: by its program headers, else by the mappings."""
    loads = [part for part in parts if part.kind == "load"]
    for part in loads:
        if "w" in part.perms:
            yield part.start, min(part.end, part.start + MOST_SEARCHED)
    if loads:
        return
    end = None
    for region in regions:
        own = region.path == module.path
        if "w" in region.perms and (own or (region.start == end and not region.path)):
            yield region.start, min(region.end, region.start + MOST_SEARCHED)
        end = region.end if own else None


def all_memory(source: Source, most: int) -> Library:
    """Return all writable memory as one library, small mappings first, up to *most* bytes."""
    regions = [r for r in source.memory.regions() if "w" in r.perms and r.end > r.start]
    chosen, left = [], most
    for region in sorted(regions, key=lambda region: region.size):
        if region.size > left:
            break
        left -= region.size
        chosen.append((region.start, region.end))
    return Library(None, (), tuple(sorted(chosen)), False)


def banner_of(source: Source, library: Library) -> Banner | None:
    """Return what a library says it is.

    :raises UnsupportedGlibc: if it is a release that the tables do not cover.
    """
    return read_banner(source, library.module) if library.module else None


def musl_of(source: Source) -> str:
    """Return the path of a loaded musl C library, empty if there is none."""
    try:
        modules = source.modules()
    except HeapglassError:
        return ""
    return next((m.path for m in modules if re.search(r"(^|/)(ld|libc)[.-]musl", m.path)), "")

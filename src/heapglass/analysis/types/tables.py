"""The class of an object by its table of virtual functions: the symbol, or the name in its RTTI."""

from __future__ import annotations

import re
from typing import NamedTuple

from ...errors import MemoryFault
from ...heap.heap import Heap
from ..demangle import demangle, of_what
from ..refs import symbol_text
from ..roots import name_of

MOST_NAME = 1024  # bytes of a type's name in RTTI
_NAME = re.compile(rb"\*?([A-Za-z0-9_]+)\0")


class Named(NamedTuple):
    """What a first word that leads into a file says of a block."""

    name: str
    how: str  # "vtable" (a symbol), "rtti", "symbol" (of something else) or "file"


def table_name(heap: Heap, table: int) -> Named:
    """Return the class whose objects begin with this word, else what it leads to."""
    near = heap.target.symbol_at(table)
    if near is not None:
        name = demangle(near.name)
        if name.startswith("vtable for "):
            return Named(of_what(name), "vtable")
    by_rtti = _rtti_name(heap, table)
    if by_rtti:
        return Named(by_rtti, "rtti")
    if near is not None:
        return Named(f"begins with a pointer to {symbol_text(near)}", "symbol")
    path, offset = name_of(heap.target.memory.regions(), table)
    place = f"{path.rpartition('/')[2]}+{offset:#x}" if path else f"{table:#x}"
    return Named(f"begins with a pointer to {place}", "file")


def _rtti_name(heap: Heap, table: int) -> str:
    """Return the class that the typeinfo before a table names; empty if none does.

    The Itanium C++ ABI: the offset to the top and the typeinfo stand before the first function; the
    typeinfo's second word leads to the mangled name.
    """
    word = heap.words.size
    try:
        if heap.words.word(table - 2 * word):
            return ""
        typeinfo = heap.words.word(table - word)
        raw = _string(heap, heap.words.word(typeinfo + word))
    except (MemoryFault, OverflowError):
        return ""
    found = _NAME.match(raw)
    if found is None:
        return ""
    mangled = found[1].decode()
    name = demangle(mangled)
    plain = re.fullmatch(r"(\d+)(\w+)", mangled)
    if name != mangled:
        return name
    return plain[2] if plain is not None and int(plain[1]) == len(plain[2]) else ""


def _string(heap: Heap, address: int) -> bytes:
    """Return bytes from an address on, as many as a name may have and can be read."""
    size = MOST_NAME
    while size:
        try:
            return heap.target.memory.read(address, size)
        except MemoryFault as fault:
            size = min(max(fault.address - address, 0), size // 2)
    return b""

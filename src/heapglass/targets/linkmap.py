"""Names of loaded files as the dynamic linker knows them, for cores that have no NT_FILE.

AT_PHDR leads to the program's PT_DYNAMIC, its DT_DEBUG to `struct r_debug`, and that to the chain
of `struct link_map` (<link.h>). The kernel leaves NT_FILE out when it would be larger than 4 MiB.
"""

from __future__ import annotations

import struct

from ..errors import MemoryFault
from ..memory import Memory
from ..source import Machine
from .elf import PT_DYNAMIC

AT_PHDR, AT_PHNUM, AT_EXECFN = 3, 5, 31
PT_PHDR = 6
DT_DEBUG = 21
MOST_MAPS = 1 << 14
MOST_TAGS = 1 << 10
MOST_PATH = 4096


def linked_names(memory: Memory, machine: Machine, auxv: dict[int, int]) -> dict[int, str]:
    """Return the paths of loaded files by load bias; what cannot be read is left out."""
    chain = _Chain(memory, machine)
    try:
        return chain.names(auxv)
    except MemoryFault:
        return {}


class _Chain:
    def __init__(self, memory: Memory, machine: Machine) -> None:
        self._memory = memory
        self._word = machine.word
        self._order = "<" if machine.order == "little" else ">"
        self._code = "Q" if machine.word == 8 else "I"

    def _words(self, address: int, count: int) -> tuple[int, ...]:
        data = self._memory.read(address, count * self._word)
        return struct.unpack(f"{self._order}{count}{self._code}", data)

    def _string(self, address: int) -> str:
        data = b""
        while b"\0" not in data and len(data) < MOST_PATH:
            here = address + len(data)
            data += self._memory.read(here, min(64, 4096 - here % 4096))
        return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    def names(self, auxv: dict[int, int]) -> dict[int, str]:
        """Walk the chain; what was read before a fault is kept."""
        found: dict[int, str] = {}
        debug = self._debug(auxv)
        here = self._words(debug + self._word, 1)[0] if debug else 0  # r_map
        for _ in range(MOST_MAPS):
            if not here:
                break
            try:
                bias, name, _dynamic, here = self._words(here, 4)  # l_addr, l_name, l_ld, l_next
                path = self._string(name)
            except MemoryFault:
                break
            if not found and not path and AT_EXECFN in auxv:  # the program comes first
                path = self._string(auxv[AT_EXECFN])
            found.setdefault(bias, path)
        return found

    def _debug(self, auxv: dict[int, int]) -> int:
        """Return the address of r_debug, 0 if the program has none (it is static)."""
        at, count = auxv.get(AT_PHDR, 0), min(auxv.get(AT_PHNUM, 0), 256)
        rows = struct.Struct(self._order + ("I12xQ32x" if self._word == 8 else "I4xI20x"))
        table = self._memory.read(at, rows.size * count)
        places: dict[int, int] = dict(rows.iter_unpack(table))  # type to virtual address
        if PT_DYNAMIC not in places:
            return 0
        bias = at - places[PT_PHDR] if PT_PHDR in places else 0
        here = bias + places[PT_DYNAMIC]
        for _ in range(MOST_TAGS):
            tag, value = self._words(here, 2)
            if tag == DT_DEBUG:
                return value
            if not tag:
                break
            here += 2 * self._word
        return 0

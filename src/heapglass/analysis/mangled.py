"""Pointers that glibc stores mangled: in the buffers of setjmp, in the lists of atexit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import MemoryFault
from ..glibc.mangling import KEY_SYMBOL, MANGLINGS, demangle
from ..heap.heap import Heap
from ..native import Buffer, Hidden, Numbered, hidden_words
from .roots import Roots, root_buffers

MOST_WORDS = 1 << 20  # of a buffer that are looked at
NEAR, MOST_RANGES = 16 << 20, 16  # between two mappings of code that are searched for as one


class Key(NamedTuple):
    """The pointer guard, and where it was found."""

    value: int
    where: str


@dataclass
class Mangled:
    """Mangled words that lead to blocks: their plain values."""

    known: bool  # False: the key was not found, or nobody knows how this ABI mangles
    note: str  # where the key is, or why there is none
    in_roots: list[int] = field(default_factory=list)
    in_blocks: list[tuple[int, int]] = field(default_factory=list)  # with the row of the block


def find_mangled(heap: Heap, graph: Numbered, roots: Roots) -> Mangled:
    """Find the words in roots and blocks that lead to a block once they are demangled."""
    mangling = MANGLINGS.get(heap.layout.abi)
    if mangling is None:
        return Mangled(False, f"how {heap.layout.abi} mangles is not known")
    if not mangling.mangled:
        return Mangled(True, f"{heap.layout.abi} stores pointers as they are")
    key = find_key(heap)
    if key is None:
        return Mangled(False, "the pointer guard was not found")
    found = Mangled(True, f"the key is in {key.where}")
    if graph.parts:
        _search(heap, graph, roots, key, found)
    return found


def _search(heap: Heap, graph: Numbered, roots: Roots, key: Key, found: Mangled) -> None:
    header = heap.layout.header
    wanted = graph.parts[0].low + header, graph.parts[-1].high + header
    for _, buffer in root_buffers(heap, roots):
        for _, value in mangled_words(heap, buffer, key, *wanted):
            if graph.row_of(value) is not None:
                found.in_roots.append(value)
    for part in graph.parts:
        for address, value in mangled_words(heap, part.buffer, key, *wanted):
            if part.low <= address - header < part.high and graph.row_of(value) is not None:
                holder = graph.row_of(address)
                if holder is not None:
                    found.in_blocks.append((holder[0], value))


def find_key(heap: Heap) -> Key | None:
    """Return the pointer guard; None if it is not found, is zero, or nothing is mangled."""
    mangling = MANGLINGS.get(heap.layout.abi)
    if mangling is None or not mangling.mangled:
        return None
    for address, where in _places(heap):
        try:
            value = heap.words.word(address)
        except (MemoryFault, OverflowError):
            continue
        if value:
            return Key(value, where)
    return None


def _places(heap: Heap) -> Iterator[tuple[int, str]]:
    for symbol in heap.target.addresses_of(KEY_SYMBOL):
        yield symbol, KEY_SYMBOL
    offset = MANGLINGS[heap.layout.abi].guard
    for thread in heap.target.threads if offset is not None else ():
        if thread.tp is not None and offset is not None:
            yield thread.tp + offset, f"the control block of thread {thread.id}"


def mangled_words(
    heap: Heap, buffer: Buffer, key: Key, low: int, high: int
) -> Iterator[tuple[int, int]]:
    """Yield where mangled words stand whose plain value is in [low, high), and that value.

    With 64 bits a word is one by chance in hardly any program. With 32 bits one in a few may: only
    the stack pointers of setjmp count, behind each of which stands an address in code, mangled as
    well.
    """
    word, order = heap.words.size, heap.words.order
    rotate = MANGLINGS[heap.layout.abi].rotate
    code = _code(heap) if word < 8 else []

    def plain(at: int) -> int:
        stored = int.from_bytes(buffer.data[at : at + word], order)
        return demangle(stored, key.value, rotate, word)

    for behind in _near(code)[:MOST_RANGES] if word < 8 else [(0, 0)]:
        hidden = Hidden(low, high, key.value, rotate, behind)
        for address in hidden_words(buffer, hidden)[:MOST_WORDS]:
            at = address - buffer.base
            if word == 8 or any(start <= plain(at + word) < end for start, end in code):
                yield address, plain(at)


def _code(heap: Heap) -> list[tuple[int, int]]:
    return [(r.start, r.end) for r in heap.target.memory.regions() if "x" in r.perms]


def _near(code: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges, those that are near each other made one."""
    near: list[tuple[int, int]] = []
    for start, end in code:
        if near and start - near[-1][1] < NEAR:
            near[-1] = near[-1][0], end
        else:
            near.append((start, end))
    return near

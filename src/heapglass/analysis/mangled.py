"""Pointers that glibc stores mangled: in the buffers of setjmp, in the lists of atexit."""

from __future__ import annotations

from collections.abc import Iterator
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
    """Find the words in roots and blocks that lead to a block once they are demangled.

    With 64 bits no other word does that by chance. With 32 bits one in a few may: only the stack
    pointers of setjmp count, behind each of which stands an address in code, mangled as well.
    """
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
        for hidden in _hidden(heap, graph, key, mangling.rotate):
            _search(heap, graph, roots, hidden, found)
    return found


def find_key(heap: Heap) -> Key | None:
    """Return the pointer guard; None if it cannot be found, or is zero."""
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


def _hidden(heap: Heap, graph: Numbered, key: Key, rotate: int) -> Iterator[Hidden]:
    """Yield what is looked for, together with addresses in code where a word is not enough."""
    header = heap.layout.header
    low, high = graph.parts[0].low + header, graph.parts[-1].high + header
    if heap.words.size == 8:
        yield Hidden(low, high, key.value, rotate)
        return
    near: list[tuple[int, int]] = []
    for start, end in _code(heap):
        if near and start - near[-1][1] < NEAR:
            near[-1] = near[-1][0], end
        else:
            near.append((start, end))
    for code in near[:MOST_RANGES]:
        yield Hidden(low, high, key.value, rotate, code)


def _code(heap: Heap) -> list[tuple[int, int]]:
    return [(r.start, r.end) for r in heap.target.memory.regions() if "x" in r.perms]


def _search(heap: Heap, graph: Numbered, roots: Roots, hidden: Hidden, found: Mangled) -> None:
    for _, buffer in root_buffers(heap, roots):
        for _, value in _values(heap, graph, buffer, hidden):
            found.in_roots.append(value)
    header = heap.layout.header
    for part in graph.parts:
        for address, value in _values(heap, graph, part.buffer, hidden):
            if part.low <= address - header < part.high:
                holder = graph.row_of(address)
                if holder is not None:
                    found.in_blocks.append((holder[0], value))


def _values(
    heap: Heap, graph: Numbered, buffer: Buffer, hidden: Hidden
) -> Iterator[tuple[int, int]]:
    """Yield where in a buffer mangled pointers to blocks stand, and their plain values."""
    word, order = heap.words.size, heap.words.order
    paired, code = hidden.behind != (0, 0), _code(heap)
    for address in hidden_words(buffer, hidden)[:MOST_WORDS]:
        at = address - buffer.base
        value, behind = (
            demangle(int.from_bytes(raw, order), hidden.key, hidden.rotate, word)
            for raw in (buffer.data[at : at + word], buffer.data[at + word : at + 2 * word])
        )
        if paired and not any(start <= behind < end for start, end in code):
            continue
        if graph.row_of(value) is not None:
            yield address, value

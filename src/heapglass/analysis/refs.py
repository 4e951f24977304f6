"""Who points to a block: registers, stacks, globals, other chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..heap.heap import Chunk, Heap
from ..heap.target import Near
from ..native import words_between
from .demangle import demangle
from .mangled import find_key, mangled_words
from .roots import Root, Roots, find_roots, root_buffers
from .search import Hit, find_pointers, heap_buffers, hit_at


class Reference(NamedTuple):
    """A word whose value lies in the block."""

    kind: str  # "register", "stack", "global", "memory" (no file's), "chunk" or "heap"
    value: int
    address: int | None = None  # where it stands; None: a register
    thread: int | None = None  # of a register or a stack
    name: str = ""  # of a register, or the file
    offset: int | None = None  # in the stack from its pointer on, in the file, in the chunk's mem
    chunk: Chunk | None = None  # that holds it
    symbol: str = ""  # a variable's name, or what gdb calls the place on a stack; see `named`
    mangled: bool = False  # it is stored mangled (by setjmp, atexit); *value* is plain


def find_references(heap: Heap, low: int, high: int) -> Iterator[Reference]:
    """Yield every reference to [low, high): roots first, then the heaps, each by address.

    Mangled ones are looked for where there is no other.

    :raises NotFound: if the mappings of the target are not known.
    """
    roots = find_roots(heap)
    heap.problems += roots.notes
    nothing = True
    for one in _plain_references(heap, roots, low, high):
        nothing = False
        yield one
    if nothing:
        yield from find_mangled_references(heap, roots, low, high)


def _plain_references(heap: Heap, roots: Roots, low: int, high: int) -> Iterator[Reference]:
    yield from find_root_references(heap, roots, low, high)
    for found, value in find_pointers(heap, low, high):
        yield _of_heap(_owned(heap, found), value)


def _of_heap(hit: Hit, value: int) -> Reference:
    kind = "chunk" if hit.chunk is not None else "heap"
    offset = hit.offset if hit.chunk is not None else None
    return Reference(kind, value, hit.address, None, "", offset, hit.chunk)


def find_root_references(heap: Heap, roots: Roots, low: int, high: int) -> Iterator[Reference]:
    """Yield the references to [low, high) that no chunk holds, registers first."""
    mask, word = heap.layout.address_mask, heap.words.size
    for thread, name, value in roots.registers:
        if low <= value & mask < high:
            yield Reference("register", value, None, thread.id, name)
    stacks = {thread.id: thread.sp for thread in heap.target.threads}
    for root, buffer in root_buffers(heap, roots):
        for address in words_between(buffer, low, high, mask):
            value = int(buffer.words[(address - buffer.base) // word])
            yield _of_root(root, address, value, stacks.get(root.thread or 0))


def find_mangled_references(heap: Heap, roots: Roots, low: int, high: int) -> Iterator[Reference]:
    """Yield the references to [low, high) that are stored mangled, as far as the key is known."""
    key = find_key(heap)
    if key is None:
        return
    stacks = {thread.id: thread.sp for thread in heap.target.threads}
    for root, buffer in root_buffers(heap, roots):
        for address, value in mangled_words(heap, buffer, key, low, high):
            found = _of_root(root, address, value, stacks.get(root.thread or 0))
            yield found._replace(mangled=True)
    for buffer in heap_buffers(heap, zeros=False):
        for address, value in mangled_words(heap, buffer, key, low, high):
            found = _of_heap(_owned(heap, hit_at(heap, address)), value)
            yield found._replace(mangled=True)


def named(heap: Heap, one: Reference) -> Reference:
    """Return a reference with the name of the variable that it stands in, as far as it is known."""
    if one.kind == "global" and one.address is not None:
        return one._replace(symbol=symbol_text(heap.target.symbol_at(one.address)))
    if one.kind == "stack" and one.address is not None and one.thread is not None:
        return one._replace(symbol=heap.target.frame_at(one.thread, one.address))
    return one


def symbol_text(near: Near | None) -> str:
    """Return "name" or "name+0x8", the name as it is written in C++; empty for none."""
    if near is None:
        return ""
    name = demangle(near.name)
    return f"{name}+{near.offset:#x}" if near.offset else name


def _owned(heap: Heap, hit: Hit) -> Hit:
    """Return a hit in a prev_size as one in the block before, whose last word that is in use."""
    if hit.offset != -heap.layout.header or hit.chunk is None:
        return hit
    before = heap.holding(hit.address - heap.words.size)
    if before is None or before.state not in ("used", None):
        return hit
    return Hit(hit.address, before, hit.address - before.address - heap.layout.header)


def _of_root(root: Root, address: int, value: int, sp: int | None) -> Reference:
    if root.kind == "stack":
        offset = None if sp is None else address - sp
        return Reference("stack", value, address, root.thread, root.name, offset)
    if root.name:
        offset = root.offset + address - root.start
        return Reference("global", value, address, None, root.name, offset)
    return Reference("heap" if root.kind == "damaged" else "memory", value, address)

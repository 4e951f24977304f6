"""Recognisers: who knows objects by a word that all of one type have in the same place.

A recogniser says where the word stands and which values it has; the loops compare all blocks. To
add one, write a function like `python_objects` and name it in RECOGNISERS.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ...errors import MemoryFault
from ...heap.heap import Heap
from ...native import Buffer, Numbered, words_between
from ..roots import Roots, root_buffers

MOST_TYPES = 1 << 16
_TP_NAME = re.compile(rb"([A-Za-z_][A-Za-z0-9_.]{0,199})\0")


class Keys(NamedTuple):
    """Blocks whose word at one of *offsets* is one of *names* are objects of that name."""

    how: str
    offsets: tuple[int, ...]
    names: dict[int, str]


Recogniser = Callable[[Heap, Numbered, "Roots | None"], "Keys | None"]


def python_objects(heap: Heap, graph: Numbered, roots: Roots | None) -> Keys | None:
    """Know CPython's objects by ob_type.

    An object begins with ob_refcnt and ob_type; one that the collector watches has two words
    before these (PyGC_Head). A type is an object whose own type is PyType_Type, and its fourth
    word is tp_name (CPython 3.x, Include/cpython/object.h). Small objects lie in pymalloc's
    arenas, which are no chunks of malloc, unless PYTHONMALLOC=malloc.
    """
    type_type = next(iter(heap.target.addresses_of("PyType_Type")), None)
    if type_type is None:
        return None
    word, names = heap.words.size, {type_type: "type"}
    for buffer in _everything(heap, graph, roots):
        for address in words_between(buffer, type_type, type_type + 1, heap.layout.address_mask):
            name = _tp_name(heap, address - word)
            if name and len(names) < MOST_TYPES:
                names.setdefault(address - word, name)
    return Keys("python", (word, 3 * word), names)


def _everything(heap: Heap, graph: Numbered, roots: Roots | None) -> Iterator[Buffer]:
    for part in graph.parts:
        yield part.buffer
    if roots is not None:
        for root, buffer in root_buffers(heap, roots):
            if root.kind == "data":
                yield buffer


def _tp_name(heap: Heap, kind: int) -> str:
    word = heap.words.size
    try:
        raw = heap.target.memory.read(heap.words.word(kind + 3 * word), 64)
    except (MemoryFault, OverflowError):
        return ""
    found = _TP_NAME.match(raw)
    return found[1].decode() if found is not None else ""


RECOGNISERS: tuple[Recogniser, ...] = (python_objects,)


def keys_of(keys: Keys) -> array[int]:
    """Return the values as the loops take them."""
    return array("Q", sorted(keys.names))

"""Each thread's cache: `struct tcache_perthread_struct`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import MemoryFault
from .lists import FreeList, follow_single
from .target import HeapThread
from .words import Words


@dataclass
class Tcache:
    """What one thread has cached."""

    thread: HeapThread
    counts: tuple[int, ...] = ()  # entries a bin, by its own counter
    slots: tuple[int, ...] | None = None  # 2.42+: free slots a bin, as stored
    lists: list[FreeList] = field(default_factory=list)
    fault: str | None = None


def read_tcache(words: Words, thread: HeapThread, tcache_count: int | None) -> Tcache:
    """Read a thread's tcache with all its bins; empty if it has none.

    *tcache_count* is mp_'s: since 2.42 the struct counts the free slots down from it.
    """
    found = Tcache(thread)
    if thread.tcache is None:
        return found
    layout = words.layout
    try:
        fields = words.struct(layout.tcache, thread.tcache)
    except MemoryFault as fault:
        found.fault = str(fault)
        return found
    found.slots = fields.get("num_slots")
    if found.slots is None:
        found.counts = fields["counts"]
    elif tcache_count is not None:
        found.counts = tuple(tcache_count - slots for slots in found.slots)
    for index, head in enumerate(fields["entries"]):
        count = found.counts[index] if found.counts else None
        listed = read_tcache_bin(words, thread.id, index, head, count)
        if listed is not None:
            found.lists.append(listed)
    return found


def read_tcache_bin(
    words: Words, thread: int, index: int, head: int, count: int | None
) -> FreeList | None:
    """Read one bin of a tcache; None for an empty bin that no size falls into."""
    sizes = words.layout.tcache_range(index)
    if sizes is None and not head:
        return None
    low, high = sizes if sizes else (None, None)
    found = FreeList("tcache", index, low, high, thread=thread, stored_count=count)
    follow_single(words, found, head, words.layout.header, chunk_is_link=False)
    if low != high:
        _check_ascending(words, found)
    if count is not None and count != len(found.chunks):
        found.complain(f"the counter says {count}, the list holds {len(found.chunks)}")
    return found


def _check_ascending(words: Words, found: FreeList) -> None:
    """Complain if a large bin (2.42+) is not sorted: glibc commit cbfd798810."""
    before = 0
    for chunk in found.chunks:
        size = words.word(chunk + words.size) & ~7
        if size < before:
            found.complain(f"{chunk:#x} (size {size:#x}) stands behind a larger chunk")
            return
        before = size

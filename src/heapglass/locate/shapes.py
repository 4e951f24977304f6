"""Which layout the ring of arenas, the tcaches and the lists of free chunks speak for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..errors import MemoryFault
from ..glibc.layout import Layout
from ..heap.arena import read_arena, why_no_arena
from ..heap.lists import FreeList, follow_single
from ..heap.target import HeapThread, Place, Target
from ..heap.words import Words
from ..memory import Memory
from ..source import Source
from .libraries import Library
from .shape import Shape
from .threads import locate_threads

MOST_ARENAS = 64  # of the ring, that are asked
MOST_LISTS = 256
Thread = HeapThread


def settle_ring(memory: Memory, shape: Shape, main_arena: int) -> None:
    """Let the arenas of threads say how large their heap_info is."""

    def score(layout: Layout) -> int:
        words = Words(memory, layout)
        good = 0
        for address in _ring(words, main_arena):
            good += not why_no_arena(words, address)
        return good

    if next(_ring(Words(memory, shape.layout), main_arena), None) is not None:
        shape.choose("heap_info", "heap_info", score)


def _ring(words: Words, main_arena: int) -> Iterator[int]:
    """Yield the addresses of the other arenas, as far as `next` can be followed."""
    seen, here = {main_arena}, main_arena
    for _ in range(MOST_ARENAS):
        try:
            here = read_arena(words, here, main=False).next
        except MemoryFault:
            return
        if here in seen or not here:
            return
        seen.add(here)
        yield here


def settle_lists(
    memory: Memory,
    shape: Shape,
    target: Target,
    source: Source,
    said: Mapping[int, int],
    library: Library | None,
    names: dict[str, Place],
) -> None:
    """Let the tcaches say which struct they are, and the lists how their links are stored."""
    _settle_tcache(memory, shape, target, source, said, library, names)
    lists = list(_heads(Words(memory, shape.layout), target, said=MOST_LISTS))
    if lists:
        shape.choose("safe_linking", "safe-linking", lambda layout: _sound(memory, layout, lists))
    caches = [t.tcache for t in target.threads if t.tcache is not None]
    if caches:
        shape.choose("tcache_key", "tcache key", lambda layout: _keys(memory, layout, caches))


def _settle_tcache(
    memory: Memory,
    shape: Shape,
    target: Target,
    source: Source,
    said: Mapping[int, int],
    library: Library | None,
    names: dict[str, Place],
) -> None:
    """Try the other structs where no thread has a tcache of the release's own."""
    by_layout: dict[Layout, list[HeapThread]] = {shape.layout: list(target.threads)}
    missing = {shape.layout: list(target.missing)}
    before = [text for text in target.missing if "tcache" not in text]

    def score(layout: Layout) -> int:
        if not layout.has("tcache") or not layout.tcache.fields:
            return 0
        if layout not in by_layout:
            target.missing[:] = before
            words = Words(memory, layout)
            by_layout[layout] = locate_threads(source, words, target, said, library, names)
            missing[layout] = list(target.missing)
        threads = by_layout[layout]
        return sum(thread.tcache_state == "active" for thread in threads)

    own = shape.layout
    unknown = any(thread.tcache_state == "unknown" for thread in target.threads)
    if own.has("tcache") and (unknown or not shape.known):
        shape.choose("tcache_perthread_struct", "tcache struct", score)
    if shape.layout is not own:
        if shape.layout not in by_layout:
            score(shape.layout)
        target.threads = by_layout[shape.layout]
    target.missing[:] = missing[shape.layout]


# --- links and keys -------------------------------------------------------------------------------


def _heads(words: Words, target: Target, said: int) -> Iterator[tuple[str, int, int]]:
    """Yield (kind, index, head) of singly linked lists that are not empty."""
    yielded = 0
    for thread in target.threads:
        if thread.tcache is None:
            continue
        try:
            entries = words.struct(words.layout.tcache, thread.tcache)["entries"]
        except MemoryFault:
            continue
        for index, head in enumerate(entries):
            if head and yielded < said:
                yielded += 1
                yield "tcache", index, head
    assert target.main_arena is not None
    try:
        fast = read_arena(words, target.main_arena.address, main=True).fastbins
    except MemoryFault:
        return
    for index, head in enumerate(fast):
        if head:
            yield "fast", index, head


def _sound(memory: Memory, layout: Layout, lists: list[tuple[str, int, int]]) -> int:
    """Return how many lists make sense to their end."""
    words = Words(memory, layout)
    good = 0
    for kind, index, head in lists:
        found = FreeList(kind, index, None, None)
        follow_single(words, found, head, layout.header, chunk_is_link=kind == "fast")
        good += found.fault is None
    return good


def _keys(memory: Memory, layout: Layout, caches: list[int]) -> int:
    """Return how many cached blocks have the key that this layout's free() writes."""
    words = Words(memory, layout)
    keys: list[tuple[int, int]] = []
    for cache in caches:
        try:
            entries = words.struct(layout.tcache, cache)["entries"]
            keys += [(words.word(head + words.size), cache) for head in entries if head]
        except MemoryFault:
            continue
    own = sum(key == cache for key, cache in keys)
    shared = max((_count(keys, key) for key, cache in keys if key != cache and key), default=0)
    if layout.has("tcache_key_struct"):
        return own
    if layout.has("tcache_key_random"):
        return shared if shared > own else 0
    return 1 if keys and not own and shared < 2 else 0


def _count(keys: list[tuple[int, int]], wanted: int) -> int:
    return sum(key == wanted for key, _ in keys)

"""Each thread's `tcache` and `thread_arena`: TLS symbols, through the DTV, verified together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..errors import MemoryFault
from ..heap.arena import read_ring
from ..heap.target import HeapThread, Target
from ..heap.words import Words
from ..source import Source, Symbol, Thread
from .tls import find_thread_pointers, tls_blocks
from .verify import verify_tcache


class _Reading(NamedTuple):
    """What one TLS block says, if it is libc's."""

    tcache: int | None  # value of the variable; None: this release has none
    arena: int


class _Variables(NamedTuple):
    """The two TLS symbols; their offsets are from one file, so they are in one block."""

    tcache: Symbol | None
    arena: Symbol


def locate_threads(
    source: Source, words: Words, target: Target, said: Mapping[int, int]
) -> list[HeapThread]:
    """Return the threads of a source with their tcaches and arenas, as far as they are known."""
    threads = list(source.threads())
    pointers = {thread.id: thread.tp for thread in threads if thread.tp}
    scanned = find_thread_pointers(words, threads, source.pid, source.memory.regions())
    pointers.update(scanned)
    variables = _variables(source, words)
    readings: dict[int, _Reading] = {}
    if target.main_arena is not None and variables is not None:
        arenas = _arenas(words, target)
        readings = _read_all(words, pointers, variables, arenas, target)
    elif target.main_arena is not None:
        target.missing.append(
            "tcache and thread_arena were not found: libc's TLS symbols are not at hand"
        )
    how = variables.arena.how if variables else ""
    return [
        _thread(words, target, thread, pointers.get(thread.id), readings.get(thread.id), how, said)
        for thread in threads
    ]


def _variables(source: Source, words: Words) -> _Variables | None:
    """Return the TLS symbols of the file that has malloc's variables; None without them."""
    arenas = [symbol for symbol in source.symbols("thread_arena") if symbol.tls]
    if not arenas:
        return None
    caches = [s for s in source.symbols("tcache") if s.tls and s.module == arenas[0].module]
    if not caches and words.layout.has("tcache"):
        return None
    return _Variables(caches[0] if caches else None, arenas[0])


def _arenas(words: Words, target: Target) -> set[int]:
    place = target.main_arena
    if place is None:
        return set()
    try:
        return {arena.address for arena in read_ring(words, place.address, [])}
    except MemoryFault:
        return set()


def _read_all(
    words: Words,
    pointers: Mapping[int, int],
    variables: _Variables,
    arenas: set[int],
    target: Target,
) -> dict[int, _Reading]:
    """Read the variables of all threads from the module that fits all of them best."""
    by_module: dict[int, dict[int, _Reading]] = {}
    for thread, tp in pointers.items():
        for module, block in tls_blocks(words, tp):
            reading = _read_block(words, block, variables)
            if reading is not None and _possible(words, reading, arenas, target):
                by_module.setdefault(module, {})[thread] = reading

    def fits(readings: Mapping[int, _Reading]) -> tuple[int, int]:
        return (sum(r.arena in arenas for r in readings.values()), len(readings))

    best = max(by_module.values(), key=fits, default={})
    if pointers and not fits(best)[0] and len(by_module) > 1:
        return {}  # nobody has an arena yet, and several modules could be libc: not known
    return best


def _read_block(words: Words, block: int, variables: _Variables) -> _Reading | None:
    try:
        arena = words.word(block + variables.arena.value)
        cache = words.word(block + variables.tcache.value) if variables.tcache else None
    except MemoryFault:
        return None
    return _Reading(cache, arena)


def _possible(words: Words, reading: _Reading, arenas: set[int], target: Target) -> bool:
    """Whether a block's two words can be thread_arena and tcache."""
    if reading.arena and reading.arena not in arenas:
        return False
    if not reading.tcache:
        return reading.tcache is None or not words.layout.has("tcache_dummy")
    if _is_dummy(reading.tcache, target):
        return True
    return (
        reading.tcache % words.size == 0
        and verify_tcache(target.memory, words.layout, reading.tcache).good
    )


def _is_dummy(address: int, target: Target) -> bool:
    """Whether this is the static __tcache_dummy: by its symbol, or in memory nobody writes."""
    dummy = target.names.get("__tcache_dummy")
    if dummy is not None:
        return dummy.address <= address < dummy.address + target.layout.tcache.size
    if not target.layout.has("tcache_dummy"):
        return False
    return any(
        region.start <= address < region.end and "w" not in region.perms
        for region in target.memory.regions()
    )


def _thread(
    words: Words,
    target: Target,
    thread: Thread,
    tp: int | None,
    reading: _Reading | None,
    how: str,
    said: Mapping[int, int],
) -> HeapThread:
    """Put together what is known of a thread."""
    arena = reading.arena if reading else None
    made = HeapThread(thread.id, thread.number, tp, arena=arena or None, arena_known=bool(reading))
    if thread.id in said:
        verdict = verify_tcache(target.memory, words.layout, said[thread.id])
        if not verdict.good:
            target.warnings.append(f"tcache {said[thread.id]:#x} was given, but {verdict.failed}")
        return made._replace(tcache=said[thread.id], tcache_how="user", tcache_state="active")
    if not words.layout.has("tcache"):
        return made._replace(tcache_state="none", tcache_how=None)
    if reading is None:
        return made
    if not reading.tcache:
        return made._replace(tcache_state="none", tcache_how=how)
    if _is_dummy(reading.tcache, target):
        state = _dummy_state(words, reading.tcache, target)
        return made._replace(tcache_state=state, tcache_how=how)
    return made._replace(tcache=reading.tcache, tcache_state="active", tcache_how=how)


def _dummy_state(words: Words, address: int, target: Target) -> str:
    """Tell the two dummies apart: "inactive" stands first, "disabled" a word later (2.43+)."""
    dummy = target.names.get("__tcache_dummy")
    start = dummy.address if dummy is not None else address & -2 * words.size
    return "none" if address == start else "disabled"

"""Each thread's `tcache` and `thread_arena`: in its TLS block, by symbol or by what stands there.

The two variables are in libc's block; the DTV of a thread names all blocks. Without symbols the
offsets are those at which every thread has an arena of the ring or nothing, and a tcache struct,
the dummy (2.43+) or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import MemoryFault
from ..heap.arena import read_arena, read_ring
from ..heap.target import HeapThread, Place, Target
from ..heap.words import Words
from ..source import Source, Symbol, Thread
from .libraries import Library
from .tls import find_thread_pointers, tls_blocks
from .tlsscan import Found, scan_blocks
from .verify import verify_tcache

DUMMY = "__tcache_dummy"


class _Reading(NamedTuple):
    """What one TLS block says, if it is libc's."""

    tcache: int | None  # value of the variable; None: this release has none
    arena: int
    tcache_known: bool = True  # False: only thread_arena was found


class _Variables(NamedTuple):
    """The two TLS symbols; their offsets are from one file, so they are in one block."""

    tcache: Symbol | None
    arena: Symbol


def locate_threads(
    source: Source,
    words: Words,
    target: Target,
    said: Mapping[int, int],
    library: Library | None,
    names: dict[str, Place],
) -> list[HeapThread]:
    """Return the threads of a source with their tcaches and arenas, as far as they are known.

    *names* gets the place of the dummy, if it has no symbol and was found.
    """
    threads = list(source.threads())
    pointers = {thread.id: thread.tp for thread in threads if thread.tp}
    pointers.update(find_thread_pointers(words, threads, source.pid, source.memory.regions()))
    if target.main_arena is None:
        return [
            _thread(words, target, t, pointers.get(t.id), None, "", said, names) for t in threads
        ]
    arenas = _arenas(words, target)
    variables = _variables(source, words, library)
    how, readings = "scan", dict[int, _Reading]()
    if variables is not None:
        how, readings = (
            variables.arena.how,
            _read_all(words, pointers, variables, arenas, target, names),
        )
    elif not _used(words, target):
        readings = {thread.id: _Reading(0, 0) for thread in threads}  # nobody has called malloc
    else:
        dummy = names[DUMMY].address if DUMMY in names else 0
        found = scan_blocks(words, pointers, arenas, library, dummy)
        readings = _scanned(words, pointers, found, target, names)
    return [
        _thread(words, target, t, pointers.get(t.id), readings.get(t.id), how, said, names)
        for t in threads
    ]


def _variables(source: Source, words: Words, library: Library | None) -> _Variables | None:
    """Return the TLS symbols of the file that has malloc's variables; None without them."""
    arenas = [symbol for symbol in source.symbols("thread_arena") if symbol.tls]
    own = [s for s in arenas if library is not None and s.module == library.path]
    arenas = own or arenas
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


def _used(words: Words, target: Target) -> bool:
    """Whether malloc was ever set up: else no thread has an arena or a tcache."""
    assert target.main_arena is not None
    try:
        return any(read_arena(words, target.main_arena.address, main=True).bins)
    except MemoryFault:
        return True


def _read_all(
    words: Words,
    pointers: Mapping[int, int],
    variables: _Variables,
    arenas: set[int],
    target: Target,
    names: Mapping[str, Place],
) -> dict[int, _Reading]:
    """Read the variables of all threads from the module that fits all of them best."""
    by_module: dict[int, dict[int, _Reading]] = {}
    for thread, tp in pointers.items():
        for module, block in tls_blocks(words, tp):
            reading = _read_block(words, block, variables)
            if reading is not None and _possible(words, reading, arenas, target, names):
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


def _possible(
    words: Words,
    reading: _Reading,
    arenas: set[int],
    target: Target,
    names: Mapping[str, Place],
) -> bool:
    """Whether a block's two words can be thread_arena and tcache."""
    if reading.arena and reading.arena not in arenas:
        return False
    if not reading.tcache:
        return reading.tcache is None or not words.layout.has("tcache_dummy")
    if _is_dummy(reading.tcache, target, names):
        return True
    return (
        reading.tcache % words.size == 0
        and verify_tcache(target.memory, words.layout, reading.tcache).good
    )


def _is_dummy(address: int, target: Target, names: Mapping[str, Place]) -> bool:
    """Whether this is the static __tcache_dummy: by its symbol, or in memory nobody writes."""
    dummy = names.get(DUMMY)
    if dummy is not None:
        return dummy.address <= address < dummy.address + target.layout.tcache.size
    if not target.layout.has("tcache_dummy"):
        return False
    return any(
        region.start <= address < region.end and "w" not in region.perms
        for region in target.memory.regions()
    )


# --- without symbols ------------------------------------------------------------------------------


def _scanned(
    words: Words,
    pointers: Mapping[int, int],
    found: Found,
    target: Target,
    names: dict[str, Place],
) -> dict[int, _Reading]:
    """Read the threads at the offsets that were found; what is not known is said."""
    if found.arena is None:
        if pointers:
            target.missing.append(
                f"tcache and thread_arena were not found: {found.why or 'no TLS block fits'}"
            )
        else:
            target.missing.append(
                "tcache and thread_arena were not found: no thread pointer is known"
            )
        return {}
    if words.layout.has("tcache") and not found.tcache_known:
        target.missing.append(f"tcache was not found: {found.why}")
    if found.dummy and DUMMY not in names:
        names[DUMMY] = Place(found.dummy, "scan", "", ("the initial value of tcache", "all zero"))
    readings = {}
    for thread, block in found.blocks.items():
        try:
            arena = words.word(block + found.arena)
            cache = words.word(block + found.tcache) if found.tcache is not None else 0
        except MemoryFault:
            continue
        readings[thread] = _Reading(cache, arena, found.tcache_known)
    return readings


# --- putting it together --------------------------------------------------------------------------


def _thread(
    words: Words,
    target: Target,
    thread: Thread,
    tp: int | None,
    reading: _Reading | None,
    how: str,
    said: Mapping[int, int],
    names: Mapping[str, Place],
) -> HeapThread:
    """Put together what is known of a thread."""
    arena = reading.arena if reading else None
    made = HeapThread(
        *(thread.id, thread.number, tp),
        arena=arena or None,
        arena_known=bool(reading),
        sp=thread.sp,
        registers=thread.registers,
        stop=thread.stop,
    )
    if thread.id in said:
        verdict = verify_tcache(target.memory, words.layout, said[thread.id])
        if not verdict.good:
            target.warnings.append(f"tcache {said[thread.id]:#x} was given, but {verdict.failed}")
        return made._replace(tcache=said[thread.id], tcache_how="user", tcache_state="active")
    if not words.layout.has("tcache"):
        return made._replace(tcache_state="none", tcache_how=None)
    if reading is None or not reading.tcache_known:
        return made
    if not reading.tcache:
        return made._replace(tcache_state="none", tcache_how=how)
    if _is_dummy(reading.tcache, target, names):
        state = _dummy_state(words, reading.tcache, names)
        return made._replace(tcache_state=state, tcache_how=how)
    return made._replace(tcache=reading.tcache, tcache_state="active", tcache_how=how)


def _dummy_state(words: Words, address: int, names: Mapping[str, Place]) -> str:
    """Tell the two dummies apart: "inactive" stands first, "disabled" a word later (2.43+)."""
    dummy = names.get(DUMMY)
    start = dummy.address if dummy is not None else address & -2 * words.size
    return "none" if address == start else "disabled"


def say_unknown(target: Target, threads: Sequence[HeapThread]) -> None:
    """Say whose tcache is not known, if that was not said yet."""
    unknown = [str(thread.id) for thread in threads if thread.tcache_state == "unknown"]
    if unknown and target.main_arena and not any("tcache" in text for text in target.missing):
        target.missing.append(
            f"the tcache of thread {', '.join(unknown)} was not found: its TLS cannot be read"
        )

"""`arenas`, `heaps`, `params`, `mmapped`: what there is, before any single chunk."""

from __future__ import annotations

from typing import Any

from ..analysis.stats import histogram_of, totals_of
from ..glibc.layout import flag_letters
from ..heap.arena import Arena
from ..heap.heap import Heap
from ..heap.params import read_variables
from ..heap.segments import Segment
from ..heap.target import Target
from ..table import Absent, Address, Answer, Column, Data, Fact, Facts, Kind, Part, Table
from .cells import address, finish, thread_text, totals_data

# --- arenas -------------------------------------------------------------------------------------


def arenas(target: Target, request: Any) -> Answer:
    """Show every arena: threads, heaps, top, system memory, totals by state."""
    heap = Heap(target)
    rows = [_arena_row(heap, arena) for arena in heap.arenas]
    return finish(heap, "arenas", [Table("arenas", _ARENA_COLUMNS, rows)])


_ARENA_COLUMNS = (
    Column("address", "arena", Kind.ADDRESS),
    Column("main", "main", in_text=False),
    Column("", "kind", in_json=False),
    Column("top", "top", Kind.ADDRESS),
    Column("top_size", "top size", Kind.SIZE),
    Column("last_remainder", "last_remainder", Kind.ADDRESS, in_text=False),
    Column("system_mem", "system", Kind.SIZE),
    Column("max_system_mem", "max system", Kind.SIZE, in_text=False),
    Column("attached_threads", "attached", Kind.COUNT),
    Column("threads", "threads", in_text=False),
    Column("", "threads", Kind.LIST, in_json=False),
    Column("heaps", "heaps", in_text=False),
    Column("", "heaps", Kind.COUNT, in_json=False),
    Column("totals", "totals", in_text=False),
    Column("", "used", Kind.SIZE, in_json=False),
    Column("", "free", Kind.SIZE, in_json=False),
    Column("", "cached", Kind.SIZE, in_json=False),
    Column("flags", "flags", in_text=False),
)


def _arena_row(heap: Heap, arena: Arena) -> tuple[Any, ...]:
    segments = [segment for segment in heap.segments if segment.arena == arena.address]
    totals = totals_of(histogram_of(segments))

    def of(*states: str) -> int:
        return sum(totals.get(state, (0, 0))[1] for state in states)

    has_top = arena.has_top(heap.layout)
    threads = [t.id for t in heap.target.threads if t.arena == arena.address]
    return (
        Address(arena.address),
        arena.main,
        "main" if arena.main else "thread",
        address(arena.top if has_top else None),
        _top_size(heap, arena) if has_top else Absent.NONE,
        address(arena.last_remainder or None),
        arena.system_mem,
        arena.max_system_mem,
        arena.attached_threads,
        threads,
        [thread_text(heap, thread) for thread in threads],
        [_heap_data(segment) for segment in segments],
        len(segments),
        totals_data(totals),
        of("used"),
        of("free"),
        of("tcache", "fast"),
        arena.flags,
    )


def _top_size(heap: Heap, arena: Arena) -> Any:
    for segment in heap.segments:
        if segment.top == arena.top and segment.top is not None:
            row = segment.columns.row_at(arena.top)
            if row is not None:
                return segment.columns.sizes[row] & ~7
    return Absent.UNKNOWN


def _heap_data(segment: Segment) -> dict[str, Any]:
    return {
        "start": Address(segment.start),
        "end": Address(segment.end),
        "size": segment.size,
    }


# --- heaps --------------------------------------------------------------------------------------


def heaps(target: Target, request: Any) -> Answer:
    """Show every heap_info segment and the main heap's pieces."""
    heap = Heap(target)
    rows = [_heap_row(segment) for segment in heap.segments]
    return finish(heap, "heaps", [Table("heaps", _HEAP_COLUMNS, rows, empty="no heap was found")])


_HEAP_COLUMNS = (
    Column("start", "start", Kind.ADDRESS),
    Column("end", "end", Kind.ADDRESS),
    Column("kind", "kind"),
    Column("arena", "arena", Kind.ADDRESS),
    Column("size", "size", Kind.SIZE),
    Column("mapped", "mapped", Kind.SIZE),
    Column("used", "used", Kind.SIZE),
    Column("free", "free", Kind.SIZE),
    Column("cached", "cached", Kind.SIZE),
    Column("chunks", "chunks", Kind.COUNT),
    Column("top", "top", Kind.ADDRESS),
    Column("prev", "prev", Kind.ADDRESS, in_text=False),
    Column("pagesize", "page size", Kind.SIZE, in_text=False),
    Column("totals", "totals", in_text=False),
)


def _heap_row(segment: Segment) -> tuple[Any, ...]:
    totals = totals_of(histogram_of([segment]))

    def of(*states: str) -> int:
        return sum(totals.get(state, (0, 0))[1] for state in states)

    mapped = segment.size if segment.mprotect_size is None else segment.mprotect_size
    return (
        Address(segment.start),
        Address(segment.end),
        segment.kind,
        Address(segment.arena),
        segment.size,
        mapped,
        of("used"),
        of("free"),
        of("tcache", "fast"),
        len(segment.columns),
        address(segment.top),
        address(segment.prev or None),
        Absent.NONE if segment.pagesize is None else segment.pagesize,
        totals_data(totals),
    )


# --- params -------------------------------------------------------------------------------------

_PLAIN_COUNTS = {
    "arena_test",
    "arena_max",
    "thp_mode",
    "hp_flags",
    "n_mmaps",
    "n_mmaps_max",
    "max_n_mmaps",
    "no_dyn_threshold",
    "tcache_bins",
    "tcache_count",
    "tcache_unsorted_limit",
}


def params(target: Target, request: Any) -> Answer:
    """Show mp_, the variables beside it, and the constants of this glibc."""
    heap = Heap(target)
    layout, read = heap.layout, read_variables(heap.words, target)
    fields = [_param(name, value) for name, value in heap.params.fields.items()]
    if target.mp is None:
        heap.problems += [text for text in target.missing if text.startswith("mp_")]
    fast = layout.has("fastbins")
    beside = (
        Fact("global_max_fast", "global_max_fast", _known(read.max_fast, fast), Kind.SIZE),
        Fact("narenas", "narenas", _known(read.narenas), Kind.COUNT),
        Fact("perturb_byte", "perturb_byte", _known(read.perturb_byte), Kind.COUNT),
        Fact(
            "tcache_key",
            "tcache_key",
            _word(read.tcache_key, layout.has("tcache_key_random")),
            Kind.ADDRESS,
        ),
    )
    derived = (
        ("MALLOC_ALIGNMENT", layout.alignment),
        ("MINSIZE", layout.min_chunk),
        ("MIN_LARGE_SIZE", layout.min_large),
        ("NFASTBINS", layout.nfastbins),
        *sorted(layout.constants.items()),
    )
    constants = [Fact(name, name, value, _constant_kind(name)) for name, value in derived]
    parts: list[Part] = [
        Facts("params", fields, "mp_"),
        Facts("variables", beside, "variables"),
        Facts("constants", constants, f"constants of glibc {_tables_text(target)}"),
        Data("features", sorted(layout.features)),
    ]
    return finish(heap, "params", parts)


def _constant_kind(name: str) -> Kind:
    """Return how a constant is written: numbers of things in decimal, bytes in hex."""
    counts = ("NFASTBINS", "DEFAULT_ARENA_TEST", "DEFAULT_MMAP_MAX")
    return Kind.COUNT if name in counts or name.startswith("TCACHE_") else Kind.SIZE


def _param(name: str, value: int) -> Fact:
    if name == "sbrk_base":
        return Fact(name, name, address(value or None), Kind.ADDRESS)
    return Fact(name, name, value, Kind.COUNT if name in _PLAIN_COUNTS else Kind.SIZE)


def _known(value: int | None, exists: bool = True) -> Any:
    if value is None:
        return Absent.UNKNOWN if exists else Absent.NONE
    return value


def _word(value: int | None, exists: bool) -> Any:
    return _known(value, exists) if value is None else Address(value)


# --- mmapped ------------------------------------------------------------------------------------


def _tables_text(target: Target) -> str:
    """Return whose constants are shown; of several possible releases the newest's."""
    text, shown = target.release_text, target.layout.release
    return text if text == shown else f"{text}, as in {shown}"


def mmapped(target: Target, request: Any) -> Answer:
    """Show the chunks that have a mapping of their own."""
    heap = Heap(target)
    heap.target.require_main_arena()
    rows = [
        (
            Address(chunk.address),
            Address(chunk.address + heap.layout.header),
            chunk.size,
            flag_letters(chunk.size_field),
            heap.mmapped_as_chunk(chunk).state,
            _known(heap.usable(chunk.size, mmapped=True)),
            Address(chunk.start),
            chunk.length,
        )
        for chunk in heap.mmapped
    ]
    count, total = heap.params.get("n_mmaps"), heap.params.get("mmapped_mem")
    totals = Facts(
        "totals",
        (
            Fact("count", "chunks found", len(rows), Kind.COUNT),
            Fact("bytes", "bytes mapped", sum(c.length for c in heap.mmapped), Kind.SIZE),
            Fact("n_mmaps", "mp_.n_mmaps", _known(count), Kind.COUNT),
            Fact("mmapped_mem", "mp_.mmapped_mem", _known(total), Kind.SIZE),
        ),
        "totals",
    )
    columns = (
        Column("address", "chunk", Kind.ADDRESS),
        Column("user", "mem", Kind.ADDRESS),
        Column("size", "size", Kind.SIZE),
        Column("flags", "flags"),
        Column("state", "state"),
        Column("usable", "usable", Kind.SIZE),
        Column("mapping", "mapping", Kind.ADDRESS),
        Column("length", "length", Kind.SIZE),
    )
    return finish(
        heap, "mmapped", [Table("chunks", columns, rows, empty="no mmapped chunks"), totals]
    )

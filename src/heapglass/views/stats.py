"""`stats`: what fills the heaps; with --malloc-info the document that malloc_info would print."""

from __future__ import annotations

from typing import Any

from ..analysis.malloc_info import malloc_info
from ..analysis.stats import Stats, heap_stats, mallinfo
from ..heap.heap import Heap
from ..heap.target import Target
from ..table import (
    Absent,
    Address,
    Answer,
    Column,
    Data,
    Fact,
    Facts,
    Kind,
    Lines,
    Part,
    Raw,
    Table,
    Tag,
)
from .cells import (
    STATES,
    address,
    finish,
    row_limit,
    state_cell,
    thread_text,
    totals_data,
    totals_text,
)

TEXT_ROWS = 40  # sizes in the histogram in text, the largest in bytes


def stats(target: Target, request: Any) -> Answer:
    """Show totals by state, a histogram of sizes, and fragmentation."""
    heap = Heap(target)
    heap.target.require_main_arena()
    if request.malloc_info:
        return finish(heap, "stats", [Raw("malloc_info", malloc_info(heap))])
    found = heap_stats(heap)
    limit = row_limit(request, TEXT_ROWS)
    rows = _histogram(found, in_bytes=not request.json)
    parts: list[Part] = [
        Facts("memory", _memory(heap, found), "memory"),
        Table("", _STATE_COLUMNS, _by_state(found), "by state"),
        Data("totals", totals_data(found.totals)),
        Table("arenas", _ARENA_COLUMNS, _arena_rows(found), "by arena, bytes"),
        Table("threads", _THREAD_COLUMNS, _thread_rows(heap, found), "kept in tcaches, by thread"),
        Facts("mallinfo", _mallinfo(heap), "what mallinfo2 would say"),
        Table("histogram", _HISTOGRAM_COLUMNS, rows[:limit], "by size, what takes most first"),
        Lines(_closing(found, len(rows), limit)),
    ]
    return finish(heap, "stats", parts)


_STATE_COLUMNS = (
    Column("state", "state"),
    Column("count", "chunks", Kind.COUNT),
    Column("bytes", "bytes", Kind.SIZE),
    Column("", "", Kind.BYTES),
)
_ARENA_COLUMNS = (
    Column("arena", "arena", Kind.ADDRESS),
    Column("system_mem", "from the system", Kind.BYTES),
    *(Column(state, state, Kind.BYTES) for state in ("used", "free", "tcache", "fast", "top")),
    Column("unknown", "not known", Kind.BYTES),
    Column("trim", "malloc_trim gives back", Kind.BYTES),
)
_THREAD_COLUMNS = (
    Column("thread", "thread", in_text=False),
    Column("", "thread", in_json=False),
    Column("arena", "arena", Kind.ADDRESS),
    Column("count", "chunks", Kind.COUNT),
    Column("bytes", "bytes", Kind.BYTES),
)
_HISTOGRAM_COLUMNS = (
    Column("size", "size", Kind.SIZE),
    Column("state", "state"),
    Column("count", "chunks", Kind.COUNT),
    Column("bytes", "bytes", Kind.SIZE),
)


def _memory(heap: Heap, found: Stats) -> list[Fact]:
    loss = found.fragmentation
    return [
        Fact("arenas", "arenas", len(heap.arenas), Kind.COUNT),
        Fact("system_mem", "from the system", found.system_mem, Kind.BYTES),
        Fact("mmapped_mem", "in mappings of chunks", found.mmapped_mem, Kind.BYTES),
        Fact("top", "in top", found.top, Kind.BYTES),
        Fact("free_in_bins", "free in bins", found.free_in_bins, Kind.BYTES),
        Fact("largest_free", "largest free chunk", found.largest_free, Kind.BYTES),
        Fact(
            "fragmentation",
            "fragmentation",
            Absent.NONE if loss is None else round(loss, 1),
            Kind.PERCENT,
            "(free bytes outside of the largest free chunk)",
        ),
        Fact(
            "largest_run",
            "longest free stretch",
            found.largest_run[0],
            Kind.BYTES,
            f"(at {found.largest_run[1]:#x}, cached chunks too)" if found.largest_run[0] else "",
        ),
        Fact(
            "under_top",
            "idle under top",
            found.under_top,
            Kind.BYTES,
            "" if found.held_by is None else f"(the last chunk below top: {found.held_by:#x})",
        ),
        Fact("trim", "malloc_trim gives back", found.trim, Kind.BYTES),
        Fact("overhead", "headers of what is used", found.overhead, Kind.BYTES),
        Fact(
            "rounding",
            "rounded up, at most",
            found.rounding,
            Kind.BYTES,
            "(what was asked for is not stored)",
        ),
    ]


def _arena_rows(found: Stats) -> list[tuple[Any, ...]]:
    states = "used", "free", "tcache", "fast", "top", None
    return [
        (
            Address(one.address),
            one.system_mem,
            *(one.totals.get(state, (0, 0))[1] for state in states),
            one.trim,
        )
        for one in found.arenas
    ]


def _thread_rows(heap: Heap, found: Stats) -> list[tuple[Any, ...]]:
    return [
        (
            one.thread,
            thread_text(heap, one.thread),
            address(one.arena),
            one.chunks,
            Absent.UNKNOWN if one.bytes is None else one.bytes,
        )
        for one in found.threads
    ]


def _mallinfo(heap: Heap) -> list[Fact]:
    """Return the fields of struct mallinfo2, as glibc names them."""
    return [Fact(name, name, value, Kind.COUNT) for name, value in mallinfo(heap)._asdict().items()]


def _by_state(found: Stats) -> list[tuple[Any, ...]]:
    order = [state for state in (*STATES, None) if state in found.totals]
    return [(state_cell(s), *found.totals[s], found.totals[s][1]) for s in order]


def _histogram(found: Stats, in_bytes: bool) -> list[tuple[Any, ...]]:
    rows = [(size, state, count) for (state, size), count in found.histogram.items()]
    if in_bytes:
        rows.sort(key=lambda row: (-row[0] * row[2], row[0], row[1] or ""))
    else:
        rows.sort(key=lambda row: (row[0], row[1] or ""))
    return [(size, state_cell(state), count, size * count) for size, state, count in rows]


def _closing(found: Stats, rows: int, limit: int | None) -> list[list[Tag]]:
    lines = []
    if limit is not None and rows > limit:
        lines.append([Tag(f"… {rows - limit} more sizes (--all, or --limit N)")])
    lines.append([Tag(totals_text(found.totals))])
    return lines

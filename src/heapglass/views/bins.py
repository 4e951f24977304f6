"""`bins` and `tcache`: the lists of free chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import BadRequest
from ..heap.heap import Heap
from ..heap.lists import KINDS, FreeList
from ..heap.target import Target
from ..heap.tcache import Tcache
from ..table import Absent, Address, Answer, Column, Data, Kind, Part, Style, Table, Tag
from .cells import address, finish, thread_text

SHOWN = 6  # chunks of a list that a line names

_COLUMNS = (
    Column("arena", "arena", Kind.ADDRESS),
    Column("thread", "thread", in_text=False),
    Column("", "thread", in_json=False),
    Column("kind", "kind", in_text=False),
    Column("", "bin", in_json=False),
    Column("index", "index", Kind.COUNT, in_text=False),
    Column("min_size", "min size", Kind.SIZE, in_text=False),
    Column("max_size", "max size", Kind.SIZE, in_text=False),
    Column("count", "count", Kind.COUNT),
    Column("chunks", "chunks", in_text=False),
    Column("fault", "fault", in_text=False),
    Column("", "chunks, in malloc's order", in_json=False),
)


def bins(target: Target, request: Any) -> Answer:
    """Show the bins of every arena and thread; KIND narrows."""
    heap = Heap(target)
    heap.target.require_main_arena()
    if request.kind is not None and request.kind not in KINDS:
        raise BadRequest(f"no kind of bin {request.kind!r}", f"kinds: {', '.join(KINDS)}")
    _say_unknown(heap, request.kind)
    wanted = [
        found
        for found in heap.lists
        if (request.kind in (None, found.kind))
        and (request.all or found.chunks or found.fault)
        and (request.arena is None or found.arena == request.arena)
        and (request.thread is None or found.thread == request.thread)
    ]
    _faults(heap, wanted)
    rows = _limited((_row(heap, found, request.all) for found in wanted), request.limit)
    count = sum(len(found.chunks) for found in wanted)
    parts: list[Part] = [
        Table("bins", _COLUMNS, rows, empty="every bin is empty"),
        Data("count", count),
    ]
    return finish(heap, "bins", parts)


def _limited(rows: Iterable[tuple[Any, ...]], limit: int | None) -> Iterator[tuple[Any, ...]]:
    for number, row in enumerate(rows):
        if limit is not None and number >= limit:
            return
        yield row


def _row(heap: Heap, found: FreeList, every: bool) -> tuple[Any, ...]:
    return (
        address(found.arena),
        found.thread,
        thread_text(heap, found.thread),
        found.kind,
        Tag(found.label, _STYLES[found.kind]),
        found.index,
        found.min_size,
        found.max_size,
        len(found.chunks),
        [Address(chunk) for chunk in found.chunks],
        found.fault,
        _chain(found, None if every else SHOWN),
    )


_STYLES = {
    "tcache": Style.ONE,
    "fast": Style.TWO,
    "unsorted": Style.WARN,
    "small": Style.GOOD,
    "large": Style.THREE,
}


def _chain(found: FreeList, most: int | None) -> str:
    """Return the chunks as a line; the arrow is `→` for one link, `⇄` for two."""
    arrow = " → " if found.kind in ("tcache", "fast") else " ⇄ "
    named = [f"{chunk:#x}" for chunk in found.chunks[:most]]
    if most is not None and len(found.chunks) > most:
        named.append(f"… {len(found.chunks) - most} more")
    if found.fault:
        named.append("✗")
    return arrow.join(named)


def _faults(heap: Heap, lists: Iterable[FreeList]) -> None:
    for found in lists:
        if found.fault:
            where = f"arena {found.arena:#x}" if found.arena else f"thread {found.thread}"
            heap.problems.append(f"{where}: {found.label}: {found.fault}")


def _say_unknown(heap: Heap, kind: str | None) -> None:
    """Name the threads whose tcache nobody found: their lists are missing, not empty."""
    if kind not in (None, "tcache") or not heap.layout.has("tcache"):
        return
    unknown = [str(t.id) for t in heap.target.threads if t.tcache_state == "unknown"]
    if unknown:
        heap.problems.append(
            f"the tcache of thread {', '.join(unknown)} was not found; give it with "
            "--tcache THREAD=ADDR (in gdb: set heapglass tcache THREAD=ADDR)"
        )


# --- tcache ---------------------------------------------------------------------------------

_THREAD_COLUMNS = (
    Column("thread", "thread", Kind.COUNT),
    Column("number", "gdb", Kind.COUNT, in_json=False),
    Column("tcache", "tcache", Kind.ADDRESS),
    Column("state", "state"),
    Column("how", "found by"),
    Column("entries", "chunks", Kind.COUNT),
    Column("bytes", "bytes", Kind.SIZE),
    Column("counts", "counts", in_text=False),
    Column("num_slots", "free slots", in_text=False),
)
_ENTRY_COLUMNS = (
    Column("thread", "thread", Kind.COUNT),
    Column("", "bin", in_json=False),
    Column("index", "index", Kind.COUNT),
    Column("min_size", "min size", in_text=False),
    Column("max_size", "max size", in_text=False),
    Column("stored_count", "counter", Kind.COUNT),
    Column("slots", "free slots", Kind.COUNT),
    Column("count", "count", Kind.COUNT),
    Column("chunks", "chunks", in_text=False),
    Column("fault", "fault", in_text=False),
    Column("", "chunks, in malloc's order", in_json=False),
)


def tcache(target: Target, request: Any) -> Answer:
    """Show each thread's tcache: pointer, counts or free slots, entries."""
    heap = Heap(target)
    heap.target.require_main_arena()
    if not heap.layout.has("tcache"):
        heap.problems.append(f"glibc {heap.layout.release} has no tcache; it came with 2.26")
    _say_unknown(heap, "tcache")
    caches = [cache for cache in heap.tcaches if request.thread in (None, cache.thread.id)]
    lists = [
        (cache, found)
        for cache in caches
        for found in cache.lists
        if request.all or found.chunks or found.fault
    ]
    _faults(heap, [found for _, found in lists])
    entries = (_entry_row(cache, found, request.all) for cache, found in lists)
    parts: list[Part] = [
        Table("threads", _THREAD_COLUMNS, [_cache_row(heap, cache) for cache in caches]),
        Table(
            "bins",
            _ENTRY_COLUMNS,
            _limited(entries, request.limit),
            "entries",
            "nothing is cached",
        ),
    ]
    return finish(heap, "tcache", parts)


def _cache_row(heap: Heap, cache: Tcache) -> tuple[Any, ...]:
    thread = cache.thread
    sizes = [heap.words.word(c + heap.words.size) & ~7 for f in cache.lists for c in f.chunks]
    known = thread.tcache_state != "unknown"
    return (
        thread.id,
        Absent.NONE if thread.number is None else thread.number,
        address(thread.tcache) if known else Absent.UNKNOWN,
        thread.tcache_state,
        thread.tcache_how or Absent.NONE,
        len(sizes) if known else Absent.UNKNOWN,
        sum(sizes) if known else Absent.UNKNOWN,
        list(cache.counts) or None,
        list(cache.slots) if cache.slots is not None else None,
    )


def _entry_row(cache: Tcache, found: FreeList, every: bool) -> tuple[Any, ...]:
    slots = cache.slots[found.index] if cache.slots is not None else None
    return (
        cache.thread.id,
        Tag(found.label, Style.ONE),
        found.index,
        found.min_size,
        found.max_size,
        found.stored_count,
        Absent.NONE if slots is None else slots,
        len(found.chunks),
        [Address(chunk) for chunk in found.chunks],
        found.fault,
        _chain(found, None if every else SHOWN),
    )

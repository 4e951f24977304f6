"""The document that this process's `malloc_info (0, …)` would print, figure by figure.

The sums of binned chunks carry the flag bits of their size words, as glibc's do. Since 2.31
(b6d2c4475d) top is counted and the rows are tidy; since 2.27 (7a9368a117) other arenas report
their heaps; since 2.43 there are no fast rows (bb5a4f5295).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import MemoryFault
from ..glibc.layout import SIZE_BITS
from ..heap.arena import Arena
from ..heap.heap import Heap
from ..heap.lists import FreeList


@dataclass
class _Sums:
    """What is added up over the arenas."""

    fast_count: int = 0
    fast_size: int = 0
    rest_count: int = 0
    rest_size: int = 0
    system: int = 0
    max_system: int = 0
    aspace: int = 0
    mprotect: int = 0


def malloc_info(heap: Heap) -> str:
    """Return the XML document, with its last newline."""
    return "".join(_document(heap))


def _document(heap: Heap) -> Iterator[str]:
    total = _Sums()
    yield '<malloc version="1">\n'
    for number, arena in enumerate(heap.arenas):
        yield from _arena(heap, arena, number, total)
    fast = heap.layout.has("fastbins")
    if fast:
        yield f'<total type="fast" count="{total.fast_count}" size="{total.fast_size}"/>\n'
    yield f'<total type="rest" count="{total.rest_count}" size="{total.rest_size}"/>\n'
    mmaps, mapped = heap.params.get("n_mmaps") or 0, heap.params.get("mmapped_mem") or 0
    yield f'<total type="mmap" count="{mmaps}" size="{mapped}"/>\n'
    yield f'<system type="current" size="{total.system}"/>\n'
    yield f'<system type="max" size="{total.max_system}"/>\n'
    yield f'<aspace type="total" size="{total.aspace}"/>\n'
    yield f'<aspace type="mprotect" size="{total.mprotect}"/>\n'
    yield "</malloc>\n"


def _arena(heap: Heap, arena: Arena, number: int, total: _Sums) -> Iterator[str]:
    layout, own = heap.layout, _Sums()
    yield f'<heap nr="{number}">\n<sizes>\n'
    lists = heap.bins[arena.address]
    yield from _fast_rows(heap, [found for found in lists if found.kind == "fast"], own)
    if layout.has("malloc_info_counts_top") and arena.has_top(layout):
        own.rest_count, own.rest_size = 1, _size_word(heap, arena.top) & ~SIZE_BITS
    elif layout.has("malloc_info_counts_top"):
        own.rest_count = 1  # the initial top, of size 0
    yield from _bin_rows(heap, [found for found in lists if found.kind != "fast"], own)
    yield "</sizes>\n"
    if layout.has("fastbins"):
        yield f'<total type="fast" count="{own.fast_count}" size="{own.fast_size}"/>\n'
    yield f'<total type="rest" count="{own.rest_count}" size="{own.rest_size}"/>\n'
    yield f'<system type="current" size="{arena.system_mem}"/>\n'
    yield f'<system type="max" size="{arena.max_system_mem}"/>\n'
    yield from _aspace(heap, arena, own)
    yield "</heap>\n"
    for name in ("fast_count", "fast_size", "rest_count", "rest_size", "aspace", "mprotect"):
        setattr(total, name, getattr(total, name) + getattr(own, name))
    total.system += arena.system_mem
    total.max_system += arena.max_system_mem


def _row_start(heap: Heap) -> str:
    """Return what stands before a row: until 2.30 a run of blanks slipped into the format."""
    return "  " if heap.layout.has("malloc_info_counts_top") else _OLD_ROW


_OLD_ROW = "\t" * 7 + " " * 8


def _fast_rows(heap: Heap, lists: list[FreeList], own: _Sums) -> Iterator[str]:
    for found in lists:
        if not found.chunks:
            continue
        size = _size_word(heap, found.chunks[0]) & ~SIZE_BITS
        count = len(found.chunks)
        own.fast_count += count
        own.fast_size += count * size
        low = size - (heap.layout.alignment - 1)
        yield _row(heap, "size", low, size, count * size, count)


def _bin_rows(heap: Heap, lists: list[FreeList], own: _Sums) -> Iterator[str]:
    """Give a row for each bin that is not empty; glibc prints the unsorted bin last."""
    rows = []
    for found in lists:
        if not found.chunks:
            continue
        words = [_size_word(heap, chunk) for chunk in found.chunks]
        own.rest_count += len(words)
        own.rest_size += sum(words)
        name = "unsorted" if found.kind == "unsorted" else "size"
        rows.append(_row(heap, name, min(words), max(words), sum(words), len(words)))
    unsorted = [row for row in rows if "<unsorted" in row]
    yield from (row for row in rows if "<unsorted" not in row)
    yield from unsorted


def _row(heap: Heap, name: str, low: int, high: int, total: int, count: int) -> str:
    start = _row_start(heap) if name == "size" else "  "
    return f'{start}<{name} from="{low}" to="{high}" total="{total}" count="{count}"/>\n'


def _size_word(heap: Heap, chunk: int) -> int:
    try:
        return heap.words.word(chunk + heap.words.size)
    except MemoryFault:
        return 0


def _aspace(heap: Heap, arena: Arena, own: _Sums) -> Iterator[str]:
    """Give the address space: for main_arena its system_mem, for others their heaps."""
    if arena.main:
        own.aspace = own.mprotect = arena.system_mem
    else:
        heaps = [s for s in heap.heap_segments if s.arena == arena.address]
        if not heap.layout.has("malloc_info_subheaps"):
            heaps = [s for s in heaps if s.top is not None]
        own.aspace = sum(segment.size for segment in heaps)
        own.mprotect = sum(segment.mprotect_size or 0 for segment in heaps)
    yield f'<aspace type="total" size="{own.aspace}"/>\n'
    yield f'<aspace type="mprotect" size="{own.mprotect}"/>\n'
    if not arena.main and heap.layout.has("malloc_info_subheaps"):
        yield f'<aspace type="subheaps" size="{len(heaps)}"/>\n'

"""The structs of malloc, field by field, each with the releases that have it and the source.

A release's struct is the fields whose `since <= release < until`, laid out as a C compiler does
it. A field has one name in all releases, so that a reader asks for one: `size` is glibc's
`mchunk_size` from 2.25; `tcache_bins` is its `tcache_small_bins` from 2.42.

Offsets were checked against DWARF of real binaries (`fixtures/layouts`); commits are glibc's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple, Union

from .releases import BEFORE, NEVER, Version

NBINS = 128
BINMAPSIZE = 4


class Shape(NamedTuple):
    """What a struct's layout depends on beside the release."""

    word: int  # SIZE_SZ: 8 or 4 bytes
    alignment: int  # MALLOC_ALIGNMENT: 16 or 8 bytes


Length = Union[int, Callable[[Shape], int]]


class Row(NamedTuple):
    """A field of a struct in the releases from *since* up to, not including, *until*."""

    name: str
    ctype: str  # "word" (pointer, size_t, long), "int", "u16", "char"
    length: Length = 1  # elements; 0: the field is not there
    since: Version = BEFORE
    until: Version = NEVER
    source: str = ""  # release or commit that the since/until come from


class Field(NamedTuple):
    """Where a field is."""

    offset: int  # bytes from the struct's start
    size: int  # bytes of one element
    length: int  # elements


@dataclass(frozen=True)
class Struct:
    """Size and fields of a struct in one build."""

    name: str
    size: int
    fields: Mapping[str, Field] = field(hash=False)

    def __contains__(self, name: object) -> bool:
        return name in self.fields

    def offset(self, name: str) -> int:
        """Return the offset of a field, in bytes.

        :raises KeyError: if this build has no such field.
        """
        return self.fields[name].offset


def nfastbins(shape: Shape) -> int:
    """NFASTBINS: 10, but 11 on ILP32 with 16-byte alignment (i386 since 2.26)."""
    largest_request = 80 * shape.word // 4  # MAX_FAST_SIZE
    mask = shape.alignment - 1
    largest = (largest_request + shape.word + mask) & ~mask
    return (largest >> (4 if shape.word == 8 else 3)) - 2 + 1


def _old_heap_pad(shape: Shape) -> int:
    return -6 * shape.word & (shape.alignment - 1)


def _new_heap_pad(shape: Shape) -> int:
    return -3 * shape.word & (shape.alignment - 1)


_TCACHE = "d5c3fafc43, in 2.26"
_FASTCHUNKS = "e956075a5a, in 2.27"
_NOFAST = "bb5a4f5295, in 2.43"
_HUGE = "c1beb51d08 and 98d5fcb8d0, in 2.35"
_NEWTCACHE = "7e10e30e64 and cbfd798810, in 2.42"

ROWS: dict[str, tuple[Row, ...]] = {
    "malloc_chunk": (
        Row("prev_size", "word"),  # mchunk_prev_size since 2.25 (e9c4fe93b3)
        Row("size", "word"),  # mchunk_size since 2.25
        Row("fd", "word"),
        Row("bk", "word"),
        Row("fd_nextsize", "word"),
        Row("bk_nextsize", "word"),
    ),
    "malloc_state": (
        Row("mutex", "int"),
        Row("flags", "int"),
        Row("have_fastchunks", "int", 1, (2, 27), (2, 43), f"{_FASTCHUNKS}; {_NOFAST}"),
        Row("fastbinsY", "word", nfastbins, BEFORE, (2, 43), _NOFAST),
        Row("top", "word"),
        Row("last_remainder", "word"),
        Row("bins", "word", NBINS * 2 - 2),
        Row("binmap", "int", BINMAPSIZE),
        Row("next", "word"),
        Row("next_free", "word"),
        Row("attached_threads", "word"),
        Row("system_mem", "word"),
        Row("max_system_mem", "word"),
    ),
    "heap_info": (
        Row("ar_ptr", "word"),
        Row("prev", "word"),
        Row("size", "word"),
        Row("mprotect_size", "word"),
        Row("pagesize", "word", 1, (2, 35), NEVER, "0f982c1827, in 2.35"),
        Row("pad", "char", _old_heap_pad, BEFORE, (2, 35)),
        Row("pad", "char", _new_heap_pad, (2, 35), NEVER, "0f982c1827, in 2.35"),
    ),
    "malloc_par": (
        Row("trim_threshold", "word"),
        Row("top_pad", "word"),
        Row("mmap_threshold", "word"),
        Row("arena_test", "word"),
        Row("arena_max", "word"),
        Row("thp_mode", "int", 1, (2, 43), NEVER, "321e1fc73f, in 2.43"),
        Row("thp_pagesize", "word", 1, (2, 35), NEVER, _HUGE),
        Row("hp_pagesize", "word", 1, (2, 35), NEVER, _HUGE),
        Row("hp_flags", "int", 1, (2, 35), NEVER, _HUGE),
        Row("n_mmaps", "int"),
        Row("n_mmaps_max", "int"),
        Row("max_n_mmaps", "int"),
        Row("no_dyn_threshold", "int"),
        Row("mmapped_mem", "word"),
        Row("max_mmapped_mem", "word"),
        Row("max_total_mem", "word", 1, BEFORE, (2, 24), "in 2.24"),
        Row("sbrk_base", "word"),
        Row("tcache_bins", "word", 1, (2, 26), NEVER, _TCACHE),  # tcache_small_bins since 2.42
        Row("tcache_max_bytes", "word", 1, (2, 26), NEVER, _TCACHE),
        Row("tcache_count", "word", 1, (2, 26), NEVER, _TCACHE),
        Row("tcache_unsorted_limit", "word", 1, (2, 26), (2, 44), f"{_TCACHE}; gone in 2.44"),
    ),
    "tcache_entry": (
        Row("next", "word", 1, (2, 26), NEVER, _TCACHE),
        Row("key", "word", 1, (2, 29), NEVER, "bcdaad21d4, in 2.29"),
    ),
    "tcache_perthread_struct": (
        Row("counts", "char", 64, (2, 26), (2, 30), _TCACHE),
        Row("counts", "u16", 64, (2, 30), (2, 42), "1f50f2ad85, in 2.30"),
        Row("num_slots", "u16", 76, (2, 42), NEVER, _NEWTCACHE),
        Row("entries", "word", 64, (2, 26), (2, 42), _TCACHE),
        Row("entries", "word", 76, (2, 42), NEVER, _NEWTCACHE),
    ),
}


def _bytes_of(ctype: str, word: int) -> int:
    return {"word": word, "int": 4, "u16": 2, "char": 1}[ctype]


@cache
def lay_out(name: str, version: Version, shape: Shape) -> Struct:
    """Lay out the fields that *version* has, as a C compiler does.

    A struct that the release does not have (no field of it) has size 0 and no fields.
    """
    fields: dict[str, Field] = {}
    end, widest = 0, 1
    for row in ROWS[name]:
        count = row.length(shape) if callable(row.length) else row.length
        if not (row.since <= version < row.until) or not count:
            continue
        size = _bytes_of(row.ctype, shape.word)
        offset = (end + size - 1) & -size
        fields[row.name] = Field(offset, size, count)
        end, widest = offset + size * count, max(widest, size)
    return Struct(name, (end + widest - 1) & -widest, fields)

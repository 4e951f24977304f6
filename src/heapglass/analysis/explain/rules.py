"""The checks that end a program: each text, the function it is in, and for which chunk it fails.

`fails` asks of a chunk what glibc asked, at its release where releases differ. Facts: malloc.c and
arena.c of 2.23 to 2.44.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from ...glibc.layout import IS_MMAPPED, NON_MAIN_ARENA, PREV_INUSE, SIZE_BITS
from ...glibc.messages import ASSERTIONS
from ...heap.columns import CORRUPT
from ..check.places import Places

Fails = Callable[[Places, int], bool]


class Check(NamedTuple):
    """A check of malloc's."""

    function: str
    condition: str  # what is wrong, in words
    kind: str  # which chunks it is asked of: freed, pointer, unsorted, small, large, fast, …
    fails: Fails


# --- what is asked --------------------------------------------------------------------------------


def _word(places: Places, address: int) -> int:
    return places.load(address) or 0


def _field(places: Places, chunk: int) -> int:
    return _word(places, chunk + places.word)


def _size(places: Places, chunk: int) -> int:
    return _field(places, chunk) & ~SIZE_BITS


def _next(places: Places, chunk: int) -> int:
    return chunk + _size(places, chunk) & places.layout.max_address


def _system(places: Places, chunk: int) -> int:
    """system_mem of the arena that a chunk is in; of main_arena if that is not known."""
    segment = places.segment_of(chunk)
    address = None if segment is None else segment.arena
    arenas = places.heap.arenas
    return next((one for one in arenas if one.address == address), arenas[0]).system_mem


def _misaligned(places: Places, chunk: int) -> bool:
    return bool((chunk + places.header) & (places.layout.alignment - 1))


def _bad_pointer(places: Places, chunk: int) -> bool:
    if _misaligned(places, chunk):
        return True
    return not places.layout.has("free_checks_late") and _wraps(places, chunk)


def _wraps(places: Places, chunk: int) -> bool:
    return chunk > -_size(places, chunk) & places.layout.max_address


def _bad_size(places: Places, chunk: int) -> bool:
    if places.load(chunk + places.word) is None:
        return False
    size = _size(places, chunk)
    if places.layout.has("free_checks_late"):
        return chunk > -(size - places.layout.min_chunk) & places.layout.max_address
    return size < places.layout.min_chunk or bool(size & (places.layout.alignment - 1))


def _bad_next(places: Places, chunk: int) -> bool:
    behind = _next(places, chunk)
    if places.load(behind + places.word) is None or not _size(places, chunk):
        return False
    field = _field(places, behind)
    return field <= places.header or field & ~SIZE_BITS >= _system(places, chunk)


def _bad_next_unsorted(places: Places, chunk: int) -> bool:
    field = _field(places, _next(places, chunk))
    return field < places.header or field > _system(places, chunk)


def is_top(places: Places, chunk: int) -> bool:
    """Whether a chunk is the top of an arena."""
    return chunk in places.tops


def _behind_top(places: Places, chunk: int) -> bool:
    main = places.heap.arenas[0]
    end = main.top + _size(places, main.top)
    in_main = not _field(places, chunk) & NON_MAIN_ARENA
    return in_main and main.contiguous and _next(places, chunk) >= end


def says_free(places: Places, chunk: int) -> bool:
    """Whether P of the next chunk says that this one is free."""
    behind = _next(places, chunk)
    if places.load(behind + places.word) is None or behind == chunk:
        return False
    return not _field(places, behind) & PREV_INUSE


def _listed_in(kind: str) -> Fails:
    def fails(places: Places, chunk: int) -> bool:
        found = places.heap.marks.get(chunk)
        return found is not None and found.kind == kind

    return fails


def _bad_before(places: Places, chunk: int) -> bool:
    """prev_size leads to a chunk of another size."""
    if _field(places, chunk) & PREV_INUSE:
        return False
    before = _word(places, chunk)
    return _size(places, chunk - before & places.layout.max_address) != before


def _bad_foot(places: Places, chunk: int) -> bool:
    size = _size(places, chunk)
    return bool(size) and size != _word(places, chunk + size)


def _linked_back(places: Places, chunk: int) -> tuple[bool, bool]:
    """Whether the next one's bk, and the one before's fd, lead back."""
    fd, bk = 2 * places.word, 3 * places.word
    mask = places.layout.max_address
    after, before = _word(places, chunk + fd), _word(places, chunk + bk)
    return (
        _word(places, after + bk & mask) == chunk,
        _word(places, before + fd & mask) == chunk,
    )


def _bad_links(places: Places, chunk: int) -> bool:
    return not all(_linked_back(places, chunk))


def _bad_bk(places: Places, chunk: int) -> bool:
    return not _linked_back(places, chunk)[1]


def _bad_fd(places: Places, chunk: int) -> bool:
    return not _linked_back(places, chunk)[0]


def _bad_unsorted(places: Places, chunk: int) -> bool:
    """bck.fd is not the chunk, or its fd is not the bin: it is the last one."""
    found = places.heap.marks.get(chunk)
    last = found is not None and bool(found.chunks) and found.chunks[-1] == chunk
    return _bad_links(places, chunk) or (last and _bad_bk(places, chunk))


def _bad_ring(places: Places, chunk: int) -> bool:
    after, before = (_word(places, chunk + number * places.word) for number in (4, 5))
    if not after and not before:
        return False
    mask = places.layout.max_address
    return (
        _word(places, after + 5 * places.word & mask) != chunk
        or _word(places, before + 4 * places.word & mask) != chunk
    )


def _bad_unsorted_size(places: Places, chunk: int) -> bool:
    field = _field(places, chunk)
    return field <= places.header or field > _system(places, chunk)


def _mismatch_unsorted(places: Places, chunk: int) -> bool:
    return _word(places, _next(places, chunk)) & ~SIZE_BITS != _size(places, chunk)


def _next_says_used(places: Places, chunk: int) -> bool:
    return bool(_field(places, _next(places, chunk)) & PREV_INUSE)


def _wrong_fast_size(places: Places, chunk: int) -> bool:
    found = places.heap.marks.get(chunk)
    if found is None:  # taken out of its list already
        return places.state(chunk) == CORRUPT
    if found.kind != "fast":
        return False
    return places.layout.fastbin_index(_size(places, chunk) & 0xFFFFFFFF) != found.index


def _bad_link(places: Places, chunk: int) -> bool:
    """The link of a cached or fast chunk leads to what is not aligned."""
    found = places.heap.marks.get(chunk)
    return found is not None and bool(found.fault) and found.chunks[-1] == chunk


def _bad_top_size(places: Places, chunk: int) -> bool:
    return chunk in places.tops and _size(places, chunk) > _system(places, chunk)


def _bad_old_size(places: Places, chunk: int) -> bool:
    field = _field(places, chunk)
    return field <= places.header or field & ~SIZE_BITS >= _system(places, chunk)


def _bad_mapping(places: Places, chunk: int) -> bool:
    field = _field(places, chunk)
    page = places.heap.page_size - 1
    block, total = chunk - _word(places, chunk), _word(places, chunk) + (field & ~SIZE_BITS)
    if places.layout.has("mmap_header_apart"):
        total += places.header
    mem = chunk + places.header & page
    odd = places.layout.has("mmap_checks_mem") and bool(mem & (mem - 1))
    return bool(field & IS_MMAPPED) and (bool((block | total) & page) or odd)


def _always(_places: Places, _chunk: int) -> bool:
    return True


def _other_arena(places: Places, chunk: int) -> bool:
    segment = places.segment_of(chunk)
    if segment is None:
        return False
    main = segment.arena == places.heap.arenas[0].address
    return bool(_field(places, chunk) & NON_MAIN_ARENA) is main


# Checks of links: what is wrong is in a free block's own words, not in its header.
LINKS = (_bad_links, _bad_bk, _bad_fd, _bad_ring, _bad_unsorted, _bad_link)


# --- texts ----------------------------------------------------------------------------------------

_UNALIGNED = "a link that is followed leads to what is not aligned"
_NEXT = "the size of the next chunk is below 2 * SIZE_SZ, or not below system_mem"
_UNLINK = "unlink_chunk"

CHECKS: dict[str, Check] = {
    "free(): invalid pointer": Check(
        "free",
        "the pointer is not aligned, or its chunk would run past the end",
        "pointer",
        _bad_pointer,
    ),
    "free(): invalid size": Check(
        "free", "the size is below MINSIZE or not aligned", "pointer", _bad_size
    ),
    "free(): double free detected in tcache 2": Check(
        "free", "the block has the tcache's key and is in its list", "freed", _listed_in("tcache")
    ),
    "free(): unaligned chunk detected in tcache 2": Check("free", _UNALIGNED, "tcache", _bad_link),
    "free(): too many chunks detected in tcache": Check(
        "free", "the list holds more than tcache_count", "tcache", _always
    ),
    "free(): invalid next size (fast)": Check("_int_free", _NEXT, "freed", _bad_next),
    "double free or corruption (fasttop)": Check(
        "_int_free", "the first of the fastbin is the block itself", "freed", _listed_in("fast")
    ),
    "invalid fastbin entry (free)": Check(
        "_int_free", "the first of the fastbin has a size of another", "fast", _wrong_fast_size
    ),
    "double free or corruption (top)": Check("_int_free", "it is top", "freed", is_top),
    "double free or corruption (out)": Check(
        "_int_free", "it ends behind top", "pointer", _behind_top
    ),
    "double free or corruption (!prev)": Check(
        "_int_free", "P of the next chunk says that it is free", "pointer", says_free
    ),
    "free(): invalid next size (normal)": Check("_int_free", _NEXT, "freed", _bad_next),
    "corrupted size vs. prev_size while consolidating": Check(
        "_int_free", "the chunk that prev_size leads to has another size", "freed", _bad_before
    ),
    "free(): corrupted unsorted chunks": Check(
        "_int_free", "bk of the first unsorted chunk is not the bin", "unsorted", _bad_bk
    ),
    "free(): chunks in smallbin corrupted": Check(
        "_int_free", "bk of the first chunk of the bin is not the bin", "small", _bad_bk
    ),
    "corrupted size vs. prev_size": Check(
        _UNLINK, "the size is not the prev_size behind it", "free", _bad_foot
    ),
    "corrupted double-linked list": Check(
        _UNLINK, "fd's bk or bk's fd do not lead back", "free", _bad_links
    ),
    "corrupted double-linked list (not small)": Check(
        _UNLINK, "the ring of sizes does not lead back", "large", _bad_ring
    ),
    "malloc_consolidate(): invalid chunk size": Check(
        "malloc_consolidate", "the size is one of another fastbin", "fast", _wrong_fast_size
    ),
    "malloc_consolidate(): unaligned fastbin chunk detected": Check(
        "malloc_consolidate", _UNALIGNED, "fast", _bad_link
    ),
    "corrupted size vs. prev_size in fastbins": Check(
        "malloc_consolidate",
        "the chunk that prev_size leads to has another size",
        "fast",
        _bad_before,
    ),
    "malloc(): memory corruption (fast)": Check(
        "_int_malloc", "the size is one of another fastbin", "fast", _wrong_fast_size
    ),
    "malloc(): unaligned fastbin chunk detected": Check(
        "_int_malloc", _UNALIGNED, "fast", _bad_link
    ),
    "malloc(): unaligned fastbin chunk detected 2": Check(
        "_int_malloc", _UNALIGNED, "fast", _bad_link
    ),
    "malloc(): unaligned fastbin chunk detected 3": Check(
        "_int_malloc", _UNALIGNED, "fast", _bad_link
    ),
    "malloc(): chunk size mismatch in fastbin": Check(
        "_int_malloc", "the size is one of another fastbin", "fast", _wrong_fast_size
    ),
    "malloc(): unaligned tcache chunk detected": Check(
        "tcache_get", _UNALIGNED, "tcache", _bad_link
    ),
    "malloc(): smallbin double linked list corrupted": Check(
        "_int_malloc", "fd of the one before the last chunk is not that chunk", "small", _bad_bk
    ),
    "malloc(): memory corruption": Check(
        "_int_malloc",
        "the size is below 2 * SIZE_SZ, or above system_mem",
        "unsorted",
        _bad_unsorted_size,
    ),
    "malloc(): invalid size (unsorted)": Check(
        "_int_malloc",
        "the size is below 2 * SIZE_SZ, or above system_mem",
        "unsorted",
        _bad_unsorted_size,
    ),
    "malloc(): invalid next size (unsorted)": Check(
        "_int_malloc",
        "the next size is below 2 * SIZE_SZ, or above system_mem",
        "unsorted",
        _bad_next_unsorted,
    ),
    "malloc(): mismatching next->prev_size (unsorted)": Check(
        "_int_malloc", "the prev_size behind it is not its size", "unsorted", _mismatch_unsorted
    ),
    "malloc(): unsorted double linked list corrupted": Check(
        "_int_malloc", "bk's fd does not lead back, or fd is not the bin", "unsorted", _bad_unsorted
    ),
    "malloc(): invalid next->prev_inuse (unsorted)": Check(
        "_int_malloc", "P of the next chunk says that it is in use", "unsorted", _next_says_used
    ),
    "malloc(): corrupted unsorted chunks 3": Check(
        "_int_malloc", "bk's fd does not lead back", "unsorted", _bad_bk
    ),
    "malloc(): largebin double linked list corrupted (nextsize)": Check(
        "_int_malloc", "the ring of sizes does not lead back", "large", _bad_ring
    ),
    "malloc(): largebin double linked list corrupted (bk)": Check(
        "_int_malloc", "bk's fd does not lead back", "large", _bad_bk
    ),
    "malloc(): corrupted unsorted chunks": Check(
        "_int_malloc", "bk of the first unsorted chunk is not the bin", "unsorted", _bad_bk
    ),
    "malloc(): corrupted unsorted chunks 2": Check(
        "_int_malloc", "bk of the first unsorted chunk is not the bin", "unsorted", _bad_bk
    ),
    "malloc(): corrupted top size": Check(
        "_int_malloc", "the size of top is above system_mem", "top", _bad_top_size
    ),
    "break adjusted to free malloc space": Check(
        "sysmalloc", "the new break lies below the end of top", "top", is_top
    ),
    "realloc(): invalid pointer": Check(
        "realloc",
        "the pointer is not aligned, or its chunk would run past the end",
        "pointer",
        lambda places, chunk: _misaligned(places, chunk) or _wraps(places, chunk),
    ),
    "realloc(): invalid old size": Check(
        "_int_realloc",
        "the size is below 2 * SIZE_SZ, or not below system_mem",
        "freed",
        _bad_old_size,
    ),
    "realloc(): invalid next size": Check("_int_realloc", _NEXT, "freed", _bad_next),
    "munmap_chunk(): invalid pointer": Check(
        "munmap_chunk",
        "M is set, but it is not at the start or end of pages",
        "mapped",
        _bad_mapping,
    ),
    "mremap_chunk(): invalid pointer": Check(
        "mremap_chunk",
        "M is set, but it is not at the start or end of pages",
        "mapped",
        _bad_mapping,
    ),
    "tcache_thread_shutdown(): unaligned tcache chunk detected": Check(
        "tcache_thread_shutdown", _UNALIGNED, "tcache", _bad_link
    ),
    "int_mallinfo(): unaligned fastbin chunk detected": Check(
        "int_mallinfo", _UNALIGNED, "fast", _bad_link
    ),
    "__malloc_info(): unaligned fastbin chunk detected": Check(
        "__malloc_info", _UNALIGNED, "fast", _bad_link
    ),
    "_int_memalign(): unaligned chunk detected": Check(
        "_int_memalign", _UNALIGNED, "free", _misaligned
    ),
}

# Assertions by their key in glibc.messages: which chunks they are about.
_BY_KEY: dict[str, tuple[str, Fails]] = {
    "old_top": ("top", is_top),
    "top_too_large": ("top", is_top),
    "munmap_mmapped": ("mapped", _bad_mapping),
    "mremap_aligned": ("mapped", _bad_mapping),
    "mremap_mem": ("mapped", _bad_mapping),
    "mremap_offset": ("mapped", _bad_mapping),
    "largebin_tail": ("large", _other_arena),
    "largebin_first": ("large", _other_arena),
    "largebin_next": ("large", _other_arena),
    "bin_size": ("free", _bad_foot),
    "calloc_clears": ("freed", _bad_size),
    "free_heap": ("heap", _always),
    "heap_fence": ("fence", _always),
    "heap_fence_size": ("post", _always),
    "heap_new_size": ("post", _always),
    "heap_page": ("post", _always),
    "memalign_size": ("freed", _always),
    "realloc_size": ("freed", _always),
}


def check_of(text: str) -> Check | None:
    """Return the check that a text is of; None for what is no text of malloc's."""
    known = CHECKS.get(text)
    if known is not None:
        return known
    for row in ASSERTIONS:
        if row.expression in text and re.search(rf"\b{row.function}\b", text):
            kind, fails = _BY_KEY.get(row.key, ("freed", _other_arena))
            return Check(row.function, f"not: {row.expression}", kind, fails)
    return None

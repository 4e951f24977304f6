"""The rules of arenas: their ring, their heaps, what they have from the system; mapped chunks."""

from __future__ import annotations

from collections.abc import Iterator

from ...glibc.layout import SIZE_BITS
from ...heap.arena import Arena, why_no_arena
from ...heap.segments import Segment, coalesce
from .finding import UNDERFLOW, WARNING, Cause, Finding, Word
from .places import Places


def arena_findings(places: Places) -> Iterator[Finding]:
    """Yield what is wrong with the arenas themselves."""
    heap = places.heap
    state = places.layout.state
    for arena in heap.arenas:
        if arena.system_mem > arena.max_system_mem:
            text = f"system_mem {arena.system_mem:#x} is above max_system_mem"
            yield _variable(places, arena, "system-mem", "system_mem", text)
        if arena.has_top(places.layout) and not arena.main:
            yield from _heaps(places, arena)
        if arena.have_fastchunks is False and any(arena.fastbins):
            text = "a fastbin holds chunks, but have_fastchunks is not set"
            yield _variable(places, arena, "have-fastchunks", "have_fastchunks", text, WARNING)
    last = heap.arenas[-1]
    if last.next != heap.arenas[0].address:
        reason = why_no_arena(heap.words, last.next) or "it was there before"
        text = f"next is {last.next:#x}, which leads to no further arena: {reason}"
        found = Finding("arena-ring", last.address, text, last.address, is_chunk=False)
        found.words = [Word(last.address + state.offset("next"), last.next, "next")]
        yield found
    yield from _mapped(places)


def _variable(
    places: Places, arena: Arena, rule: str, name: str, text: str, severity: str = "error"
) -> Finding:
    found = Finding(rule, arena.address, text, arena.address, severity, is_chunk=False)
    at = arena.address + places.layout.state.offset(name)
    value = int(getattr(arena, name))
    found.words = [Word(at, value, name)]
    return found


def _heaps(places: Places, arena: Arena) -> Iterator[Finding]:
    """The heaps of a thread's arena: their chain, their sizes, and what they add up to."""
    heaps = [one for one in places.heap.segments if one.arena == arena.address]
    info = places.layout.structs["heap_info"]
    own = arena.address - info.size
    if not any(one.start == own for one in heaps):
        text = f"the chain of heaps from top does not lead to the first, at {own:#x}"
        yield Finding("heap-info", arena.address, text, arena.address, is_chunk=False)
        return
    for one in heaps:
        yield from _one_heap(places, one)
    total = sum(one.size for one in heaps)
    if total != arena.system_mem:
        text = f"system_mem is {arena.system_mem:#x}, the heaps have {total:#x}"
        yield _variable(places, arena, "system-mem", "system_mem", text)


def _one_heap(places: Places, segment: Segment) -> Iterator[Finding]:
    page = places.heap.page_size
    said = []
    if segment.size % page:
        said.append(f"size {segment.size:#x} is no multiple of a page")
    if segment.mprotect_size is not None and segment.mprotect_size < segment.size:
        said.append(f"size {segment.size:#x} is above mprotect_size {segment.mprotect_size:#x}")
    if said:
        text = f"heap_info: {'; '.join(said)}"
        found = Finding("heap-info", segment.start, text, segment.arena, is_chunk=False)
        at = segment.start + places.layout.structs["heap_info"].offset("size")
        found.words = [Word(at, segment.size, "size")]
        yield found


def _mapped(places: Places) -> Iterator[Finding]:
    """Mapped chunks against mp_; what could not be searched is no finding."""
    heap = places.heap
    count, total = heap.params.get("n_mmaps"), heap.params.get("mmapped_mem")
    if count is None or total is None or not heap.target.memory.regions():
        return
    found, mapped = len(heap.mmapped), sum(chunk.length for chunk in heap.mmapped)
    if heap.mmapped_accounted or heap.target.mp is None:
        return
    offset = places.layout.structs["malloc_par"].offset("n_mmaps")
    text = f"mp_ says {count} mapped chunks with {total:#x} bytes; found {found} with {mapped:#x}"
    at = heap.target.mp.address
    finding = Finding("mmapped", at, text, None, WARNING, is_chunk=False)
    finding.words = [Word(at + offset, count, "n_mmaps", str(found))]
    lost = _lost_mapping(places, total - mapped) if count == found + 1 else None
    yield finding if lost is None else _broken_header(places, lost)


def _lost_mapping(places: Places, length: int) -> int | None:
    """Return the chunk of a mapping of so many bytes whose header does not say it any more.

    It begins an anonymous range, or lies behind another mapped chunk, and nothing else is there.
    """
    heap = places.heap
    taken = sorted(
        [(one.start, one.end) for one in heap.segments]
        + [(one.start, one.end) for one in heap.mmapped]
    )
    starts = {start for start, _ in coalesce(heap.target.memory.regions())}
    starts |= {region.start for region in heap.target.memory.regions() if not region.path}
    starts |= {one.end for one in heap.mmapped}
    stacks = [one.sp for one in heap.target.threads if one.sp is not None]
    for start in sorted(starts):
        end = start + length
        free = not any(low < end and start < high for low, high in taken)
        whole = places.load(start) is not None and places.load(end - places.word) is not None
        if length > 0 and free and whole and not any(start <= sp < end for sp in stacks):
            chunk = start + places.layout.mmap_offset
            if _is_overwritten(places, chunk):
                return chunk
    return None


def _is_overwritten(places: Places, chunk: int) -> bool:
    """Whether what stands in a header goes on in the block: somebody wrote from there on."""
    size, first = places.size_word(chunk), places.load(chunk + places.header)
    return bool(size) and size == first


def _broken_header(places: Places, chunk: int) -> Finding:
    size = places.size_word(chunk) or 0
    text = f"size {size & ~SIZE_BITS:#x} is not that of its mapping, which mp_ counts"
    finding = Finding("mmapped", chunk, text, None)
    finding.words = [Word(chunk + places.word, size, "size", "M alone, and the mapping's length")]
    mem = chunk + places.header
    said = f"a write before the block {mem:#x}, which has a mapping of its own"
    why = ("nothing lies below it in the mapping", "its first words are like the size")
    finding.cause = Cause(UNDERFLOW, chunk, said, why)
    return finding

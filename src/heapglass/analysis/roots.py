"""What a program reaches its blocks from: registers, stacks, writable memory that is no heap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import MemoryFault, NotFound
from ..glibc.threads import CONTROL_BLOCKS
from ..heap.heap import Heap
from ..heap.target import HeapThread
from ..memory import Region, Sparse
from ..native import Buffer

BLOCK = 64 << 20  # bytes that are read at once
NEAR = 0x1000  # bytes around a thread pointer in which struct pthread is looked for

Range = tuple[int, int]


class Root(NamedTuple):
    """A range that is scanned for pointers into the heaps."""

    start: int
    end: int
    kind: str  # "stack", "data" or "damaged" (a part of a heap in which no chunks are known)
    thread: int | None = None  # whose stack it is
    name: str = ""  # of the mapping: a file, "[stack]", or empty
    offset: int = 0  # of *start* from the file's first mapping


@dataclass
class Roots:
    """All roots of a target. Registers are words of their own."""

    ranges: list[Root]
    registers: list[tuple[HeapThread, str, int]]
    unread: int = 0  # bytes of writable mappings that could not be read; grows while they are
    notes: list[str] = field(default_factory=list)  # what was left out, and why


def find_roots(heap: Heap) -> Roots:
    """Return where a program may keep pointers to its blocks.

    Writable mappings, less heaps, mmapped chunks, malloc's own variables, and what of the threads'
    stacks lies below their stack pointers.

    :raises NotFound: if the mappings of the target are not known.
    """
    regions = heap.target.memory.regions()
    if not regions:
        raise NotFound(
            "the mappings of this target are not known, so nothing says where pointers can stand",
            "make a core with gcore and ask that",
        )
    threads = heap.target.threads
    notes = _unknown(threads)
    stacks, dead = _stacks(heap, regions)
    taken = _joined([*_heap_ranges(heap), *_own_variables(heap), *dead])
    ranges = list(_writable(regions, taken, stacks))
    for segment in heap.outlined:
        ranges += [Root(gap.start, gap.end, "damaged") for gap in segment.columns.gaps]
    registers = [(thread, name, value) for thread in threads for name, value in thread.registers]
    registers += _dtvs(heap)
    return Roots(ranges, registers, notes=notes)


def _unknown(threads: Sequence[HeapThread]) -> list[str]:
    """Say which registers and stack pointers nobody knows."""
    notes = []
    if not threads:
        notes.append("no thread is known: there are no registers, and stacks count as a whole")
    without = [str(thread.id) for thread in threads if not thread.registers]
    if without:
        whose = ", ".join(without[:8]) + (", …" if len(without) > 8 else "")
        notes.append(
            f"the registers of thread {whose} are not known: a block that only a register holds is "
            "taken for leaked (a core, or gdb, has them)"
        )
    lost = [str(thread.id) for thread in threads if thread.sp is None]
    if lost:
        whose = ", ".join(lost[:8]) + (", …" if len(lost) > 8 else "")
        notes.append(
            f"the stack pointer of thread {whose} is not known: old pointers below it may keep "
            "leaked blocks alive"
        )
    return notes


# --- what is no root ------------------------------------------------------------------------------


def _heap_ranges(heap: Heap) -> Iterator[Range]:
    for segment in heap.outlined:
        whole = heap.heap_max if segment.kind == "heap" else 0
        yield segment.start, max(segment.end, segment.start + whole)
    for chunk in heap.mmapped:
        yield chunk.start, chunk.end


def _own_variables(heap: Heap) -> Iterator[Range]:
    """Yield main_arena and mp_; the other arenas lie in their heaps."""
    target, structs = heap.target, heap.layout.structs
    arena = target.require_main_arena().address
    yield arena, arena + structs["malloc_state"].size
    if target.mp is not None:
        yield target.mp.address, target.mp.address + structs["malloc_par"].size


def _joined(ranges: Iterable[Range]) -> list[Range]:
    """Return ranges ascending, those that touch or overlap made one."""
    joined: list[Range] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        elif start < end:
            joined.append((start, end))
    return joined


def _stacks(heap: Heap, regions: Sequence[Region]) -> tuple[dict[int, Range], list[Range]]:
    """Return the part of each thread's stack that is in use, and the parts that are not.

    A thread's stack begins where its struct pthread says. The first thread's is not said there; it
    has a mapping of its own, as every stack has that shares its mapping with no other.
    """
    starts = [region.start for region in regions]
    by_region: dict[int, list[HeapThread]] = {}
    for thread in heap.target.threads:
        number = bisect_right(starts, thread.sp or 0) - 1
        if thread.sp is not None and number >= 0 and thread.sp < regions[number].end:
            by_region.setdefault(number, []).append(thread)
    used: dict[int, Range] = {}
    dead: list[Range] = []
    for number, threads in by_region.items():
        for thread in threads:
            assert thread.sp is not None
            known = _said_stack(heap, regions, thread)
            if known is None and len(threads) == 1:
                known = regions[number].start, regions[number].end
            if known is not None:
                used[thread.id] = thread.sp, known[1]
                dead.append((known[0], thread.sp))
    return used, dead


def _said_stack(heap: Heap, regions: Sequence[Region], thread: HeapThread) -> Range | None:
    """Return `stackblock` and its end out of struct pthread, whose fields' places differ.

    They are two words one after the other: a page that begins below the stack pointer, and a size
    that leads behind the thread pointer, which lies in the block's last pages. No file is behind
    any of it.
    """
    if thread.tp is None or thread.sp is None:
        return None
    word, page = heap.words.size, heap.page_size
    base = thread.tp - NEAR & -word
    for start, view in heap.words.spans(max(base, 0), thread.tp + NEAR):
        words = heap.words.cast(view)
        for at in range(len(words) - 1):
            low, size = words[at], words[at + 1]
            if low % page or not low <= thread.sp < low + size or size % page:
                continue
            if not low or start + at * word < low or not thread.sp <= thread.tp < low + size:
                continue
            if _no_file(regions, low, low + size):
                return low, low + size
    return None


def _no_file(regions: Sequence[Region], low: int, high: int) -> bool:
    """Whether no mapping in a range has a file behind it; a core leaves guard pages out."""
    first = max(bisect_right([region.start for region in regions], low) - 1, 0)
    last = bisect_left([region.start for region in regions], high)
    return all(region.anonymous or region.end <= low for region in regions[first:last])


def _dtvs(heap: Heap) -> list[tuple[HeapThread, str, int]]:
    """Return where the threads' DTVs begin: what points to them points behind two of their words.

    It is the C library's own block, and no interior pointer holds it.
    """
    control, word = CONTROL_BLOCKS.get(heap.layout.abi), heap.words.size
    found = []
    for thread in heap.target.threads if control is not None else ():
        try:
            dtv = heap.words.word((thread.tp or 0) + control.dtv) if control is not None else 0
        except (MemoryFault, OverflowError):
            continue
        if thread.tp is not None and dtv > 2 * word:
            found.append((thread, "dtv", dtv - 2 * word))
    return found


# --- what is left ---------------------------------------------------------------------------------


def _writable(
    regions: Sequence[Region], taken: Sequence[Range], stacks: dict[int, Range]
) -> Iterator[Root]:
    """Yield the writable mappings without what is *taken*, named by the file they belong to."""
    path, first, end = "", 0, 0
    for region in regions:
        if region.path != path and not (
            region.anonymous and not region.path and region.start == end
        ):
            path, first = region.path, region.start
        end = region.end
        if "w" not in region.perms:
            continue
        for low, high in _without(region, taken):
            yield from _split(Root(low, high, "data", None, path, low - first), stacks)


def name_of(regions: Sequence[Region], address: int) -> tuple[str, int]:
    """Return the file that an address belongs to, and the offset from its first mapping.

    Anonymous memory right behind a file's mappings is that file's (.bss). ("", 0) for others.
    """
    path, first, end = "", 0, 0
    for region in regions:
        if region.start > address:
            break
        bss = region.anonymous and not region.path and region.start == end
        if region.path != path and not bss:
            path, first = region.path, region.start
        end = region.end
    return (path, address - first) if path and address < end else ("", 0)


def _without(region: Region, taken: Sequence[Range]) -> Iterator[Range]:
    low = region.start
    for number in range(max(bisect_right(taken, (low, low)) - 1, 0), len(taken)):
        start, end = taken[number]
        if start >= region.end:
            break
        if end <= low:
            continue
        if start > low:
            yield low, start
        low = max(low, end)
    if low < region.end:
        yield low, region.end


def _split(root: Root, stacks: dict[int, Range]) -> Iterator[Root]:
    """Yield a range in pieces, those that are a thread's stack by name."""
    low = root.start
    inside = [(start, end, thread) for thread, (start, end) in stacks.items()]
    for first, last, thread in sorted(inside):
        start, end = max(first, low), min(last, root.end)
        if start >= end:
            continue
        if start > low:
            yield root._replace(start=low, end=start, offset=root.offset + low - root.start)
        yield Root(start, end, "stack", thread, root.name)
        low = end
    if low < root.end:
        yield root._replace(start=low, offset=root.offset + low - root.start)


# --- their bytes ----------------------------------------------------------------------------------


def buffers(heap: Heap, start: int, end: int, size: int | None = None) -> Iterator[Buffer]:
    """Yield what can be read of a range, without the zeros that the memory knows of.

    In pieces of *size* bytes; None: as they are.
    """
    memory = heap.target.memory
    parts = memory.possibly_set(start, end) if isinstance(memory, Sparse) else [(start, end)]
    for low, high in parts:
        if size is None:
            found: Iterable[tuple[int, memoryview]] = heap.words.spans(low, high)
        else:
            found = heap.words.blocks(low, high, size)
        for base, view in found:
            yield heap.words.buffer(base, view)


def root_buffers(heap: Heap, roots: Roots) -> Iterator[tuple[Root, Buffer]]:
    """Yield the bytes of all ranges. What cannot be read is counted in `roots.unread`."""
    sparse = isinstance(heap.target.memory, Sparse)
    total = sum(root.end - root.start for root in roots.ranges)
    done = 0
    for root in roots.ranges:
        read = 0
        heap.target.report("searching stacks and variables", done, total)
        done += root.end - root.start
        for buffer in buffers(heap, root.start, root.end, BLOCK):
            read += len(buffer.data)
            yield root, buffer
        if not sparse:
            roots.unread += max(root.end - root.start - read, 0)


def register_buffer(heap: Heap, roots: Roots) -> Buffer:
    """Return all registers as words of the target."""
    return as_words(heap, [value for _, _, value in roots.registers])


def as_words(heap: Heap, values: Iterable[int]) -> Buffer:
    """Return values as words of the target."""
    word = heap.words.size
    top = 1 << 8 * word
    data = b"".join((value % top).to_bytes(word, heap.words.order) for value in values)
    return heap.words.buffer(0, memoryview(data))


def scanned(heap: Heap, roots: Roots) -> Iterator[Buffer]:
    """Yield all that is scanned for pointers: the registers as words, then every range."""
    yield register_buffer(heap, roots)
    for _, buffer in root_buffers(heap, roots):
        yield buffer

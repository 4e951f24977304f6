"""Addresses of thread-local variables, through each thread's DTV; no libthread_db needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import MemoryFault
from ..glibc.threads import CONTROL_BLOCKS, MAX_MODULES, MOST_BEHIND_TID, ControlBlock
from ..heap.segments import coalesce
from ..heap.words import Words
from ..memory import Region
from ..source import Thread

BLOCK = 16 << 20  # bytes looked at in one piece
STEP = 16  # alignment of a thread control block, at least
MOST_GENERATIONS = 1 << 20  # of a DTV: how often libraries were loaded and unloaded
MOST_STATIC = 1 << 20  # bytes from a thread pointer to the TLS block of a library loaded at start


def tls_blocks(words: Words, tp: int) -> list[tuple[int, int]]:
    """Return (module number, address of its TLS block) for what a thread's DTV names.

    DTV and blocks may come from malloc, which may have given their addresses a tag.
    """
    control = CONTROL_BLOCKS.get(words.layout.abi)
    if control is None:
        return []
    mask = words.layout.address_mask
    try:
        dtv = words.word(tp + control.dtv) & mask
        length = words.word(dtv - 2 * words.size)
        entries = words.words(dtv, 2 * (min(length, MAX_MODULES) + 1))
    except MemoryFault:
        return []
    unallocated = words.layout.max_address
    return [
        (module, entries[2 * module] & mask)
        for module in range(1, len(entries) // 2)
        if entries[2 * module] not in (0, unallocated)
    ]


def find_thread_pointers(
    words: Words, threads: Sequence[Thread], pid: int | None, regions: Sequence[Region]
) -> dict[int, int]:
    """Return thread pointers by thread id, found by structure, for threads that have none.

    A control block holds its own address twice, and the kernel's thread id, on x86; on arm what is
    in front of it has the id, and an empty list of robust mutexes. Other ports cannot be searched.
    The main thread of a program that never linked libpthread (before 2.34) has no id in its block;
    on x86 it is taken if it is the only block without one.
    """
    control = CONTROL_BLOCKS.get(words.layout.abi)
    wanted = {thread.id for thread in threads if thread.tp is None}
    if control is None or not wanted:
        return {}
    if control.robust:
        return _by_robust_lists(words, control, threads, wanted, regions)
    if control.tid is None:
        return {}
    found: dict[int, int] = {}
    nameless: list[int] = []
    for start, end in _order(coalesce(regions), threads):
        for tp in _self_pointers(words, control, start, end):
            tid = words.numbers(tp + control.tid, 4, 1)[0]
            if tid in wanted:
                found.setdefault(tid, tp)
            elif tid == 0:
                nameless.append(tp)
        if len(found) == len(wanted):
            return found
    if len(nameless) == 1 and len(threads) == 1 and pid in wanted:
        found[threads[0].id] = nameless[0]
    return found


def _order(ranges: Sequence[tuple[int, int]], threads: Sequence[Thread]) -> list[tuple[int, int]]:
    """Put stacks of threads first, then small ranges: control blocks are there."""
    stacks = [thread.sp for thread in threads if thread.sp]

    def rank(whole: tuple[int, int]) -> tuple[bool, int]:
        return (not any(whole[0] <= sp < whole[1] for sp in stacks), whole[1] - whole[0])

    return sorted(ranges, key=rank)


def _self_pointers(words: Words, control: ControlBlock, start: int, end: int) -> Iterator[int]:
    """Yield the addresses in a range whose words say that they are a control block."""
    first, *others = control.self_pointers
    for address in _own_addresses(words, start, end, STEP):
        if _repeats(words, address, others, control):
            yield address - first


def _own_addresses(words: Words, start: int, end: int, step: int) -> Iterator[int]:
    """Yield the addresses in a range, multiples of *step*, whose word is the address itself."""
    stride = step // words.size
    for base, view in words.blocks(start, end, BLOCK):
        skip = -base % step // words.size
        column = words.cast(view)[skip::stride].tolist()
        addresses = range(base + skip * words.size, base + len(view), step)
        yield from [a for a, value in zip(addresses, column) if a == value]


def _repeats(words: Words, address: int, others: Sequence[int], control: ControlBlock) -> bool:
    try:
        if control.tid is not None:
            words.numbers(address + control.tid, 4, 1)
        return all(words.word(address + offset) == address for offset in others)
    except MemoryFault:
        return False


def _by_robust_lists(
    words: Words,
    control: ControlBlock,
    threads: Sequence[Thread],
    wanted: set[int],
    regions: Sequence[Region],
) -> dict[int, int]:
    """Return thread pointers by the thread ids that stand in front of empty robust lists."""
    found: dict[int, int] = {}
    for start, end in _order(coalesce(regions), threads):
        for address in _own_addresses(words, start, end, words.size):
            for distance in control.robust:
                tid = _number(words, address - distance)
                if tid in wanted and tid not in found:
                    tp = _pointer_behind(words, control, address)
                    found.update({} if tp is None else {tid: tp})
        if len(found) == len(wanted):
            break
    return found


def _number(words: Words, address: int) -> int | None:
    try:
        return words.numbers(address, 4, 1)[0]
    except MemoryFault:
        return None


def _pointer_behind(words: Words, control: ControlBlock, address: int) -> int | None:
    """Return the place behind *address* with a DTV, one of whose blocks comes closest behind it."""
    first = address + -address % STEP
    found: list[tuple[int, int]] = []
    for tp in range(first, first + MOST_BEHIND_TID, STEP):
        try:
            generation = words.word(words.word(tp + control.dtv))
        except MemoryFault:
            continue
        blocks = tls_blocks(words, tp) if generation < MOST_GENERATIONS else []
        found += [(block - tp, tp) for _, block in blocks if 0 < block - tp < MOST_STATIC]
    return min(found)[1] if found else None

"""What the thread that died has at hand: the words of its registers and stack, newest first."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

from ...errors import MemoryFault
from ...heap.heap import Heap
from ...heap.target import HeapThread

DEPTH = 1 << 14  # bytes of the stack: the frames of abort, of malloc, and of its callers
PIECE = 1 << 12
FAULTS = (7, 11)  # SIGBUS, SIGSEGV
OLDER = 4  # what a word of the caller's counts against one of malloc's own
REGISTER = 16  # words from the call: what registers are taken for after an abort
BEHIND = 1 << 30
LIBC = re.compile(r"/(?:ld|ld-linux[^/]*|libc|libpthread|libc_malloc_debug)[-.][^/]*so[^/]*$")


def dying_thread(heap: Heap) -> HeapThread | None:
    """Return the thread that the signal hit, else the first; None if no thread is known."""
    threads = heap.target.threads
    return next((one for one in threads if one.stop is not None), threads[0] if threads else None)


def words_at_hand(heap: Heap, thread: HeapThread | None) -> list[int]:
    """Return the words of a thread's stack and registers, those near the call of malloc's first.

    The call is where the stack has the newest address of the program's own code: around it lie
    what malloc works on, and what its caller keeps. After a fault the registers come first.
    """
    if thread is None:
        return []
    stack = _stack(heap, thread.sp)
    border = _border(heap, thread, stack)
    crashed = thread.stop is not None and thread.stop.signal in FAULTS
    near: dict[int, int] = {}
    for number, value in enumerate(stack):
        far = border - number if number < border else OLDER * (number - border + 1)
        near[value] = min(near.get(value, BEHIND), far)
    for _, value in thread.registers:
        near[value] = min(near.get(value, BEHIND), -1 if crashed else REGISTER)
    if heap.layout.abi == "i386" and border + 1 < len(stack) and border:
        near[stack[border + 1]] = 0  # the first argument
    mask = heap.layout.address_mask
    return list(dict.fromkeys(value & mask for value in sorted(near, key=near.__getitem__)))


def _border(heap: Heap, thread: HeapThread, stack: Sequence[int]) -> int:
    """Return the number of the newest word that leads into the program's own code; 0: none."""
    code = [one for one in heap.target.memory.regions() if "x" in one.perms]
    starts = [one.start for one in code]
    pc = None if thread.stop is None else thread.stop.pc
    library = next((r.path for r in code if pc is not None and r.start <= pc < r.end), "")
    for number, value in enumerate(stack):
        at = bisect_right(starts, value) - 1
        if at < 0 or value >= code[at].end:
            continue
        path = code[at].path
        if path != library and path and not path.startswith("[") and not LIBC.search(path):
            return number
    return 0


def _stack(heap: Heap, sp: int | None) -> list[int]:
    """Return the words of a stack, the newest first."""
    stack: list[int] = []
    if sp is None:
        return stack
    sp += -sp % heap.words.size
    for start in range(sp, sp + DEPTH, PIECE):
        found = _words(heap, start, PIECE)
        stack += found
        if not found:
            break
    return stack


def _words(heap: Heap, start: int, size: int) -> Sequence[int]:
    while size >= heap.words.size:
        try:
            return heap.words.words(start, size // heap.words.size)
        except MemoryFault:
            size //= 2
    return ()

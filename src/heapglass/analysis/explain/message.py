"""What malloc said before it ended the program: `__abort_msg`, or what a user saw and hands on.

glibc keeps the text in a mapping of its own (struct abort_msg_s: an int with the mapping's size,
then the text), which the variable `__abort_msg` of libc leads to. Without its symbol the mapping is
told by its shape. Until 2.35 a failed assertion of malloc's is only printed: it is left on the
stack, where the buffer of standard error was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import MemoryFault
from ...glibc.messages import ASSERTIONS, MESSAGES
from ...heap.heap import Heap
from ...heap.segments import coalesce
from ...heap.target import HeapThread

MOST = 1 << 12  # bytes of a message
AT_ONCE = 16 << 20  # bytes that are looked at in one piece
IN_ALL = 1 << 30  # bytes of anonymous memory that are looked at for the mapping
PAGE = 4096
FRAME = re.compile(r"\*\*\* Error in `.*': (?P<text>.*): 0x(?P<at>[0-9a-f]+) \*\*\*", re.S)
ASSERT = re.compile(r"(?:[^:]*: )?(?P<text>(?:malloc|arena|hooks)\.c:\d+: .*)", re.S)
PRINTED = re.compile(rb"(?:malloc|arena|hooks)\.c:\d+: \w+: Assertion `[^\0\n]*' failed\.")
BELOW = 1 << 14  # bytes below the stack pointer in which such a buffer was: it has 8192
TEXTS = {row.text for row in MESSAGES}
EXPRESSIONS = {row.expression for row in ASSERTIONS}


class Said(NamedTuple):
    """What malloc said."""

    text: str  # without the frame of 2.23 to 2.26, and without the program's name
    how: str  # "__abort_msg", "--message", "stack" or "trace"
    pointer: int | None = None  # the address in that frame


def find_message(heap: Heap, given: str | None, thread: HeapThread | None) -> Said | None:
    """Return what malloc said in the thread that died; None if nothing says it."""
    if given is not None:
        return _plain(given, "--message")
    for one in heap.target.threads:
        if one.stop is not None and one.stop.message is not None:
            return _plain(one.stop.message, "trace")
    variables = heap.target.addresses_of("__abort_msg")
    texts = (_text_of(heap, at) for at in variables) if variables else _by_shape(heap)
    found = next((text for text in texts if text), None)
    if found is not None:
        return _plain(found, "__abort_msg")
    printed = _below_stack(heap, thread)
    return None if printed is None else _plain(printed, "stack")


def _below_stack(heap: Heap, thread: HeapThread | None) -> str | None:
    """Return a failed assertion of malloc's that was printed from a buffer on the stack."""
    if thread is None or thread.sp is None or thread.sp < BELOW:
        return None
    try:
        data = heap.target.memory.read(thread.sp - BELOW, BELOW)
    except MemoryFault:
        return None
    texts = (found[0].decode("ascii", "backslashreplace") for found in PRINTED.finditer(data))
    return next((text for text in texts if is_mallocs(text)), None)


def is_mallocs(text: str) -> bool:
    """Whether a text is one of malloc's own."""
    return text in TEXTS or any(expression in text for expression in EXPRESSIONS)


def _plain(text: str, how: str) -> Said:
    text = text.strip()
    frame = FRAME.match(text)
    if frame:
        return Said(frame["text"], how, int(frame["at"], 16))
    assertion = ASSERT.match(text)
    return Said(assertion["text"] if assertion else text, how)


def _text_of(heap: Heap, variable: int) -> str | None:
    """Return the text that a variable leads to."""
    try:
        return _text_at(heap, heap.words.word(variable))
    except MemoryFault:
        return None


def _text_at(heap: Heap, mapping: int) -> str | None:
    """Return the text in the mapping at an address; None if there is none."""
    if not mapping:
        return None
    for length in (MOST, PAGE - 4, 256):
        try:
            data = heap.target.memory.read(mapping + 4, length)
        except MemoryFault:
            continue
        text = data.split(b"\0", 1)[0]
        return text.decode("ascii", "backslashreplace") or None
    return None


def _by_shape(heap: Heap) -> Iterator[str]:
    """Yield texts of malloc's in pages that begin with a whole number of pages: their own size."""
    left = IN_ALL
    taken = [(segment.start, segment.end) for segment in heap.segments]
    for low, end in coalesce(heap.target.memory.regions()):
        start = low + -low % PAGE
        if left <= 0:
            return
        if any(first < end and start < last for first, last in taken):
            continue
        left -= end - start
        for base, view in heap.words.blocks(start, end, AT_ONCE):
            numbers = view[: len(view) // 4 * 4].cast("I")[(-base % PAGE) // 4 :: PAGE // 4]
            for number, size in enumerate(numbers.tolist()):
                plain = size if heap.words.order == "little" else _swapped(size)
                if plain and plain % PAGE == 0 and plain <= 1 << 16:
                    text = _text_at(heap, base + -base % PAGE + number * PAGE)
                    if text is not None and is_mallocs(_plain(text, "").text):
                        yield text


def _swapped(number: int) -> int:
    return int.from_bytes(number.to_bytes(4, "little"), "big")

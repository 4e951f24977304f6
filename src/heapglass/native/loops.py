"""The loops in plain Python. Everything they need is bound to a local: a step is about 100 ns."""

from __future__ import annotations

from array import array


def walk_sizes(
    words: memoryview,
    base: int,
    start: int,
    end: int,
    word: int,
    alignment: int,
    min_chunk: int,
    addresses: array[int],
    sizes: array[int],
) -> int:
    """Append the chunks that lie behind each other from *start* to *end*; return where it stopped.

    *words* is memory from *base* on, as integers of *word* bytes. *addresses* gets the chunks,
    *sizes* their size words, flags included. The result is *end* if the chunks fill the range to
    the byte, else the address of the first chunk whose size cannot be one: below MINSIZE, not
    aligned, or past *end*; that chunk is not appended.
    """
    shift = word.bit_length() - 1
    position, last = (start - base) >> shift, (end - base) >> shift
    last = min(last, len(words) - 1)  # a chunk's size word must be in the buffer
    smallest, wrong = min_chunk >> shift, (alignment - 1) & ~7
    add_address, add_size = addresses.append, sizes.append
    limit = (end - base) >> shift
    while position < last:
        size = words[position + 1]
        step = (size & ~7) >> shift
        if step < smallest or size & wrong or position + step > limit:
            break
        add_address(base + (position << shift))
        add_size(size)
        position += step
    return base + (position << shift)

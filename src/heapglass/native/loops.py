"""The loops in plain Python: the same answers as the compiled ones, at about 100 ns a step."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from .buffer import Buffer, Cells, Chain, Keep, Places
from .hidden import Hidden
from .kinds import Requests
from .loops_graph import LoopsGraph
from .loops_kinds import LoopsKinds
from .rows import Numbered, Rows, lowest_bytes, rows_of

PREV_INUSE, SIZE_BITS = 1, 7
LAST = (1 << 64) - 1  # of all addresses
USED, CORRUPT, UNKNOWN = 0, 7, 8
STATES = 9
MOST_STEPS = 1 << 12  # size words that a walk remembers
LEAST_COMMON = 2  # bytes that are worth a search
SEARCHED = 1 << 24  # bytes of a buffer that are copied at once


def walk_sizes(
    buffer: Buffer,
    start: int,
    end: int,
    alignment: int,
    min_chunk: int,
    addresses: array[int],
    sizes: array[int],
) -> int:
    """Append the chunks that lie behind each other from *start* to *end*; return where it stopped.

    *addresses* gets the chunks, *sizes* their size words, flags included. The result is *end* if
    the chunks fill the range to the byte, else the address of the first chunk whose size cannot be
    one (below MINSIZE, not aligned, or past *end*) or is not in the buffer; that chunk is not
    appended.
    """
    words, base = buffer.words, buffer.base
    shift = buffer.word.bit_length() - 1
    if start < base or end <= start or (start - base) % buffer.word:
        return start
    position, limit = (start - base) >> shift, (end - base) >> shift
    last = min(limit, len(words) - 1)  # a chunk's size word must be in the buffer
    smallest, wrong = min_chunk >> shift, (alignment - 1) & ~7
    steps: dict[int, tuple[int, int]] = {}  # by size words that can be one
    add_address, add_size = addresses.append, sizes.append
    at = base + (position << shift)
    while position < last:
        size = words[position + 1]
        try:
            step, room = steps[size]
        except KeyError:
            room = size & ~7
            step = room >> shift
            if step < smallest or size & wrong or position + step > limit:
                break
            if len(steps) < MOST_STEPS:
                steps[size] = step, room
        add_address(at)
        add_size(size)
        position += step
        at += room
    if position > limit:  # the last one runs past the end
        sizes.pop()
        at = addresses.pop()
    return at


def walk_landmarks(
    buffer: Buffer,
    start: int,
    end: int,
    alignment: int,
    min_chunk: int,
    keep: Keep,
    addresses: array[int],
    sizes: array[int],
) -> int:
    """Walk as `walk_sizes` does, but append few of the rows: enough to find any other from.

    They are the first and the last, those at marks and behind one, those with P clear, the first
    one a stretch or more behind the one that was kept before; and with each of them the row before.
    """
    words, base = buffer.words, buffer.base
    shift = buffer.word.bit_length() - 1
    if start < base or end <= start or (start - base) % buffer.word:
        return start
    first, limit = (start - base) >> shift, (end - base) >> shift
    last = min(limit, len(words) - 1)
    smallest, wrong = min_chunk >> shift, (alignment - 1) & ~SIZE_BITS
    steps: dict[int, int] = {}
    position = before = until = first
    while position < last:
        size = words[position + 1]
        try:
            step = steps[size]
        except KeyError:
            step = (size & ~SIZE_BITS) >> shift
            if step < smallest or size & wrong or position + step > limit:
                break
            if len(steps) < MOST_STEPS:
                steps[size] = step
        if position >= until or not size & PREV_INUSE:
            if position + step > limit:
                break
            at = base + (position << shift)
            prior = base + (before << shift)
            if position > first and addresses[-1] != prior:
                addresses.append(prior)
                sizes.append(words[before + 1])
            addresses.append(at)
            sizes.append(size)
            until = -((base - _kept_next(keep, at)) >> shift)
        before = position
        position += step
    if position > limit:  # the last one runs past the end
        position = before
    stop = base + (position << shift)
    if position > first:
        rest = array("Q"), array("Q")
        walk_sizes(buffer, addresses[-1], stop, alignment, min_chunk, *rest)
        for whole, part in zip((addresses, sizes), rest):
            whole.extend(part[1:][-2:])
    return stop


def _kept_next(keep: Keep, at: int) -> int:
    """Return the address from which on a row is kept next, behind the one at *at*."""
    number = bisect_left(keep.marks, at)
    mark = keep.marks[number] if number < len(keep.marks) else LAST
    return min(mark if mark > at else at + 1, at + keep.stretch, LAST)


def find_chain(buffer: Buffer, places: Places, chain: Chain) -> int:
    """Return the first place, by the alignment, from which a chain leads; the last if none does.

    In a chain, where a chunk's P is clear its prev_size is the size of the chunk before. What was
    followed in vain is not followed again.
    """
    (first, last), base, shift = places, buffer.base, buffer.word.bit_length() - 1
    if first < base or (first - base) % buffer.word or last > chain.limit:
        return last
    words, failed = buffer.words, set[int]()
    wrong = chain.wrong | ((chain.alignment - 1) & ~SIZE_BITS)
    stop = min(last, base + len(words) * buffer.word)
    for start in range(first, stop, chain.alignment):
        number = ((start - base) >> shift) + 1
        if number >= len(words) or words[number] & wrong or words[number] < chain.least:
            continue  # most end here
        followed = _follow(words, base, shift, start, chain, wrong, failed)
        if followed is None:
            return start
        failed.update(at for at in followed if at < last)
    return last


def _follow(
    words: memoryview,
    base: int,
    shift: int,
    start: int,
    chain: Chain,
    wrong: int,
    failed: set[int],
) -> list[int] | None:
    """Return the chunks that lie behind each other from *start* on; None if they are a chain."""
    at, before, count = start, 0, 0
    followed: list[int] = []
    while at not in failed:
        if at == chain.limit and at > chain.past:
            return None
        number = (at - base) >> shift
        if at >= chain.limit or number + 1 >= len(words):
            break
        field = words[number + 1]
        size = field & ~SIZE_BITS
        if size < chain.least or field & wrong or size > chain.limit - at:
            break
        if at != start and not field & PREV_INUSE and words[number] != before:
            break
        count += at >= chain.past
        if count >= chain.need:
            return None
        followed.append(at)
        before, at = size, at + size
    return followed


def judge_flags(sizes: array[int], states: bytearray) -> list[int]:
    """Mark as unknown the used rows that no header says to be in use.

    Returns the rows that a believable header says to be free.
    """
    flagged_free = []
    for row in _without_flag(sizes):
        if row and states[row - 1] == USED and states[row] != CORRUPT:
            states[row - 1] = UNKNOWN
            flagged_free.append(row - 1)
    for row in rows_of(states, CORRUPT):
        if row and states[row - 1] == USED:
            states[row - 1] = UNKNOWN  # the header that would tell is not to be believed
    if states and states[-1] == USED:
        states[-1] = UNKNOWN  # the memory behind it is missing
    return flagged_free


def _without_flag(sizes: array[int]) -> Iterator[int]:
    """Yield the rows whose size word has no PREV_INUSE."""
    return rows_of(lowest_bytes(sizes).translate(_FLAG), 0)


_FLAG = bytes(byte & PREV_INUSE for byte in range(256))


def find_runs(
    addresses: array[int],
    sizes: array[int],
    states: bytearray,
    wanted: Sequence[int],
    least: int,
) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Return the runs of chunks of *wanted* states that have *least* bytes: first and last row.

    And the bytes and the first row of the largest of all runs, however small; (0, 0): none.
    """
    pattern = re.compile(b"[%s]+" % b"".join(re.escape(bytes([state])) for state in wanted))
    runs, best = [], (0, 0)
    for found in pattern.finditer(states):
        first, end = found.span()
        while first < end:
            row, behind = first, addresses[first]
            while row < end and addresses[row] == behind:
                behind += sizes[row] & ~SIZE_BITS
                row += 1
            size = behind - addresses[first]
            best = max(best, (size, first), key=lambda one: one[0])
            if size >= least:
                runs.append((first, row - 1))
            first = row
    return runs, best


def add_cells(
    addresses: array[int],
    sizes: array[int],
    states: bytearray,
    cells: Cells,
    classes: Sequence[int],
) -> array[int]:
    """Return the bytes of chunks by cell, in a cell by class; *classes*: that of each state."""
    kinds = max(classes) + 1
    base, unit, count = cells
    out = array("Q", [0]) * (count * kinds)
    for start, field, state in zip(addresses, sizes, states):
        kind, at, end = classes[state], max(start, base), min(start + (field & ~SIZE_BITS), LAST)
        cell = (at - base) // unit
        while cell < count and at < end:
            stop = min(end, base + (cell + 1) * unit)
            out[cell * kinds + kind] += stop - at
            at, cell = stop, cell + 1
    return out


def count_pairs(
    sizes: array[int], states: bytearray, first: int = 0, last: int | None = None
) -> Counter[tuple[int, int]]:
    """Return how many of the rows from *first* to *last* there are of each (state, size word)."""
    some, them = states[first:last], memoryview(sizes)[first:last]
    usual = max(range(STATES), key=some.count)  # most are alike: their sizes alone are counted
    sums = Counter(them)
    counts: Counter[tuple[int, int]] = Counter()
    for row in rows_of(some.translate(bytes(state != usual for state in range(256))), 1):
        sums[them[row]] -= 1
        counts[some[row], them[row]] += 1
    counts.update({(usual, size): count for size, count in sums.items() if count})
    return counts


def select_rows(
    sizes: array[int],
    states: bytearray,
    groups: Mapping[tuple[int, int], int],
    counts: Sequence[int],
    first: int = 0,
    last: int | None = None,
) -> array[int]:
    """Return the rows whose (state, size word) is in *groups*, one group behind the other.

    *counts*: how many rows each group has room for; within a group rows are ascending.
    """
    first, end, _ = slice(first, last).indices(len(sizes))
    pairs = zip(memoryview(states)[first:end], memoryview(sizes)[first:end])
    found: list[array[int]] = [array("Q") for _ in counts]
    for row, pair in enumerate(pairs, first):
        group = groups.get(pair)
        if group is not None:
            found[group].append(row)
    rows = array("Q")
    for rows_of_group, most in zip(found, counts):
        rows += rows_of_group[:most]
        rows.extend([0] * (most - len(rows_of_group)))
    return rows


def follow_ring(
    buffer: Buffer,
    bin_: int,
    link: int,
    alignment: int,
    least: int,
    most: int,
    chunks: array[int],
) -> int:
    """Follow fd from *link* while all is sound; append to *chunks*; return where it ended.

    Sound: aligned, in the buffer, bk is the chunk before, the size is from *least* to *most* (0:
    any). It ended at *bin_* if the list is sound as a whole. It goes no further than there can be
    chunks in the buffer, so that a loop ends too.
    """
    words, base, word = buffer.words, buffer.base, buffer.word
    header, before, count = 2 * word, bin_, 0
    room = len(buffer.data) // (4 * word)
    while link != bin_ and count < room:
        at, odd = divmod(link - base, word)
        if link < base or odd or at + 4 > len(words) or (link + header) & (alignment - 1):
            break
        size = words[at + 1] & ~SIZE_BITS
        if size < least or (most and size > most) or size <= header or words[at + 3] != before:
            break
        chunks.append(link)
        count += 1
        before, link = link, words[at + 2]
    return link


def words_between(buffer: Buffer, low: int, high: int, mask: int) -> list[int]:
    """Return the addresses of the aligned words whose value is in [low, high), ascending.

    *mask*: what of a word counts. The buffer must begin at a multiple of the word.
    """
    base, word = buffer.base, buffer.word
    plain_words = Hidden(low, high, 0, 0)
    whole = low >= 0 and not base % word and not ~mask & (1 << 8 * word) - 1
    if whole and len(_in_common(buffer, plain_words)[1]) >= LEAST_COMMON:
        return hidden_words(buffer, plain_words)
    return [base + n * word for n, value in enumerate(buffer.words) if low <= value & mask < high]


def hidden_words(buffer: Buffer, hidden: Hidden) -> list[int]:
    """Return the addresses of the aligned words whose plain value is in [low, high), ascending.

    What all such words have in common is looked for first, where that is whole bytes.
    """
    word = buffer.word
    skip = -buffer.base % word
    data, found = buffer.data[skip:], []
    order: Any = buffer.order
    first, last = hidden.behind
    for at in _candidates(data, buffer, hidden):
        value = plain(int.from_bytes(data[at : at + word], order), hidden, word)
        if not hidden.low <= value < hidden.high:
            continue
        if first != last:
            behind = bytes(data[at + word : at + 2 * word])
            if len(behind) < word:
                continue
            if not first <= plain(int.from_bytes(behind, order), hidden, word) < last:
                continue
        found.append(buffer.base + skip + at)
    return found


def plain(stored: int, hidden: Hidden, word: int) -> int:
    """Return the plain value of a word of *word* bytes."""
    bits = 8 * word
    turn = hidden.rotate % bits
    return (stored >> turn | stored << (bits - turn)) & ((1 << bits) - 1) ^ hidden.key


def _candidates(data: memoryview, buffer: Buffer, hidden: Hidden) -> Iterator[int]:
    """Yield the offsets of words that may be hidden ones."""
    word, whole = buffer.word, len(data) // buffer.word * buffer.word
    start, common = _in_common(buffer, hidden)
    if len(common) < LEAST_COMMON:
        yield from range(0, whole, word)
        return
    for base in range(0, whole, SEARCHED):
        piece = bytes(data[base : min(base + SEARCHED, whole)])
        at = piece.find(common, start)
        while at >= 0:
            over = (at - start) % word
            if not over:
                yield base + at - start
            at = piece.find(common, at - over + word)


def _in_common(buffer: Buffer, hidden: Hidden) -> tuple[int, bytes]:
    """Return the bytes that all such words have in common, and where in a word they stand."""
    word, bits = buffer.word, 8 * buffer.word
    if not hidden.low < hidden.high <= 1 << bits:
        return 0, b""
    differ = (1 << (hidden.low ^ (hidden.high - 1)).bit_length()) - 1
    turn = hidden.rotate % bits

    def stored(value: int) -> bytes:
        turned = (value << turn | value >> (bits - turn)) & ((1 << bits) - 1)
        return turned.to_bytes(word, buffer.order)  # type: ignore[arg-type]

    same = [not byte for byte in stored(differ)]
    value = stored(hidden.low ^ hidden.key)
    runs = [(len(list(run)), is_same) for is_same, run in groupby(same)]
    start = at = longest = 0
    for length, is_same in runs:
        if is_same and length > longest:
            start, longest = at, length
        at += length
    return start, value[start : start + longest]


def make_graph(parts: Sequence[Rows], word: int, swap: bool, mask: int) -> LoopsGraph:
    """Return the blocks of *parts* as a graph; *mask*: what of a word is an address."""
    return LoopsGraph(parts, word, swap, mask)


def make_kinds(graph: Numbered, requests: Requests) -> LoopsKinds:
    """Return the kinds of a graph's blocks, none of which is told yet."""
    assert isinstance(graph, LoopsGraph)
    return LoopsKinds(graph, requests)

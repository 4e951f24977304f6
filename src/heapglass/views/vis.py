"""`vis`: memory drawn chunk by chunk. Colours tell neighbours apart, and so do the frames."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from ..errors import MemoryFault, NotFound
from ..glibc.layout import flag_letters
from ..heap.heap import Chunk, Heap
from ..heap.segments import Segment
from ..heap.target import Target
from ..table import Address, Answer, Data, Lines, Part, Style, Tag
from .cells import chunk_data, finish, thread_text

HUES = (Style.ONE, Style.TWO, Style.THREE, Style.FOUR, Style.FIVE, Style.SIX)
CHUNKS = 24  # drawn if nothing else is said
MOST_BYTES = 1 << 16  # of one chunk that are read for a drawing
FEW_ROWS = 3  # of top, and of a chunk whose size is not to be believed
Line = list[Tag]


def vis(target: Target, request: Any) -> Answer:
    """Draw memory chunk by chunk."""
    heap = Heap(target)
    heap.target.require_main_arena()
    chosen = list(_choose(heap, request))
    lines = chain.from_iterable(
        _draw(heap, chunk, HUES[number % len(HUES)], request.all)
        for number, chunk in enumerate(chosen)
    )
    parts: list[Part] = [
        Lines(lines if chosen else [[Tag("no chunk was found", Style.DIM)]]),
        Data("chunks", [_data(heap, chunk) for chunk in chosen]),
    ]
    return finish(heap, "vis", parts)


def _choose(heap: Heap, request: Any) -> Iterator[Chunk]:
    """Yield the chunks to draw: from an address on, else from the first heap's start."""
    count = request.count or request.limit or CHUNKS
    if request.address is None:
        return islice(heap.every_chunk(), count)
    place = heap.find(request.address)
    if place is None:
        mapped = heap.find_mmapped(request.address)
        if mapped is None:
            raise NotFound(
                f"{request.address:#x} is in no chunk that is known",
                "heap chunks lists them; heap whatis ADDR tells what an address is",
            )
        return iter([heap.mmapped_as_chunk(mapped)])
    return _following(heap, *place, count)


def _following(heap: Heap, segment: Segment, row: int, count: int) -> Iterator[Chunk]:
    for number in range(row, min(row + count, len(segment.columns))):
        yield heap.chunk_at(segment, number)


def _data(heap: Heap, chunk: Chunk) -> dict[str, Any]:
    data = chunk_data(heap, chunk) or {}
    rows = [
        {"address": Address(at), "words": [Address(word) for word in words], "repeat": repeat}
        for at, words, repeat in _folded(_rows(heap, chunk))
    ]
    return {**data, "rows": rows}


def _draw(heap: Heap, chunk: Chunk, hue: Style, whole: bool) -> Iterator[Line]:
    """Yield the lines of a chunk: a head line that names it, then its words two a line."""
    yield [Tag("╭─ ", hue), Tag(_head(chunk), Style.STRONG), *_marks(heap, chunk)]
    rows = _rows(heap, chunk)
    folded = [(at, words, 1) for at, words in rows] if whole else list(_folded(rows))
    for at, words, repeat in folded:
        yield _words_line(heap, chunk, at, words, hue)
        if repeat > 1:
            more = (repeat - 1) * 2 * heap.words.size
            times = "once" if repeat == 2 else f"{repeat - 1} times"
            said = f"  … the same {times} more ({more:#x} bytes)"
            yield [Tag("│ ", hue), Tag(said, Style.DIM)]
    drawn = len(rows) * 2 * heap.words.size
    if chunk.size > drawn and chunk.state != "corrupt":
        yield [Tag("│ ", hue), Tag(f"  … {chunk.size - drawn:#x} bytes more, not drawn", Style.DIM)]


def _head(chunk: Chunk) -> str:
    flags = flag_letters(chunk.size_field) or "-"
    return f"{chunk.address:#x}  size {chunk.size:#x}  {flags}  {chunk.state or '?'}"


def _marks(heap: Heap, chunk: Chunk) -> list[Tag]:
    """Return what stands behind a chunk's head: its bin and place, its owner."""
    marks = []
    listed = chunk.listed
    if listed is not None:
        place = listed.chunks.index(chunk.address) + 1
        whose = f", thread {thread_text(heap, listed.thread)}" if listed.thread else ""
        marks.append(Tag(f"  ← {listed.label} {place}/{len(listed.chunks)}{whose}", Style.NOTE))
    if chunk.owner:
        marks.append(Tag(f"  ← the allocator's own ({chunk.owner})", Style.NOTE))
    if any(arena.last_remainder == chunk.address for arena in heap.arenas):
        marks.append(Tag("  ← last_remainder", Style.NOTE))
    return marks


def _rows(heap: Heap, chunk: Chunk) -> list[tuple[int, tuple[int, ...]]]:
    """Read a chunk two words a row; what cannot be read ends it."""
    pair = 2 * heap.words.size
    size = max(min(chunk.size, MOST_BYTES), pair)
    if chunk.state in ("top", "corrupt", "fencepost"):
        size = min(size, FEW_ROWS * pair)
    rows = []
    for at in range(chunk.address, chunk.address + size - pair + 1, pair):
        try:
            rows.append((at, heap.words.words(at, 2)))
        except MemoryFault:
            break
    return rows


def _folded(
    rows: list[tuple[int, tuple[int, ...]]],
) -> Iterator[tuple[int, tuple[int, ...], int]]:
    """Yield (address, words, how many rows in a row are like it); the header stays alone."""
    number = 0
    while number < len(rows):
        at, words = rows[number]
        same = number + 1
        while number and same < len(rows) and rows[same][1] == words:
            same += 1
        yield at, words, same - number
        number = same


def _words_line(heap: Heap, chunk: Chunk, at: int, words: tuple[int, ...], hue: Style) -> Line:
    width = 2 * heap.words.size
    shown = "  ".join(f"{word:0{width}x}" for word in words)
    data = b"".join(word.to_bytes(heap.words.size, heap.words.order) for word in words)
    text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)
    frame, place = Tag("│ ", hue), Tag(f"{at:#x}  ", Style.DIM)
    line = [frame, place, Tag(shown, hue), Tag(f"  {text}", Style.DIM)]
    if at == chunk.address:
        line.append(Tag("  prev_size, size", Style.DIM))
    elif at == chunk.address + heap.layout.header and chunk.state == "free":
        line.append(Tag("  fd, bk", Style.DIM))
    elif at == chunk.address + heap.layout.header and chunk.state == "fast":
        line.append(Tag("  fd", Style.DIM))
    elif at == chunk.address + heap.layout.header and chunk.state == "tcache":
        line.append(Tag("  next, key", Style.DIM))
    return line

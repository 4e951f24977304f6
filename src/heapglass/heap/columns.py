"""Chunks as columns: one `Columns` a segment, filled by one walk over one buffer."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import MemoryFault
from ..glibc.layout import PREV_INUSE, SIZE_BITS
from ..native import Buffer, Chain, Keep, find_chain, walk_landmarks, walk_sizes
from .words import Words

# States, as stored in the column; UNKNOWN is what neither flags nor lists prove.
USED, FREE, TCACHE, FAST, TOP, MMAPPED, FENCEPOST, CORRUPT, UNKNOWN = range(9)
STATE_NAMES = (
    "used",
    "free",
    "tcache",
    "fast",
    "top",
    "mmapped",
    "fencepost",
    "corrupt",
    None,
)


OVERLAP = 64  # bytes behind a window that a look at its last chunk reads
MOST_SEARCHED = 16 << 20  # bytes in which the foot of a destroyed free chunk is looked for
STRETCH = 1 << 16  # bytes between two landmarks, roughly
CHAIN = 64  # chunks behind each other that are taken for chunks, though nothing proves them
FEWEST, MOST_AT_ONCE = 64, 1 << 16  # words that are looked at in one piece


def align_up(address: int, header: int, alignment: int) -> int:
    """Return the first chunk address from *address* on: its mem is aligned."""
    return ((address + header + alignment - 1) & -alignment) - header


class Gap(NamedTuple):
    """A range in which no chunk could be told: the walk stopped at *start*, went on at *end*."""

    start: int
    end: int
    reason: str
    by_chain: bool = False  # went on where chunks lie behind each other; else at one that is proven


@dataclass
class Columns:
    """The chunks of a segment, ascending. Row *i* is `addresses[i]`, `sizes[i]`, `states[i]`.

    *sizes* are size words as stored, flags included.
    """

    addresses: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("Q"))
    states: bytearray = field(default_factory=bytearray)
    gaps: list[Gap] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.addresses)

    def row_at(self, chunk: int) -> int | None:
        """Return the row of the chunk with this very address, None if there is none."""
        row = bisect_left(self.addresses, chunk)
        return row if row < len(self.addresses) and self.addresses[row] == chunk else None

    def row_from(self, address: int) -> int:
        """Return the row of the first chunk at or above an address; how many there are if none."""
        return bisect_left(self.addresses, address)

    def row_holding(self, address: int) -> int | None:
        """Return the row of the chunk that an address lies in (header included)."""
        row = bisect_right(self.addresses, address) - 1
        if row < 0 or address >= self.addresses[row] + (self.sizes[row] & ~SIZE_BITS):
            return None
        return row

    def walk(self, buffer: Buffer, start: int, end: int, alignment: int, least: int) -> int:
        """Append the chunks from *start* to *end*; return where that stopped, see `walk_sizes`."""
        return walk_sizes(buffer, start, end, alignment, least, self.addresses, self.sizes)

    def append(self, address: int, size_field: int) -> None:
        """Add a row whose size the walk does not believe: fencepost, top, corrupt."""
        self.addresses.append(address)
        self.sizes.append(size_field)

    def drop_last(self) -> None:
        """Take back the last row, which the walk believed."""
        self.addresses.pop()
        self.sizes.pop()


@dataclass
class Landmarks(Columns):
    """Few rows of a segment, enough to find any other from; see `walk_landmarks`.

    *marks* are the chunks of the lists. What the flags and the lists say of these rows is what they
    say in the columns of all; a row that is left out has P set behind it and is in no list.
    """

    marks: array[int] = field(default_factory=lambda: array("Q"))

    def walk(self, buffer: Buffer, start: int, end: int, alignment: int, least: int) -> int:
        """Append the landmarks from *start* to *end*; return where the walk stopped."""
        keep = Keep(self.marks, STRETCH)
        return walk_landmarks(
            buffer, start, end, alignment, least, keep, self.addresses, self.sizes
        )

    def left_out(self, address: int) -> tuple[int, int] | None:
        """Return the range of rows that were left out around an address; None if there are none."""
        row = bisect_right(self.addresses, address) - 1
        if not 0 <= row < len(self) - 1 or self.states[row] in (TOP, FENCEPOST, CORRUPT):
            return None
        start = self.addresses[row] + (self.sizes[row] & ~SIZE_BITS)
        number = bisect_right([gap.start for gap in self.gaps], start) - 1
        if number >= 0 and start < self.gaps[number].end:
            return None
        return (start, self.addresses[row + 1]) if start <= address else None


class Stop(NamedTuple):
    """Where a walk ended and what stands there."""

    address: int
    kind: str  # "end", "fencepost", "corrupt" or "missing"
    reason: str = ""


class Walker:
    """Walks one range of memory into columns.

    Holds the bytes of the range, read once; of one that is larger than there is room for, those of
    a window. What looks for chunks after damage takes all of it at once.
    """

    def __init__(self, words: Words, start: int, end: int) -> None:
        self.words = words
        start += -start % words.size  # sbrk_base may be odd: ld.so 2.31 keeps tunables at the break
        self.start, self.end = start, end
        layout = words.layout
        self._header, self._min, self._align = layout.header, layout.min_chunk, layout.alignment
        self._window = (start, start)  # the part of the range whose bytes are held
        self._spans: list[Buffer] = []
        self._bases: list[int] = []
        if end - start <= words.at_once:
            self._hold(start, end)

    def _hold(self, start: int, end: int) -> None:
        """Hold the bytes of a part of the range, and what a look at its last chunk needs."""
        self._window, self._spans = (start, end), []
        for base, view in self.words.spans(start, min(end + OVERLAP, self.end)):
            skip = -base % self.words.size  # a damaged core may have a segment anywhere
            self._spans.append(self.words.buffer(base + skip, view[skip:]))
        self._bases = [span.base for span in self._spans]

    def _hold_all(self) -> None:
        if self._window != (self.start, self.end):
            self._hold(self.start, self.end)

    def _hold_around(self, address: int) -> None:
        """Hold the window that an address lies in, if that is in the range."""
        if self.start <= address < self.end and not self._window[0] <= address < self._window[1]:
            size = self.words.window
            low = address - (address - self.start) % size
            self._hold(low, min(low + size, self.end))

    def _span(self, address: int) -> Buffer | None:
        self._hold_around(address)
        number = bisect_right(self._bases, address) - 1
        if number < 0:
            return None
        span = self._spans[number]
        whole = len(span.data) // self.words.size * self.words.size
        return span if address + self._header <= span.base + whole else None

    def next_span(self, address: int) -> int:
        """Return where memory begins again behind a missing *address*; the end if nowhere."""
        self._hold_all()
        number = bisect_right(self._bases, address)
        return self._bases[number] if number < len(self._bases) else self.end

    def next_header(self, chunk: int, end: int) -> int:
        """Return the next place from *chunk* on where a size word has P alone; *end* if nowhere.

        Pieces of zeros, and what cannot be read, cost next to nothing.
        """
        self._hold_all()
        while chunk < end:
            span = self._span(chunk)
            if span is None or (chunk - span.base) % self.words.size:
                chunk = align_up(self.next_span(chunk), self._header, self._align)
                continue
            number = self._header_in(span.words, (chunk - span.base) // self.words.size + 1)
            if number < len(span.words):
                return min(span.base + (number - 1) * self.words.size, end)
            behind = span.base + len(span.words) * self.words.size
            chunk = align_up(max(behind - self._header, chunk) + 1, self._header, self._align)
        return end

    def _header_in(self, view: memoryview, number: int) -> int:
        """Return the number of the next word with P alone, a step of the alignment each."""
        stride, count = self._align // self.words.size, FEWEST
        while number < len(view):
            part = view[number : number + count]
            if any(part[:1]) or part.tobytes() != bytes(len(part) * self.words.size):
                for at, size in enumerate(part[::stride].tolist()):
                    if size & SIZE_BITS == PREV_INUSE:
                        return number + at * stride
            number, count = number + count, min(2 * count, MOST_AT_ONCE)
        return number

    @property
    def readable(self) -> int:
        """Bytes of the range that can be read."""
        self._hold_all()
        return sum(len(span.data) for span in self._spans)

    def size_field(self, chunk: int) -> int | None:
        """Return the size word of a chunk in the buffer; None if it is not there."""
        span = self._span(chunk)
        if span is None or (chunk - span.base) % self.words.size:
            return None
        return int(span.words[(chunk - span.base) // self.words.size + 1])

    def walk(self, columns: Columns, start: int, end: int) -> Stop:
        """Append chunks from *start* on, until *end* or a size that cannot be one."""
        address = start
        while address < end:
            span = self._span(address)
            if span is None:
                return Stop(address, "missing", "the memory of this chunk is missing")
            stop = columns.walk(span, address, end, self._align, self._min)
            if stop == address:
                return self._why(address, end)
            address = stop
        return Stop(end, "end")

    def _why(self, address: int, end: int) -> Stop:
        """Tell why the chunk at *address* is not one."""
        size = (self.size_field(address) or 0) & ~SIZE_BITS
        if self.is_fencepost(address):
            return Stop(address, "fencepost")
        if size < self._min:
            return Stop(address, "corrupt", f"size {size:#x} is below MINSIZE ({self._min:#x})")
        if size % self._align:
            return Stop(address, "corrupt", f"size {size:#x} is not a multiple of {self._align:#x}")
        return Stop(address, "corrupt", f"size {size:#x} runs past {end:#x}")

    def behind_free(self, chunk: int, end: int) -> int | None:
        """Return the chunk behind a free one whose size is destroyed, None if it cannot be told.

        A free chunk's size stands at its foot too, in the next chunk's prev_size, and that chunk's
        P bit is clear.
        """
        self._hold_all()
        span = self._span(chunk)
        if span is None:
            return None
        base, view = span.base, span.words
        shift = self.words.size.bit_length() - 1
        first, last = (chunk - base) >> shift, min((end - base) >> shift, len(view) - 1)
        step = self._align >> shift
        most = min(last, first + MOST_SEARCHED // self.words.size)
        for at in range(first + (self._min >> shift), most, step):
            if view[at] != (at - first) << shift or view[at + 1] & PREV_INUSE:
                continue
            if self._min <= view[at + 1] & ~SIZE_BITS <= end - base:
                return base + (at << shift)
        return None

    def find_chain(self, first: int, last: int, past: int, limit: int, wrong: int) -> int | None:
        """Return the first place in [first, last) from which chunks lead on; None if none does.

        They lead to *limit* to the byte, or are a good many at or behind *past*; no size word has
        one of the bits *wrong*.
        """
        chain = Chain(limit, past, CHAIN, self._align, self._min, wrong)
        self._hold_all()
        first, last = align_up(first, self._header, self._align), min(last, limit)
        for span in self._spans[max(bisect_right(self._bases, first) - 1, 0) :]:
            if span.base >= last:
                break
            start = max(first, align_up(span.base, self._header, self._align))
            end = min(last, span.base + len(span.data))
            if start < end and (found := find_chain(span, (start, end), chain)) < end:
                return found
        return None

    def is_fencepost(self, chunk: int) -> bool:
        """Whether the closing headers that sysmalloc writes into an old top stand here.

        Main arena: two of size HDR. Other arenas: HDR and 0, or, where the rest was too small
        for a chunk, 0 alone at the very end of the heap.
        """
        first = self.size_field(chunk)
        if first is None:
            return False
        if first == PREV_INUSE and chunk + self._header + self._align > self.end:
            return True
        if first & ~PREV_INUSE != self._header:
            return False
        if self._is_filler(chunk):
            return False
        second = self.size_field(chunk + self._header)
        return second in (self._header | PREV_INUSE, PREV_INUSE)

    def _is_filler(self, chunk: int) -> bool:
        """Whether the words from a size to the next one are one and the same: data."""
        span = self._span(chunk)
        if span is None:
            return False
        at = (chunk - span.base) // self.words.size
        return len(set(span.words[at + 1 : at + 4].tolist())) == 1

    def add_fenceposts(self, columns: Columns, chunk: int) -> int:
        """Append the fencepost rows at *chunk*; return the address behind them."""
        while (size := self.size_field(chunk)) is not None:
            if size & ~PREV_INUSE not in (0, self._header):
                break
            columns.append(chunk, size)
            columns.states.extend(b"\0" * (len(columns) - 1 - len(columns.states)))
            columns.states.append(FENCEPOST)
            chunk += self._header
            if (
                len(columns) > 1
                and columns.addresses[-2] == chunk - 2 * self._header
                and (columns.sizes[-2] & ~PREV_INUSE == self._header)
            ):
                break
            if size == PREV_INUSE:
                break
        return chunk


def read_size_field(words: Words, chunk: int) -> int | None:
    """Return the size word of any chunk, None if it cannot be read."""
    try:
        return words.word(chunk + words.size)
    except MemoryFault:
        return None

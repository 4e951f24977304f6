"""Where chunks lie: the heaps of threads' arenas, and the pieces of the main heap."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import MemoryFault
from ..glibc.layout import SIZE_BITS
from ..memory import Region
from .arena import Arena
from .columns import TOP, Columns, Stop, Walker, align_up
from .footing import walk_through
from .words import Words

MAX_HEAPS = 1 << 24


@dataclass
class Segment:
    """A run of chunks: a heap_info segment, or a piece of the main heap."""

    arena: int
    kind: str  # "heap" (a thread's), "brk" or "mmap" (the main heap's pieces)
    start: int  # heap_info, or the piece's first byte
    first: int  # first chunk
    end: int  # behind the last byte in use
    top: int | None = None  # the arena's top, if it is in this segment
    prev: int | None = None  # heap_info's fields, None for a piece
    mprotect_size: int | None = None
    pagesize: int | None = None
    columns: Columns = field(default_factory=Columns)

    @property
    def size(self) -> int:
        """Bytes, heap_info and all."""
        return self.end - self.start

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end


def align_chunk(words: Words, address: int) -> int:
    """Return the first chunk address from *address* on: its mem is aligned."""
    return align_up(address, words.layout.header, words.layout.alignment)


# --- the heaps of a thread's arena ------------------------------------------------------------


def arena_heaps(words: Words, arena: Arena, heap_max: int, problems: list[str]) -> list[Segment]:
    """Find the heaps of a non-main arena, the newest (with top) first; nothing is walked.

    The chain goes from the heap that top lies in down over `prev`. A chain that breaks is said in
    *problems*, and the arena's own first heap is then taken all the same.
    """
    own = arena.address - words.layout.structs["heap_info"].size
    heaps: list[Segment] = []
    seen: set[int] = set()
    address = arena.top & -heap_max
    while address and address not in seen and len(heaps) < MAX_HEAPS:
        seen.add(address)
        found = _heap_at(words, arena, address, heap_max)
        if isinstance(found, str):
            problems.append(f"arena {arena.address:#x}: heap {address:#x}{found}")
            break
        heaps.append(found)
        address = found.prev or 0
    else:
        if address in seen and address:
            problems.append(f"arena {arena.address:#x}: loop in the heaps' prev at {address:#x}")
    if own not in seen:
        problems.append(f"arena {arena.address:#x}: its first heap {own:#x} is not in the chain")
        found = _heap_at(words, arena, own, heap_max)
        if not isinstance(found, str):
            heaps.append(found)
    return heaps


def _heap_at(words: Words, arena: Arena, address: int, heap_max: int) -> Segment | str:
    """Return the heap of an arena at an address, or why there is none."""
    info, layout = words.layout.structs["heap_info"], words.layout
    try:
        fields = {k: v[0] for k, v in words.struct(info, address).items()}
    except MemoryFault as fault:
        return f": {fault}"
    if fields["ar_ptr"] != arena.address or not 0 < fields["size"] <= heap_max:
        return (
            f" has ar_ptr {fields['ar_ptr']:#x} and size {fields['size']:#x}: "
            "not a heap of this arena"
        )
    is_own = address == arena.address - info.size
    first = arena.address + layout.state.size if is_own else address + info.size
    return Segment(
        arena.address,
        "heap",
        address,
        align_chunk(words, first),
        address + fields["size"],
        top=arena.top if address == arena.top & -heap_max else None,
        prev=fields["prev"],
        mprotect_size=fields["mprotect_size"],
        pagesize=fields.get("pagesize"),
    )


def walk_segment(words: Words, segment: Segment, anchors: Sequence[int]) -> None:
    """Fill the columns of a heap that is known from start to end."""
    walker = Walker(words, segment.first, segment.end)
    end = segment.end if segment.top is None else segment.top
    stop = walk_through(walker, segment.columns, segment.first, end, anchors, main=False)
    if stop.kind == "fencepost" and segment.top is None:
        walker.add_fenceposts(segment.columns, stop.address)
    elif segment.top is not None:
        add_top(walker, segment, stop)


def add_top(walker: Walker, segment: Segment, stop: Stop) -> None:
    """Append the row of top, whatever the walk before it came to."""
    columns, top = segment.columns, segment.top
    size = walker.size_field(top) if top is not None else None
    if top is None or size is None:
        return
    if stop.kind == "fencepost":
        walker.add_fenceposts(columns, stop.address)
    columns.append(top, size)
    columns.states.extend(b"\0" * (len(columns) - 1 - len(columns.states)))
    columns.states.append(TOP)


# --- the pieces of the main heap ---------------------------------------------------------------


def coalesce(regions: Sequence[Region]) -> list[tuple[int, int]]:
    """Return the readable and writable anonymous memory as ranges, neighbours made one.

    The kernel, gdb and a core draw the lines between neighbours differently; these ranges are
    the same for all.
    """
    ranges: list[tuple[int, int]] = []
    for region in regions:
        if not region.anonymous or region.perms[:2] != "rw":
            continue
        if ranges and ranges[-1][1] == region.start:
            ranges[-1] = (ranges[-1][0], region.end)
        else:
            ranges.append((region.start, region.end))
    return ranges


def range_of(ranges: Sequence[tuple[int, int]], address: int) -> tuple[int, int] | None:
    """Return the range that an address lies in."""
    number = bisect_right(ranges, (address, 1 << 65)) - 1
    if number >= 0 and ranges[number][0] <= address < ranges[number][1]:
        return ranges[number]
    return None


def top_end(words: Words, arena: Arena) -> int:
    """Return the address behind top, by its size word; top itself if that cannot be read."""
    try:
        return arena.top + (words.word(arena.top + words.size) & ~SIZE_BITS)
    except MemoryFault:
        return arena.top


class MainHeap:
    """Finds and walks the pieces of the main heap.

    It is one piece as long as sbrk gave what was asked. Another user of sbrk, or an sbrk that
    fails (then mmap serves), closes a piece with two fenceposts and starts another elsewhere.
    """

    def __init__(
        self,
        words: Words,
        arena: Arena,
        sbrk_base: int,
        regions: Sequence[Region],
        anchors: Sequence[int],
        page_size: int,
        make: Callable[[], Columns] = Columns,
    ) -> None:
        """*make*: what the rows of a piece go into."""
        self._words = words
        self._make = make
        self._arena = arena
        self._base = sbrk_base
        self._ranges = coalesce(regions)
        self._anchors = anchors
        self._page = page_size
        self._top_end = top_end(words, arena)
        self.problems: list[str] = []

    def pieces(self) -> list[Segment]:
        """Return the pieces, walked, ascending."""
        if not self._arena.has_top(self._words.layout):
            return []
        found = self._from(self._base) if self._base else []
        if not any(piece.top is not None for piece in found) or not self._arena.contiguous:
            found += self._elsewhere(found)
        if not any(piece.top is not None for piece in found):
            self.problems.append(
                f"main heap: top {self._arena.top:#x} is in none of its pieces; "
                "chunks near it are not shown"
            )
        return sorted(found, key=lambda piece: piece.start)

    def _range(self, address: int) -> tuple[int, int] | None:
        """Return the memory around an address; without mappings what top and base enclose."""
        if self._ranges:
            return range_of(self._ranges, address)
        if self._base and self._base <= address <= self._top_end:
            return self._base, self._top_end
        return None

    def _from(self, start: int) -> list[Segment]:
        """Walk the pieces that lie in one range of memory, from *start* on."""
        around = self._range(start)
        if around is None:
            self.problems.append(f"main heap: no memory at sbrk_base {start:#x}")
            return []
        end = around[1]
        if start <= self._arena.top < end:
            end = max(min(self._top_end, end), self._arena.top + self._words.layout.header)
        walker = Walker(self._words, start, end)
        found: list[Segment] = []
        first: int | None = align_chunk(self._words, start)
        while first is not None and first < end:
            piece = self._piece(walker, start if not found else first, first, end)
            found.append(piece)
            if piece.top is not None or piece.end >= end:
                break
            first = self._next_first(walker, piece.end, end)
        return found

    def _piece(self, walker: Walker, start: int, first: int, end: int) -> Segment:
        """Walk one piece: to its fenceposts, to top, or to where it makes no sense any more."""
        top = self._arena.top if first <= self._arena.top < end else None
        kind = "brk" if self._is_brk(first) else "mmap"
        piece = Segment(self._arena.address, kind, start, first, end, columns=self._make())
        stop = walk_through(walker, piece.columns, first, top or end, self._anchors)
        if stop.kind == "fencepost":
            piece.end = walker.add_fenceposts(piece.columns, stop.address)
        elif top is not None:
            piece.top, piece.end = top, self._top_end
            add_top(walker, piece, stop)
        else:
            self.problems.append(
                f"main heap: the piece from {first:#x} has neither top nor fenceposts; "
                f"its memory ends at {end:#x}"
            )
        return piece

    def _is_brk(self, address: int) -> bool:
        if self._arena.contiguous:
            return True
        around = self._range(self._base)
        return around is not None and around[0] <= address < around[1]

    def _next_first(self, walker: Walker, start: int, end: int) -> int | None:
        """Return the first chunk behind a closed piece: what follows was somebody else's.

        It is the lowest address from which chunks lie behind each other up to top or to the next
        pair of fenceposts. The work is bounded: what was walked in vain is not walked again.
        Nothing in memory says where foreign bytes end; ones that look like chunks up to the very
        start of the piece are taken for chunks, but for a filling with one word.
        """
        layout = self._words.layout
        budget = 64 + 4 * walker.readable // layout.alignment
        failed: set[int] = set()
        chunk = walker.next_header(align_chunk(self._words, start), end)
        while chunk < end and budget > 0:
            budget -= 1
            if chunk not in failed and not self._filler(chunk):
                trial = Columns()
                limit = self._arena.top if chunk <= self._arena.top < end else end
                stop = walker.walk(trial, chunk, limit)
                if chunk == self._arena.top or (
                    len(trial) and (stop.kind == "fencepost" or stop.address == self._arena.top)
                ):
                    return chunk
                failed.update(trial.addresses)
                budget -= len(trial)
            chunk = walker.next_header(chunk + layout.alignment, end)
        return None

    def _filler(self, chunk: int) -> bool:
        """Whether a chunk's header and first two words are one and the same word."""
        try:
            return len(set(self._words.words(chunk, 4))) == 1
        except MemoryFault:
            return False

    def _elsewhere(self, known: Sequence[Segment]) -> list[Segment]:
        """Find the pieces that mmap gave: at the start of a page, closed by fenceposts or top."""
        found: list[Segment] = []
        wanted = self._arena.system_mem - sum(piece.size for piece in known)
        for start, end in self._ranges:
            if wanted <= 0 and any(p.top is not None for p in (*known, *found)):
                break
            behind = [piece.end for piece in known if start <= piece.start < end]
            for piece in self._scan(max([start, *behind]), end):
                found.append(piece)
                wanted -= piece.size
        return found

    def _scan(self, start: int, end: int) -> list[Segment]:
        """Look at every page of a range for the first chunk of a piece."""
        layout = self._words.layout
        found: list[Segment] = []
        walker = Walker(self._words, start, end)
        page_size = self._page
        page = (start + page_size - 1) & -page_size
        while page < end:
            first = align_chunk(self._words, page)
            size = walker.size_field(first)
            if size is None:
                page = max(page + page_size, walker.next_span(first) & -page_size)
                continue
            if size & SIZE_BITS != 1 or size < layout.min_chunk:
                page += page_size
                continue
            trial = Columns()
            top = self._arena.top
            limit = top if first <= top < end else end
            stop = walker.walk(trial, first, limit)
            if stop.kind == "fencepost" or stop.address == top:
                piece = self._piece(walker, page, first, end)
                found.append(piece)
                page = (piece.end + page_size - 1) & -page_size
            else:
                page += page_size
        return found

"""`Heap`: what was read of a target. Made for one command and dropped with it."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from ..glibc.layout import SIZE_BITS, Layout
from .arena import Arena, read_ring
from .columns import MMAPPED, STATE_NAMES, STRETCH, Columns, Landmarks
from .lists import FreeList, bin_lists, fast_lists
from .mmapped import MmappedChunk, MmappedFinder
from .params import Params, read_params, read_variables
from .segments import MainHeap, Segment, arena_heaps, coalesce, top_end, walk_segment
from .states import Judge
from .target import Target
from .tcache import Tcache, read_tcache
from .words import Words

WALKING = "walking the chunks"  # as it is reported


class Chunk(NamedTuple):
    """A row taken out of the columns because somebody looks."""

    address: int  # of the header
    size_field: int  # as stored
    state: str | None  # one of STATE_NAMES; None: not known
    arena: int | None
    listed: FreeList | None  # the bin it is in
    owner: str | None = None  # "tcache": the allocator's own

    @property
    def size(self) -> int:
        """The chunk's size, flags off."""
        return self.size_field & ~SIZE_BITS


class Heap:
    """Arenas, lists, segments and chunks of a target, each read when first asked for.

    :raises NotFound: from whatever needs main_arena, if that is not known.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.layout: Layout = target.layout
        self.words = Words(target.memory, target.layout)
        self.problems: list[str] = []
        self.page_size = target.page_size
        self._stretch: tuple[tuple[int, int], Columns] | None = None  # the one walked last
        self.mmapped_accounted = True  # whether the mmapped chunks are those of mp_; once read

    @cached_property
    def arenas(self) -> list[Arena]:
        """Every arena, in the order of the ring; main_arena first."""
        return read_ring(self.words, self.target.require_main_arena().address, self.problems)

    @cached_property
    def params(self) -> Params:
        """mp_ and its neighbours."""
        return read_params(self.words, self.target, self.problems)

    @cached_property
    def tcaches(self) -> list[Tcache]:
        """Each thread's tcache, in the order of the threads."""
        count = self.params.get("tcache_count")
        found = []
        for thread in self.target.threads:
            cache = read_tcache(self.words, thread, count)
            if cache.fault:
                self.problems.append(f"thread {thread.id}: tcache: {cache.fault}")
            found.append(cache)
        return found

    @cached_property
    def bins(self) -> dict[int, list[FreeList]]:
        """Fast, unsorted, small and large bins by arena."""
        self.target.report("following the lists", 0, 0)
        return {
            arena.address: fast_lists(self.words, arena) + bin_lists(self.words, arena)
            for arena in self.arenas
        }

    @cached_property
    def lists(self) -> list[FreeList]:
        """Every list: the tcaches of all threads, then the bins of all arenas."""
        cached = [found for cache in self.tcaches for found in cache.lists]
        return cached + [found for lists in self.bins.values() for found in lists]

    @cached_property
    def marks(self) -> dict[int, FreeList]:
        """The list that a chunk is in, by chunk. A chunk in two lists is said."""
        marks: dict[int, FreeList] = {}
        for found in self.lists:
            for chunk in found.chunks:
                before = marks.setdefault(chunk, found)
                if before is not found:
                    self.problems.append(f"{chunk:#x} is in {before.label} and in {found.label}")
        for found in self.lists:
            if found.fault:
                where = f"arena {found.arena:#x}" if found.arena else f"thread {found.thread}"
                self.problems.append(f"{where}: {found.label}: {found.fault}")
        return marks

    @cached_property
    def anchors(self) -> list[int]:
        """Addresses that lists and tops prove to be chunks, ascending."""
        tops = [arena.top for arena in self.arenas if arena.has_top(self.layout)]
        return sorted(a for a in {*self.marks, *tops} if a % self.layout.word == 0)

    @cached_property
    def heap_max(self) -> int:
        """HEAP_MAX_SIZE of this process."""
        return self.layout.heap_max_size(self.params.get("hp_pagesize") or 0)

    @cached_property
    def heap_segments(self) -> list[Segment]:
        """The heaps of all threads' arenas, not walked: newest of each arena first."""
        return [
            heap
            for arena in self.arenas[1:]
            if arena.has_top(self.layout)
            for heap in arena_heaps(self.words, arena, self.heap_max, self.problems)
        ]

    @cached_property
    def segments(self) -> list[Segment]:
        """Every segment with its chunks walked and judged, ascending by address."""
        found, problems = self._walk(Columns)
        if "_outline" not in self.__dict__:  # else they were said
            self.problems += problems
        return found

    @property
    def outlined(self) -> list[Segment]:
        """Every segment, for what asks where they lie or for few chunks: rows may be left out.

        That is `segments` where those were asked for; else it costs no memory for each chunk.
        """
        return self.segments if "segments" in self.__dict__ else self._outline

    @cached_property
    def _outline(self) -> list[Segment]:
        marks = array("Q", sorted(mark for mark in self.marks if 0 <= mark < 1 << 64))
        found, problems = self._walk(lambda: Landmarks(marks=marks))
        self.problems += problems
        return found

    def _walk(self, make: Callable[[], Columns]) -> tuple[list[Segment], list[str]]:
        """Walk and judge every segment into columns of a kind; what is wrong is returned."""
        problems: list[str] = []
        main = self.arenas[0]
        finder = MainHeap(
            self.words,
            main,
            self._main_start(main),
            self.target.memory.regions(),
            self.anchors,
            self.page_size,
            make,
        )
        report, heaps = self.target.report, self.heap_segments
        report(WALKING, 0, len(heaps))
        found = finder.pieces()
        problems += finder.problems
        for number, unwalked in enumerate(heaps):
            report(WALKING, number, len(heaps))
            heap = replace(unwalked, columns=make())
            walk_segment(self.words, heap, self.anchors)
            found.append(heap)
        problems += self._said_of_blind(found)
        judge = self._judge(problems)
        for segment in found:
            judge.judge(segment.columns)
            for gap in segment.columns.gaps:
                said = f"{gap.start:#x}: {gap.reason}; nothing is known up to {gap.end:#x}"
                if gap.by_chain:
                    said += ", from where on chunks lie behind each other (the first may be older)"
                problems.append(said)
        return sorted(found, key=lambda segment: segment.start), problems

    def _judge(self, problems: list[str]) -> Judge:
        return Judge(self.lists, self.marks, self._blind_below, problems)

    def _main_start(self, main: Arena) -> int:
        """Return sbrk_base, or where the mapping that top lies in begins if mp_ is not known."""
        base = self.params.get("sbrk_base")
        if base:
            return base
        regions = self.target.memory.regions()
        return next((r.start for r in regions if r.start <= main.top < r.end), 0)

    @cached_property
    def _blind_below(self) -> int:
        """The largest chunk that may be in a tcache nobody found; 0 if all are known."""
        if not self.layout.has("tcache") or self.params.get("tcache_count") == 0:
            return 0
        if all(thread.tcache_state != "unknown" for thread in self.target.threads):
            return 0 if self.target.threads else self._tcache_largest()
        return self._tcache_largest()

    def _said_of_blind(self, segments: Sequence[Segment]) -> list[str]:
        if not self._blind_below or not any(len(segment.columns) for segment in segments):
            return []
        unknown = [str(t.id) for t in self.target.threads if t.tcache_state == "unknown"]
        whose = f"of thread {', '.join(unknown)}" if unknown else "of every thread"
        return [
            f"the tcache {whose} was not found: chunks of up to {self._blind_below:#x} bytes "
            "that look used may be cached, and are not known"
        ]

    def _tcache_largest(self) -> int:
        largest = self.params.get("tcache_max_bytes")
        if largest is None or not self.layout.has("tcache_max_excludes"):
            return self.layout.tcache_default_max
        return largest - 1

    @cached_property
    def mmapped(self) -> list[MmappedChunk]:
        """The mmapped chunks, ascending; checked against mp_, differences are said."""
        count, total = self.params.get("n_mmaps"), self.params.get("mmapped_mem")
        regions = self.target.memory.regions()
        if not regions and count:
            self.problems.append(
                f"mp_ says {count} mmapped chunks; the mappings of this target are not known, "
                "so they cannot be found"
            )
            return []
        finder = MmappedFinder(self.words, coalesce(regions), self._taken(), self.page_size)
        found = finder.find(count, total)
        if not finder.accounted(found, count, total):
            self.mmapped_accounted = False
            mapped = sum(chunk.length for chunk in found)
            self.problems.append(
                f"mmapped: mp_ says {count} chunks with {total or 0:#x} bytes of mappings; "
                f"found {len(found)} with {mapped:#x}"
            )
        return found

    def _taken(self) -> list[tuple[int, int]]:
        """Return the ranges that heaps take up: no mmapped chunk is there."""
        taken = [(heap.start, heap.start + self.heap_max) for heap in self.heap_segments]
        main = self.arenas[0]
        base = self.params.get("sbrk_base")
        if main.has_top(self.layout) and main.contiguous and base:
            taken.append((base, top_end(self.words, main)))
        elif main.has_top(self.layout):
            taken += [(s.start, s.end) for s in self.outlined if s.arena == main.address]
        return sorted(taken)

    # --- chunks ---------------------------------------------------------------------------------

    @cached_property
    def owners(self) -> dict[int, str]:
        """The allocator's own chunks: the structs of the tcaches."""
        header = self.layout.header
        return {
            cache.thread.tcache - header: "tcache"
            for cache in self.tcaches
            if cache.thread.tcache is not None
        }

    @cached_property
    def tagged(self) -> bool | None:
        """Whether malloc tags its blocks (glibc.mem.tagging on aarch64); None: not known.

        It then leaves the word behind a block's own memory alone, which the next chunk has, and
        takes nothing from sbrk.
        """
        main = self.arenas[0]
        if not self.target.may_tag or not self.layout.has("memory_tagging"):
            return False
        if main.contiguous and main.has_top(self.layout):
            return False
        enabled = read_variables(self.words, self.target).mtag_enabled
        if enabled is None:
            self.problems.append(
                "whether malloc tags memory (glibc.mem.tagging) is not known without the symbol "
                "mtag_enabled: usable sizes are not known"
            )
            return None
        return bool(enabled)

    def usable(self, size: int, mmapped: bool = False) -> int | None:
        """Return malloc_usable_size of an in-use chunk of this size; None: not known."""
        plain, whole = self.layout.usable(size, mmapped), size - self.layout.header
        if plain == whole or self.tagged is False:
            return plain
        return whole if self.tagged else None

    def usable_of(self, chunk: Chunk) -> int | None:
        """Return what malloc_usable_size says of a chunk; None: not handed out, or not known."""
        if chunk.state not in ("used", "mmapped"):
            return None
        return self.usable(chunk.size, chunk.state == "mmapped")

    def chunk_at(self, segment: Segment, row: int) -> Chunk:
        """Return a row of a segment's columns."""
        columns: Columns = segment.columns
        address = columns.addresses[row]
        return Chunk(
            address,
            columns.sizes[row],
            STATE_NAMES[columns.states[row]],
            segment.arena,
            self.marks.get(address),
            self.owners.get(address),
        )

    def mmapped_as_chunk(self, chunk: MmappedChunk) -> Chunk:
        """Return an mmapped chunk as a row like the others."""
        state = STATE_NAMES[MMAPPED]
        listed = self.marks.get(chunk.address)
        if listed is not None:
            state = listed.kind if listed.kind in ("tcache", "fast") else "free"
        return Chunk(chunk.address, chunk.size_field, state, None, listed)

    @cached_property
    def _starts(self) -> list[int]:
        return [segment.start for segment in self.segments]

    def segment_of(self, address: int) -> Segment | None:
        """Return the segment that an address lies in; a top without a size is in its segment."""
        number = bisect_right(self._starts, address) - 1
        segment = self.segments[number] if number >= 0 else None
        if segment is None or (address not in segment and address != segment.top):
            return None
        return segment

    def find(self, address: int) -> tuple[Segment, int] | None:
        """Return the segment and the row of the chunk that an address lies in."""
        for segment in self.segments:
            row = segment.columns.row_holding(address)
            if row is not None:
                return segment, row
        return None

    def holding(self, address: int) -> Chunk | None:
        """Return the chunk of a heap that an address lies in, as `find` and `chunk_at` would."""
        if "segments" in self.__dict__:
            place = self.find(address)
            return None if place is None else self.chunk_at(*place)
        for segment in self.outlined:
            row = segment.columns.row_holding(address)
            if row is not None:
                return self.chunk_at(segment, row)
            found = self._left_out(segment, address)
            if found is not None:
                return found
        return None

    def _left_out(self, segment: Segment, address: int) -> Chunk | None:
        """Return the chunk of a row that an outline leaves out."""
        columns = segment.columns
        ends = columns.left_out(address) if isinstance(columns, Landmarks) else None
        if ends is None:
            return None
        if self._stretch is None or self._stretch[0] != ends:
            self._stretch = ends, self._walk_stretch(*ends)
        stretch = self._stretch[1]
        row = stretch.row_holding(address)
        return None if row is None else self.chunk_at(replace(segment, columns=stretch), row)

    def _walk_stretch(self, start: int, end: int) -> Columns:
        """Return the rows from *start* to *end*: each in use by P, and in no list."""
        found, layout = Columns(), self.layout
        last = min(end, start + STRETCH + layout.header)  # behind it no row begins
        for base, view in self.words.spans(start, last):
            buffer = self.words.buffer(base, view)
            found.walk(buffer, max(base, start), end, layout.alignment, layout.min_chunk)
        judge = self._judge([])
        found.states.extend(judge.unlisted(size & ~SIZE_BITS) for size in found.sizes)
        return found

    def find_mmapped(self, address: int) -> MmappedChunk | None:
        """Return the mmapped chunk whose mapping an address lies in."""
        return next((c for c in self.mmapped if c.start <= address < c.end), None)

    def every_chunk(self) -> Iterator[Chunk]:
        """Yield every chunk in the order of addresses, mmapped ones last. For small heaps."""
        for segment in self.segments:
            for row in range(len(segment.columns)):
                yield self.chunk_at(segment, row)
        for chunk in self.mmapped:
            yield self.mmapped_as_chunk(chunk)

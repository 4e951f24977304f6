"""What malloc tells of itself: mallinfo, malloc_info, malloc_usable_size; and malloc_trim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .core import Endless
from .options import Options

_TABS = "\t" * 7 + " " * 6  # a line continued inside a string literal, up to 2.30


class MallInfo(NamedTuple):
    """Struct mallinfo2; mallinfo has the same in ints."""

    arena: int
    ordblks: int
    smblks: int
    hblks: int
    hblkhd: int
    usmblks: int
    fsmblks: int
    uordblks: int
    fordblks: int
    keepcost: int


class _Row(NamedTuple):
    """A line of malloc_info: sizes of one list."""

    start: int
    end: int
    total: int
    chunks: int

    def xml(self, name: str) -> str:
        """Return the element."""
        return (
            f'  <{name} from="{self.start}" to="{self.end}" '
            f'total="{self.total}" count="{self.chunks}"/>\n'
        )


class Report(Options):
    """Figures, by walking the lists as glibc does."""

    def arenas(self) -> Iterator[int]:
        """Yield the arenas in the order of the ring, main_arena first."""
        av, steps = self.main, 0
        while True:
            yield av
            av = self.load(av + self.o_next)
            steps += 1
            if av == self.main:
                return
            if steps > self.loops:
                raise Endless(av)

    def _listed(self, bin_: int, way: int) -> Iterator[int]:
        """Yield the chunks of a bin, along fd or bk."""
        p, steps = self.load(bin_ + way), 0
        while p and p != bin_:
            yield p
            p = self.load(p + way)
            steps += 1
            if steps > self.loops:
                raise Endless(p)

    def _fast(self, av: int, index: int, text: str) -> Iterator[int]:
        """Yield the chunks of a fastbin."""
        p, steps = self.load(av + self.o_fast + index * self.SZ), 0
        while p:
            if self.safe and self.misaligned(p):
                self.abort(text)
            yield p
            at = p + self.FD
            p = at >> 12 ^ self.load(at) if self.safe else self.load(at)
            steps += 1
            if steps > self.loops:
                raise Endless(p)

    def mallinfo_past(self) -> MallInfo:
        """__libc_mallinfo2."""
        sums = [0] * 6  # arena, ordblks, smblks, fsmblks, uordblks, fordblks
        text = "int_mallinfo(): unaligned fastbin chunk detected"
        for av in self.arenas():
            if self.has("init_by_consolidate") and not self.load(av + self.o_top):
                self.malloc_consolidate(av)
            fast = [
                self.chunksize(p) for i in range(self.nfastbins) for p in self._fast(av, i, text)
            ]
            free = [
                self.chunksize(p)
                for i in range(1, 128)
                for p in self._listed(self.bin_at(av, i), self.BK)
            ]
            top = self.chunksize(self.load(av + self.o_top))
            system, avail = self.load(av + self.o_system), top + sum(fast) + sum(free)
            new = (system, 1 + len(free), len(fast), sum(fast), system - avail, avail)
            sums = [a + b for a, b in zip(sums, new)]
        mp, keep = self.mp, self.chunksize(self.load(self.main + self.o_top))
        return MallInfo(
            arena=sums[0],
            ordblks=sums[1],
            smblks=sums[2],
            hblks=self.load_int(mp["n_mmaps"]),
            hblkhd=self.load(mp["mmapped_mem"]),
            usmblks=self.load(mp["max_total_mem"]) if "max_total_mem" in mp else 0,
            fsmblks=sums[3],
            uordblks=sums[4] & self.MOST,
            fordblks=sums[5],
            keepcost=keep,
        )

    # --- malloc_info --------------------------------------------------------------------------

    def malloc_info_past(self) -> str:
        """What malloc_info (0, …) prints."""
        out, sums = ['<malloc version="1">\n'], [0] * 8
        for number, av in enumerate(self.arenas()):
            text, new = self._arena_info(number, av)
            out.append(text)
            sums = [a + b for a, b in zip(sums, new)]
        fast = f'<total type="fast" count="{sums[0]}" size="{sums[1]}"/>\n'
        mp = self.mp
        out.append(
            (fast if self.has_fastbins else "")
            + f'<total type="rest" count="{sums[2]}" size="{sums[3]}"/>\n'
            f'<total type="mmap" count="{self.load_int(mp["n_mmaps"])}" '
            f'size="{self.load(mp["mmapped_mem"])}"/>\n'
            f'<system type="current" size="{sums[4]}"/>\n<system type="max" size="{sums[5]}"/>\n'
            f'<aspace type="total" size="{sums[6]}"/>\n'
            f'<aspace type="mprotect" size="{sums[7]}"/>\n</malloc>\n'
        )
        return "".join(out)

    def _arena_info(self, number: int, av: int) -> tuple[str, tuple[int, ...]]:
        fast = list(self._fast_rows(av))
        rows = [self._bin_row(av, index) for index in range(1, 128)]
        top = self.chunksize(self.load(av + self.o_top))
        counts_top = self.has("malloc_info_counts_top")
        blocks = sum(row.chunks for row in rows) + counts_top
        avail = sum(row.total for row in rows) + (top if counts_top else 0)
        fast_count, fast_size = sum(r.chunks for r in fast), sum(r.total for r in fast)
        system, most = self.load(av + self.o_system), self.load(av + self.o_max_system)
        aspace, spaces = self._aspace(av, system)
        total = f'<total type="fast" count="{fast_count}" size="{fast_size}"/>\n'
        text = (
            f'<heap nr="{number}">\n<sizes>\n{self._rows(fast, rows)}</sizes>\n'
            + (total if self.has_fastbins else "")
            + f'<total type="rest" count="{blocks}" size="{avail}"/>\n'
            f'<system type="current" size="{system}"/>\n<system type="max" size="{most}"/>\n'
            f"{aspace}</heap>\n"
        )
        return text, (fast_count, fast_size, blocks, avail, system, most, *spaces)

    def _rows(self, fast: list[_Row], rows: list[_Row]) -> str:
        tabs = _TABS if self.has("malloc_info_tabs") else ""
        lines = [tabs + row.xml("size") for row in (*fast, *rows[1:]) if row.chunks]
        if rows[0].chunks:
            lines.append(rows[0].xml("unsorted"))
        return "".join(lines)

    def _fast_rows(self, av: int) -> Iterator[_Row]:
        text = "__malloc_info(): unaligned fastbin chunk detected"
        for index in range(self.nfastbins):
            chunks = list(self._fast(av, index, text))
            if chunks:
                size = self.chunksize(chunks[0])
                yield _Row(size - self.MASK, size, len(chunks) * size, len(chunks))

    def _bin_row(self, av: int, index: int) -> _Row:
        sizes = [self.load(p + self.SZ) for p in self._listed(self.bin_at(av, index), self.FD)]
        return _Row(min(sizes, default=0), max(sizes, default=0), sum(sizes), len(sizes))

    def _aspace(self, av: int, system: int) -> tuple[str, tuple[int, int]]:
        used = made = system
        more = ""
        if av != self.main:
            heap = self.heap_for_ptr(self.load(av + self.o_top))
            heaps = [heap]
            while self.has("malloc_info_subheaps") and self.load(self._info(heaps[-1], "prev")):
                heaps.append(self.load(self._info(heaps[-1], "prev")))
            used = sum(self.load(self._info(one, "size")) for one in heaps)
            made = sum(self.load(self._info(one, "mprotect_size")) for one in heaps)
            if self.has("malloc_info_subheaps"):
                more = f'<aspace type="subheaps" size="{len(heaps)}"/>\n'
        text = f'<aspace type="total" size="{used}"/>\n<aspace type="mprotect" size="{made}"/>\n'
        return text + more, (used, made)

    # --- malloc_trim --------------------------------------------------------------------------

    def malloc_trim_past(self, pad: int) -> int:
        """__malloc_trim: give back what can be, in every arena; 1 if anything was."""
        result = 0
        for av in self.arenas():
            if self.complaints.corrupt(av):
                continue
            self.malloc_consolidate(av)
            result |= self._discard_free(av)
            if av == self.main:
                result |= self.systrim(pad, av)
        return result

    def _discard_free(self, av: int) -> int:
        page, result = self.kernel.page_size, 0
        first = self.bin_index(page)
        for index in (1, *range(first, 128)):
            for p in self._listed(self.bin_at(av, index), self.BK):
                result |= self._discard_chunk(p, page)
        return result

    def _discard_chunk(self, p: int, page: int) -> int:
        """MADV_DONTNEED for the whole pages inside of a free chunk."""
        header, size = 6 * self.SZ, self.chunksize(p)
        if size <= page - 1 + header:
            return 0
        start = p + header + page - 1 & -page
        rest = size - (start - p) & -page
        if size - (start - p) <= page - 1:
            return 0
        self.kernel.discard(start, rest)
        return 1

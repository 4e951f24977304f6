"""The little of Linux that malloc asks for: brk, mmap top-down, mremap, mprotect, madvise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .space import Space

PMD = 2 << 20  # what a huge page covers
HUGE = "/anon_hugepage"  # the name of mappings made of huge pages
BREAK = "brk"  # for permissions, where it is the break that should grow
UNKNOWN = -1  # of `Kernel.recorded`: nothing is known, the model says
THP_MODES = ("always", "madvise", "never")


class Kernel:
    """Break and mappings of one process; failures can be ordered.

    *reserved* are ranges that something else has: nothing is mapped there.
    """

    def __init__(
        self,
        space: Space,
        brk: int,
        mmap_top: int,
        page_size: int = 4096,
        reserved: Sequence[tuple[int, int]] = (),
        thp_aligned: bool = False,
        thp_mode: str = "madvise",
    ) -> None:
        self.space = space
        self.page_size = page_size
        self.start_brk = self.brk = brk
        self.mmap_top = mmap_top
        self.reserved = sorted(reserved)
        self.thp_aligned = thp_aligned  # Linux 6.7 and later: whole huge pages are aligned
        self.curbrk = 0  # what libc's __curbrk is: 0 until it moves the break or asks for it
        self.brk_blocked = False  # every growth of the break fails
        self.failing_mmaps = 0  # so many mmaps fail next; -1: all of them
        self.thp_mode = thp_mode  # one of THP_MODES
        self.huge_sizes = (PMD, 1 << 30)  # of pages that MAP_HUGETLB can ask for, the default first
        # Where a real kernel placed what is asked for by size and permissions, if that is known:
        # None: it refused; UNKNOWN: place it as always.
        self.recorded: Callable[[int, str], int | None] | None = None
        self.has_huge_pages = True  # whether enough of them are reserved
        if brk % page_size:  # somebody moved it before: the rest of that page is there
            space.map(brk & -page_size, self.page_up(brk), "rw-", "[heap]")

    def page_up(self, size: int) -> int:
        """Round up to whole pages."""
        return (size + self.page_size - 1) & -self.page_size

    # --- the break ----------------------------------------------------------------------------

    def sbrk(self, delta: int) -> int | None:
        """Move the break; return where it was, None where the kernel refuses."""
        old, new = self.brk, self.brk + delta
        self.curbrk = old
        if delta == 0:
            return old
        if new < self.start_brk or new > self.mmap_top:
            return None
        old_end, new_end = self.page_up(old), self.page_up(new)
        if new_end > old_end:
            refused = self.recorded and self.recorded(delta, BREAK) is None
            if self.brk_blocked or refused or self._in_the_way(old_end, new_end):
                return None
            self._extend(old_end, new_end)
        elif new_end < old_end:
            self.space.unmap(new_end, old_end)
        self.brk = self.curbrk = new
        return old

    def _in_the_way(self, start: int, end: int) -> bool:
        """Whether something is where the break should go, or a page behind."""
        end += self.page_size
        return any(low < end and start < high for low, high in self._taken())

    def _extend(self, start: int, end: int) -> None:
        one = self.space.mapping_at(start - 1)
        if one is not None and one.name == "[heap]" and one.end == start:
            self.space.grow(one, end)
        else:
            self.space.map(start, end, "rw-", "[heap]")

    # --- mappings -----------------------------------------------------------------------------

    def _taken(self) -> list[tuple[int, int]]:
        """Ranges in use, ascending, not overlapping."""
        held = [(one.start, one.end) for one in self.space.mappings()]
        return merged([*held, *self.reserved]) if self.reserved else held

    def mmap(self, size: int, perms: str = "rw-", hint: int = 0, huge: int = 0) -> int | None:
        """Map anonymous memory at *hint* if that is free, else where top-down puts it.

        *huge* is the size of its pages, for MAP_HUGETLB; 0: none.
        """
        if huge and not self.has_huge_pages:
            return None
        if self.failing_mmaps:
            self.failing_mmaps -= self.failing_mmaps > 0
            return None
        size = size + huge - 1 & -huge if huge else self.page_up(size)
        if not 0 < size <= self.mmap_top:
            return None
        known = self._known(size, perms)
        if known is None:
            return None
        if known != UNKNOWN:
            hint = known
        start = hint if hint and self._free(hint, hint + size) else self._gap(size, huge)
        if start is not None:
            self.space.map(start, start + size, perms, f"{HUGE} {huge}" if huge else "")
        return start

    def _free(self, start: int, end: int) -> bool:
        return end <= self.space.most and not any(
            low < end and start < high for low, high in self._taken()
        )

    def _known(self, size: int, perms: str) -> int | None:
        """Return what `recorded` says, as far as it can be: pages, of which none is in use."""
        known = self.recorded(size, perms) if self.recorded else UNKNOWN
        return known if known is None or self._pages_free(known, size) else UNKNOWN

    def _pages_free(self, start: int, size: int) -> bool:
        return start > 0 and not start % self.page_size and self._free(start, start + size)

    def _gap(self, size: int, huge: int = 0) -> int | None:
        if huge:
            start = self._highest(size + huge)
            return None if start is None else (start + huge) & -huge
        if self.thp_aligned and size >= PMD and size % PMD == 0:
            start = self._highest(size + PMD)
            if start is not None:
                return (start & -PMD) + PMD
        return self._highest(size)

    def _highest(self, size: int) -> int | None:
        """Return the start of the highest room, at the upper end of its gap."""
        end = self.mmap_top
        for low, high in reversed(self._taken()):
            if high <= end and end - high >= size:
                return end - size
            end = min(end, low)
        return end - size if end - size >= 1 << 16 else None

    def munmap(self, start: int, size: int) -> None:
        """Take whole pages away; an address or size that is not a page's is refused."""
        end = start + self.page_up(size)
        if start % self.page_size == 0 and size and not self._cuts_page(start, end):
            self.space.unmap(start, end)

    def _pages_of(self, address: int) -> int:
        """The size of the pages at an address."""
        one = self.space.mapping_at(address)
        huge = one is not None and one.name.startswith(HUGE)
        return int(one.name.split()[1]) if one and huge else self.page_size

    def _cuts_page(self, *places: int) -> bool:
        return any(place % self._pages_of(place) for place in places)

    def mremap(self, start: int, old: int, new: int) -> int | None:
        """Resize a mapping, moving it if it must grow and cannot (MREMAP_MAYMOVE)."""
        end, page = self.space.end_of(start), self._pages_of(start)
        if page > self.page_size:
            old, new = old + page - 1 & -page, new + page - 1 & -page
        if start + old > end or (page > self.page_size and new > old):
            return None  # Linux does not grow what is made of huge pages
        if new <= old:
            self.space.unmap(start + new, start + old)
            return start
        if self.failing_mmaps:
            self.failing_mmaps -= self.failing_mmaps > 0
            return None
        said = self.recorded(new, "rw-") if self.recorded else UNKNOWN
        if said is None:
            return None
        last = self.space.mapping_at(start + old - 1)
        if said not in (UNKNOWN, start) and self._pages_free(said, new):
            self.space.move(start, start + old, said, new)
            return said
        if last and last.end == start + old and self._free(start + old, start + new):
            self.space.grow(last, start + new)
            return start
        to = self._gap(new)
        if to is not None:
            self.space.move(start, start + old, to, new)
        return to

    def mprotect(self, start: int, size: int, perms: str) -> bool:
        """Change permissions of whole pages."""
        self.space.protect(start, start + self.page_up(size), perms)
        return True

    def discard(self, start: int, size: int) -> None:
        """MADV_DONTNEED: the pages are zero from now on."""
        self.space.discard(start, start + self.page_up(size))


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the same ranges, ascending, those that overlap made one."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if result and start < result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result

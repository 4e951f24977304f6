"""Ranges of which parts cannot be read: what is there is all found, whatever a fault names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapglass.errors import MemoryFault
from heapglass.glibc.layout import layout_for
from heapglass.heap.words import Words
from heapglass.memory import Region

PAGE = 4096
BASE = 0x7F0000000000


class Guarded:
    """Pages, some of which cannot be read, in one region. A fault may name its first byte alone."""

    def __init__(self, pages: list[bool], exact: bool) -> None:
        self._pages, self._exact = pages, exact
        self.reads = 0

    def regions(self) -> list[Region]:
        return [Region(BASE, BASE + PAGE * len(self._pages))]

    def view(self, start: int, end: int) -> memoryview:
        self.reads += 1
        first, last = (start - BASE) // PAGE, -(-(end - BASE) // PAGE)
        for number in range(first, last):
            if number >= len(self._pages) or number < 0 or not self._pages[number]:
                at = max(BASE + number * PAGE, start) if self._exact else start
                raise MemoryFault(at, end - start)
        return memoryview(bytes(end - start))

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.view(address, address + size))


def words_of(memory: Guarded) -> Words:
    return Words(memory, layout_for((2, 42)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.booleans())
def test_every_page_that_can_be_read_is_found(pages: list[bool], exact: bool):
    found = words_of(Guarded(pages, exact)).spans(BASE, BASE + PAGE * len(pages))
    read = [False] * len(pages)
    for start, view in found:
        for number in range((start - BASE) // PAGE, (start + len(view) - BASE) // PAGE):
            assert not read[number]
            read[number] = True
    assert read == pages
    ends = [start + len(view) for start, view in found]
    assert all(end < start for end, (start, _) in zip(ends, found[1:])), "parts that touch are one"


@pytest.mark.parametrize("exact", [True, False])
def test_a_stack_behind_its_guard_costs_few_reads(exact: bool):
    memory = Guarded([False] + [True] * 2047, exact)
    assert [start for start, _ in words_of(memory).spans(BASE, BASE + 2048 * PAGE)] == [BASE + PAGE]
    assert memory.reads < 40


def test_a_region_without_anything_ends():
    memory = Guarded([False] * 5000, False)
    assert words_of(memory).spans(BASE, BASE + 5000 * PAGE) == []
    assert memory.reads < 1100

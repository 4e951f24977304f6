"""The simulated kernel and its pages."""

from __future__ import annotations

import pytest

from heapglass.errors import HeapglassError, MemoryFault
from heapglass.memory import ByteMemory, Region
from heapglass.model.kernel import PMD, Kernel, merged
from heapglass.model.space import FRAME, Space

TOP = 0x7FFFF7FFF000


def kernel(**more: object) -> Kernel:
    return Kernel(Space(8, "little"), 0x555555559000, TOP, **more)  # type: ignore[arg-type]


def test_the_break_moves_and_what_comes_back_is_zero() -> None:
    one = kernel()
    assert one.sbrk(0) == 0x555555559000
    assert one.sbrk(0x3000) == 0x555555559000
    one.space.write(0x55555555A000, b"x" * 0x2000)
    assert one.sbrk(-0x2000) == 0x55555555C000
    with pytest.raises(MemoryFault):
        one.space.read(0x55555555A000, 1)
    assert one.sbrk(0x2000) == 0x55555555A000
    assert one.space.read(0x55555555A000, 4) == bytes(4)
    assert one.sbrk(-0x10000) is None
    assert one.sbrk(1 << 60) is None


def test_a_range_without_end_is_dropped_by_what_is_at_hand_of_it() -> None:
    base = ByteMemory({0x10000: b"a" * 2 * FRAME}, [Region(0x10000, 0x10000 + 2 * FRAME, "rw-")])
    space = Space(8, "little", base)
    space.write(0x10000, b"b")
    assert space.read(0x10000 + FRAME, 1) == b"a"
    space.protect(0, 1 << 60, "r--")
    with pytest.raises(MemoryFault):
        space.write(0x10000, b"c")
    space.unmap(0, 1 << 60)  # a size that was overwritten says so
    with pytest.raises(MemoryFault):
        space.read(0x10000, 1)


def test_the_break_stops_before_a_mapping() -> None:
    one = kernel()
    one.space.map(0x55555555B000, 0x55555555C000, "---")
    assert one.sbrk(0x2000) is None
    assert one.sbrk(0x1000) == 0x555555559000
    one.brk_blocked = True
    one.space.unmap(0x55555555B000, 0x55555555C000)
    assert one.sbrk(0x1000) is None


def test_a_break_within_a_page() -> None:
    one = Kernel(Space(8, "little"), 0x555555559028, TOP)
    one.brk_blocked = True
    assert one.sbrk(16) == 0x555555559028
    assert one.space.read(0x555555559000, 8) == bytes(8)


def test_mappings_go_below_each_other_and_fill_gaps() -> None:
    one = kernel(reserved=[(TOP - 0x3000, TOP - 0x2000), (TOP - 0x2800, TOP - 0x1000)])
    assert one.mmap(0x1000) == TOP - 0x1000
    assert one.mmap(0x1000) == TOP - 0x4000
    assert one.mmap(0x800) == TOP - 0x5000
    one.munmap(TOP - 0x4000, 0x1000)
    assert one.mmap(0x2000) == TOP - 0x7000
    assert one.mmap(0x1000) == TOP - 0x4000
    assert one.mmap(0x1000, "rw-", 0x10000000) == 0x10000000
    assert one.mmap(0) is None
    assert one.mmap(1 << 62) is None
    one.munmap(TOP - 0x3FFF, 0x1000)  # refused: not a page's address
    assert one.space.read(TOP - 0x4000, 1) == b"\0"
    assert merged([(5, 9), (1, 3), (2, 4)]) == [(1, 4), (5, 9)]


def test_whole_huge_pages_are_aligned_where_the_kernel_does_it() -> None:
    one = kernel(thp_aligned=True)
    assert one.mmap(PMD) == TOP - PMD - 0xFF000 - 0x100000 & -PMD
    assert one.mmap(PMD + 0x1000) % PMD


def test_there_is_no_room() -> None:
    one = Kernel(Space(4, "little"), 0x56559000, 0x100000)
    assert one.mmap(0xF0000) == 0x10000
    assert one.mmap(0x1000) is None
    full = Kernel(Space(8, "little"), 0x1000, 4 << 20, thp_aligned=True)
    assert full.mmap(PMD) is not None
    assert full.mmap(PMD) is None


def test_failures_on_order() -> None:
    one = kernel()
    start = one.mmap(0x2000)
    assert start is not None
    one.failing_mmaps = 1
    assert one.mmap(0x1000) is None
    assert one.mmap(0x1000) is not None
    one.failing_mmaps = 1
    assert one.mremap(start, 0x2000, 0x1000) == start
    assert one.mremap(start, 0x1000, 0x9000) is None
    assert one.mremap(0x1000, 0x1000, 0x2000) is None


def test_mremap_grows_in_place_or_moves() -> None:
    one = kernel()
    low = one.mmap(0x1000)
    assert low is not None
    one.space.write(low, b"low")
    high = one.mmap(0x1000)
    assert high is not None
    one.space.write(high, b"high")
    moved = one.mremap(high, 0x1000, 0x3000)
    assert moved not in (None, high)
    assert one.space.read(moved or 0, 4) == b"high"
    with pytest.raises(MemoryFault):
        one.space.read(high, 1)
    one.munmap(low, 0x1000)
    assert one.mremap(moved or 0, 0x3000, 0x1000) == moved
    assert one.mremap(moved or 0, 0x1000, 0x2000) == moved


def test_protection_and_discarding() -> None:
    space = Space(8, "little")
    space.map(0x10000, 0x14000, "rw-")
    space.write(0x10000, b"x" * 0x4000)
    space.protect(0x11000, 0x12000, "r--")
    space.protect(0x12000, 0x13000, "---")
    load, store = space.accessors(8)
    assert load(0x11000) == 0x7878787878787878
    for write in (lambda: store(0x11000, 1), lambda: space.write(0x11000, b"y")):
        with pytest.raises(MemoryFault):
            write()
    for at in (0x12000, 0x14000, 0x12001):
        with pytest.raises(MemoryFault):
            load(at)
    with pytest.raises(MemoryFault):
        store(0x12001, 1)
    space.discard(0x13000, 0x14000)
    assert load(0x13000) == 0
    space.unmap(0x10800, 0x10900)
    assert [(r.start, r.end, r.perms) for r in space.regions()] == [
        (0x10000, 0x10800, "rw-"),
        (0x10900, 0x11000, "rw-"),
        (0x11000, 0x12000, "r--"),
        (0x13000, 0x14000, "rw-"),
    ]
    assert space.end_of(0x11000) == 0x14000
    assert space.end_of(0x20000) == 0


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_values_of_each_width_aligned_or_not(order: str, width: int) -> None:
    space = Space(8, order)
    space.map(0x10000, 0x12000, "rw-")
    load, store = space.accessors(width)
    for at in (0x10000, 0x10001, 0x10FFF, 0x11000):
        store(at, -2)
        assert load(at) == (1 << 8 * width) - 2
        store(at, 1 << 8 * width | 5)
        assert load(at) == 5
        assert space.read(at, width) == (5).to_bytes(width, order)
    with pytest.raises(MemoryFault):
        load(0x11FFF + width)
    assert load((1 << 64) + 0x10000) == load(0x10000)  # addresses wrap around
    store((1 << 64) + 0x10000, 7)
    assert load(0x10000) == 7
    with pytest.raises(MemoryFault):
        space.read(0x10000, -1)


def test_an_overlay_reads_through_and_keeps_what_is_written() -> None:
    base = ByteMemory(
        {0x10000: b"a" * 0x1800, 0x20000: b"b" * FRAME},
        [Region(0x10000, 0x11800), Region(0x20000, 0x21000, "r--"), Region(0x30000, 0x31000)],
    )
    space = Space(8, "little", base)
    assert space.read(0x10FFF, 2) == b"aa"
    assert bytes(space.view(0x117F0, 0x11800)) == b"a" * 16
    space.write(0x10FFF, b"zz")
    assert base.read(0x10FFF, 2) == b"aa"
    assert space.read(0x10FFF, 2) == b"zz"
    assert space.written == {0x10, 0x11}
    space.discard(0x10000, 0x11000)
    assert space.read(0x10000, 4) == bytes(4)
    with pytest.raises(MemoryFault):
        space.write(0x20000, b"c")
    with pytest.raises(MemoryFault):
        space.read(0x30000, 1)  # the base says that it is there, and has not got it
    space.move(0x20000, 0x21000, 0x40000, 0x2000)
    assert space.read(0x40000, 2) == b"bb"
    assert space.read(0x41000, 2) == bytes(2)
    one = space.mapping_at(0x117FF)
    assert one is not None
    space.grow(one, 0x14000)
    assert space.read(0x12000, 8) == bytes(8)


def test_memory_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heapglass.model.space.MOST_FRAMES", 2)
    space = Space(8, "little")
    space.map(0x10000, 0x20000, "rw-")
    space.fill(0x10000, 1, 2 * FRAME)
    with pytest.raises(HeapglassError, match="more than 1 GiB"):
        space.fill(0x13000, 1, 1)

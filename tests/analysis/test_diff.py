"""What two snapshots of a process differ in: by chunk, by bin, by byte."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable

import pytest

from heapglass.analysis.diff import KINDS, Diff, changed_ranges, compare, growth, merged, totals
from heapglass.analysis.snapshot import Snapshot, take
from heapglass.errors import BadRequest, MemoryFault
from heapglass.heap.heap import Heap
from heapglass.memory import Memory
from heapglass.model import Allocator
from tests.analysis.test_whatif import target_of
from tests.locate.modelled import Played, play

HEADER = 16


def snap(played: Played, contents: bool | None = True) -> Snapshot:
    return take(Heap(target_of(played)), contents)


def after(
    change: Callable[[Allocator], object], contents: tuple[bool | None, bool | None] = (True, True)
) -> Diff:
    """What a change of a process makes."""
    played = play("2.36", threads=1)
    before = snap(played, contents[0])
    change(played.allocator)
    return compare(before, snap(played, contents[1]))


def told(found: Diff) -> dict[int, str]:
    return {found.address(n): KINDS[row.kind] for n, row in enumerate(found.entries())}


def test_nothing_has_changed() -> None:
    found = after(lambda _: None)

    assert len(found) == 0
    assert growth(found) == []
    assert found.contents == "exactly"


def test_a_block_that_is_freed_and_one_that_is_taken() -> None:
    played = play("2.36", threads=1)
    malloc = played.allocator
    block = malloc.malloc(24)
    before = snap(played)
    malloc.free(block)
    between = snap(played)
    assert malloc.malloc(24) == block
    last = snap(played)

    chunk = block - HEADER
    assert told(compare(before, between))[chunk] == "freed"
    assert told(compare(between, last))[chunk] == "taken"
    assert compare(before, last).counted()["freed"] == (0, 0)
    assert between.bins[chunk] == "tcache[0x20]"


def test_chunks_that_are_cut_and_merged() -> None:
    played = play("2.36", threads=1)
    malloc = played.allocator
    block = malloc.malloc(60000)
    guard = malloc.malloc(60000)
    malloc.free(block)
    before = snap(played)
    assert malloc.malloc(50000) == block
    found = compare(before, snap(played))

    chunk, cut = block - HEADER, block - HEADER + 50016
    assert told(found)[chunk] == "resized"
    assert told(found)[cut] == "new"
    assert told(compare(found.after, found.before))[cut] == "gone"
    assert guard - HEADER not in told(found)
    assert growth(found)[0].size == 50016
    assert growth(found)[0].bytes == 50016


def test_a_chunk_that_moves_to_another_bin() -> None:
    played = play("2.36", threads=1, tunables={"tcache_count": 0})
    malloc = played.allocator
    block = malloc.malloc(2000)
    malloc.malloc(24)
    malloc.free(block)
    before = snap(played)
    malloc.malloc(70000)
    found = compare(before, snap(played))

    assert before.bins[block - HEADER] == "unsorted"
    assert found.after.bins[block - HEADER].startswith("large")
    assert told(found)[block - HEADER] == "moved"


@pytest.mark.parametrize("contents", [(True, True), (True, False), (False, True), (False, False)])
def test_bytes_that_were_written(contents: tuple[bool, bool]) -> None:
    played = play("2.36", threads=1)
    malloc = played.allocator
    blocks = [malloc.malloc(size) for size in (24, 3000, 300000)]
    before = snap(played, contents[0])
    for block in blocks:
        malloc.write(block + 3, b"XY")
        malloc.write(block + 20, b"Z")
    found = compare(before, snap(played, contents[1]))

    assert told(found) == {block - HEADER: "written" for block in blocks}
    exactly = contents == (True, True)
    assert found.contents == ("exactly" if exactly else "by checksum")
    assert (found.ranges == {b - HEADER: [(3, 5), (20, 21)] for b in blocks}) == exactly
    assert found.counted()["written"][0] == 3


def test_what_malloc_writes_into_free_chunks_is_not_contents() -> None:
    found = after(lambda malloc: malloc.free(malloc.malloc(24)))

    assert "written" not in told(found).values()


def test_mmapped_chunks_come_and_go() -> None:
    played = play("2.36", threads=1)
    before = snap(played)
    block = played.allocator.malloc(300000)
    found = compare(before, snap(played))

    assert [one for one, kind in told(found).items() if kind == "new"] == [block - HEADER]
    assert totals(found.after)["mmapped"][0] == 1
    assert list(found.after.addresses) == sorted(found.after.addresses)
    assert growth(found)[0].after == 1


def test_totals_are_those_of_the_states() -> None:
    found = after(lambda malloc: [malloc.malloc(24) for _ in range(30)])
    before, now = totals(found.before), totals(found.after)

    assert now["used"][0] - before["used"][0] == 30
    assert sum(count for count, _ in now.values()) == len(found.after)


def test_machines_must_be_alike() -> None:
    with pytest.raises(BadRequest, match="is x86_64, a model i386"):
        compare(snap(play("2.36", threads=1)), snap(play("2.36", "i386", threads=1)))


def test_few_bytes_are_kept_whole_and_many_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play("2.36", threads=1)
    assert snap(played, None).memory is not None
    monkeypatch.setattr("heapglass.analysis.snapshot.FEW", 100)
    few = snap(played, None)
    assert few.memory is None
    assert few.sums is not None
    assert sum(1 for one in few.sums if one) > 5


def test_a_copy_does_not_follow_the_process() -> None:
    played = play("2.36", threads=1)
    block = played.allocator.malloc(24)
    before = snap(played)
    played.allocator.write(block, b"later")
    assert before.memory is not None
    assert before.memory.read(block, 5) != b"later"
    with pytest.raises(MemoryFault):
        before.memory.read(played.allocator.places.main_arena, 8)


class Holed:
    """A memory without one page."""

    def __init__(self, memory: Memory, page: int) -> None:
        self._memory, self._page = memory, page
        self.regions, self.read = memory.regions, memory.read

    def view(self, start: int, end: int) -> memoryview:
        if start < self._page + 4096 and self._page < end:
            raise MemoryFault(start, end - start)
        return self._memory.view(start, end)


def test_a_page_that_is_missing_is_not_compared() -> None:
    played = play("2.36", threads=1)
    malloc = played.allocator
    blocks = [malloc.malloc(3000) for _ in range(60)]
    before = snap(played)
    for block in blocks:
        malloc.write(block + 100, b"!")
    after_ = snap(played)
    assert after_.memory is not None
    after_.memory = Holed(after_.memory, blocks[30] & -4096)
    found = compare(before, after_)
    written = {one + HEADER for one, kind in told(found).items() if kind == "written"}

    assert found.unread == 4096
    assert blocks[30] not in written
    assert {*blocks[:28], *blocks[33:]} <= written


@pytest.mark.parametrize("seed", range(6))
def test_the_merge_is_that_of_sets(seed: int) -> None:
    dice = random.Random(seed)
    everything = sorted(dice.sample(range(0, 1 << 20, 16), 30000))
    left = [a for a in everything if dice.random() < (0.999 if a % 5 else 0.5)]
    right = [a for a in everything if dice.random() < 0.9999]
    rows = list(merged(array("Q", left), array("Q", right)))
    both = [left[h + n] for h, t, count in rows if min(h, t) >= 0 for n in range(count)]
    same = [right[t + n] for h, t, count in rows if min(h, t) >= 0 for n in range(count)]

    assert both == same == sorted({*left} & {*right})
    assert [left[h + n] for h, t, c in rows if t < 0 for n in range(c)] == sorted(
        {*left} - {*right}
    )
    assert [right[t + n] for h, t, c in rows if h < 0 for n in range(c)] == sorted(
        {*right} - {*left}
    )


def test_ranges_that_are_close_are_one() -> None:
    old, new = bytearray(300), bytearray(300)
    for at in (0, 5, 63, 64, 200, 299):
        new[at] = 1

    assert changed_ranges(memoryview(old), memoryview(new)) == [
        (0, 6),
        (63, 65),
        (200, 201),
        (299, 300),
    ]

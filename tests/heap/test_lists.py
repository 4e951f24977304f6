"""Lists that stop making sense: said where it happens, and the rest still shown."""

from __future__ import annotations

import pytest

from heapglass.glibc.safelink import protect
from heapglass.heap.lists import FreeList
from heapglass.heap.target import HeapThread

from .made import ARENA, MadeHeap

SMALL = 0x410  # too large for tcache and fast bins of 2.36, a large bin's first size


def listed(made: MadeHeap, label: str) -> FreeList:
    return next(found for found in made.heap().lists if found.label == label and found.index)


@pytest.fixture
def five() -> MadeHeap:
    """Five free chunks in the unsorted bin, used ones between them."""
    made = MadeHeap([SMALL | 1, 0x21] * 5 + [0x21])
    made.link(1, made.chunks[0:10:2])
    return made


def test_an_intact_list_comes_in_the_order_of_fd(five):
    found = listed(five, "unsorted")

    assert found.chunks == five.chunks[0:10:2]
    assert found.fault is None
    assert not found.lost


def test_a_loop_is_said_and_the_list_is_followed_from_its_other_end(five):
    first, second = five.chunks[0], five.chunks[2]
    five.set_word(second + 0x10, first)  # fd of the second goes back

    found = listed(five, "unsorted")

    assert found.fault == f"loop: {second:#x} links back to {first:#x}"
    assert found.chunks == five.chunks[0:10:2]


def test_a_wild_pointer_is_said_and_the_rest_is_shown(five):
    third = five.chunks[4]
    five.set_word(third + 0x10, 0x41414141_00000000)

    found = listed(five, "unsorted")

    assert found.fault == f"{third:#x} links to 0x4141414100000000, which cannot be read"
    assert found.chunks == five.chunks[0:10:2]


def test_a_misaligned_link_is_a_fault(five):
    five.set_word(five.chunks[0] + 0x10, five.chunks[2] + 4)

    assert "not aligned" in str(listed(five, "unsorted").fault)


def test_a_broken_bk_is_said_and_the_chunks_are_still_there(five):
    five.set_word(five.chunks[4] + 0x18, 0x1234)

    found = listed(five, "unsorted")

    assert found.fault == f"bk of {five.chunks[4]:#x} is 0x1234, not {five.chunks[2]:#x}"
    assert found.chunks == five.chunks[0:10:2]


def test_a_chunk_of_a_wrong_size_is_said():
    made = MadeHeap([0x91, 0x21, 0x21])
    made.link(10, [made.chunks[0]])

    found = listed(made, "small[0xa0]")

    assert found.fault == f"{made.chunks[0]:#x} has size 0x90, wrong for small[0xa0]"


def test_a_long_list_has_no_limit():
    made = MadeHeap([0x91, 0x21] * 150)
    made.link(9, made.chunks[0::2])

    assert len(listed(made, "small[0x90]").chunks) == 150


# --- singly linked --------------------------------------------------------------------------------


def fast(made: MadeHeap, *links: int) -> None:
    """Make a fastbin of size 0x20: the head, then what each chunk stores as fd."""
    head = ARENA + made.layout.state.offset("fastbinsY")
    made.set_word(head, links[0])


def test_fast_links_are_revealed_from_2_32_on():
    made = MadeHeap([0x21] * 4)
    a, b = made.chunks[:2]
    fast(made, a)
    made.set_word(a + 0x10, protect(a + 0x10, b))
    made.set_word(b + 0x10, protect(b + 0x10, 0))

    found = next(f for f in made.heap().lists if f.label == "fast[0x20]")

    assert found.chunks == [a, b]
    assert found.fault is None


def test_fast_links_are_plain_before_2_32():
    made = MadeHeap([0x21] * 4, version=(2, 31))
    a, b = made.chunks[:2]
    fast(made, a)
    made.set_word(a + 0x10, b)

    found = next(f for f in made.heap().lists if f.label == "fast[0x20]")

    assert found.chunks == [a, b]


def test_a_loop_in_a_fastbin_ends_the_walk_and_makes_its_size_unknown():
    made = MadeHeap([0x21] * 4, version=(2, 31))
    a, b, c, _ = made.chunks
    fast(made, a)
    made.set_word(a + 0x10, b)
    made.set_word(b + 0x10, a)

    found = next(f for f in made.heap().lists if f.label == "fast[0x20]")

    assert found.fault == f"loop: {a:#x} comes again after 2 chunks"
    assert found.lost
    states = {chunk.address: chunk.state for chunk in made.heap().every_chunk()}
    assert (states[a], states[b], states[c]) == ("fast", "fast", None)


def test_a_wild_fast_pointer_is_a_fault():
    made = MadeHeap([0x21] * 4, version=(2, 31))
    fast(made, 0x4141414141414140)

    found = next(f for f in made.heap().lists if f.label == "fast[0x20]")

    assert found.fault == "0x4141414141414140 cannot be read"
    assert found.chunks == []


# --- tcache ---------------------------------------------------------------------------------------


def with_tcache(version: tuple[int, int], sizes: list[int]) -> MadeHeap:
    """Return a heap whose first chunk is the tcache struct of thread 7."""
    made = MadeHeap([0x291 if version < (2, 42) else 0x301, *sizes], version=version)
    mem = made.chunks[0] + 0x10
    made.target.threads = [HeapThread(7, tcache=mem, tcache_how="symbol", tcache_state="active")]
    mp = made.layout.structs["malloc_par"]
    made.set_word(ARENA - 0x900 + mp.offset("tcache_count"), 7)
    if "num_slots" in made.layout.tcache:
        for index in range(76):
            made.memory.write(mem + 2 * index, (7).to_bytes(2, "little"))
    return made


def put(made: MadeHeap, index: int, chunks: list[int], count: int) -> None:
    """Write a tcache bin: counter and entries."""
    mem, layout = made.chunks[0] + 0x10, made.layout
    number = count if "counts" in layout.tcache else 7 - count
    made.memory.write(mem + 2 * index, number.to_bytes(2, "little"))
    made.set_word(mem + layout.tcache.offset("entries") + 8 * index, chunks[0] + 0x10)
    for chunk, after in zip(chunks, [*chunks[1:], -0x10]):
        made.set_word(chunk + 0x10, protect(chunk + 0x10, after + 0x10))


@pytest.mark.parametrize("version", [(2, 36), (2, 42), (2, 44)])
def test_a_tcache_bin_is_read_by_its_counter_or_its_free_slots(version):
    made = with_tcache(version, [0x21] * 4)
    a, b = made.chunks[1:3]
    put(made, 0, [b, a], 2)

    cache = made.heap().tcaches[0]
    found = cache.lists[0]

    assert found.chunks == [b, a]
    assert (found.stored_count, found.fault) == (2, None)
    assert made.states()[:4] == ["used", "tcache", "tcache", "used"]


def test_a_counter_that_lies_is_said():
    made = with_tcache((2, 36), [0x21] * 4)
    put(made, 0, [made.chunks[1]], 3)

    assert made.heap().tcaches[0].lists[0].fault == "the counter says 3, the list holds 1"


def test_a_poisoned_next_is_said_where_it_happens():
    made = with_tcache((2, 36), [0x21] * 4)
    a, b = made.chunks[1:3]
    put(made, 0, [b, a], 2)
    made.set_word(b + 0x10, 0x4242424242424242)  # not protected

    found = made.heap().tcaches[0].lists[0]

    assert found.chunks == [b]
    assert found.fault is not None
    assert "not aligned" in found.fault


def test_a_large_tcache_bin_that_is_not_sorted_is_said():
    made = with_tcache((2, 44), [0x431, 0x451, 0x21])
    small, large = made.chunks[1:3]
    put(made, 64, [large, small], 2)

    found = next(f for f in made.heap().tcaches[0].lists if f.index == 64)

    assert found.chunks == [large, small]
    assert found.fault == f"{small:#x} (size 0x430) stands behind a larger chunk"


def test_the_struct_of_the_tcache_is_the_allocators_own():
    made = with_tcache((2, 36), [0x21] * 4)

    first = next(made.heap().every_chunk())

    assert (first.state, first.owner) == ("used", "tcache")


def test_what_may_be_in_a_tcache_nobody_found_is_unknown():
    made = with_tcache((2, 36), [0x21, 0x801, 0x21])
    made.target.threads = [HeapThread(7)]

    heap = made.heap()

    states = [chunk.state for chunk in heap.every_chunk()]
    assert states == [None, None, "used", None, "top"]
    assert heap.problems == [
        "the tcache of thread 7 was not found: chunks of up to 0x410 bytes that look used may be "
        "cached, and are not known"
    ]


def test_how_large_a_cached_chunk_can_be_is_mps_limit():
    """Since 2.43 tcache_max_bytes is one more than the largest chunk (default 1041)."""
    made = with_tcache((2, 44), [0x411, 0x421, 0x21])
    made.target.threads = [HeapThread(7)]
    mp = made.layout.structs["malloc_par"]
    made.set_word(ARENA - 0x900 + mp.offset("tcache_max_bytes"), 0x411)

    assert made.states() == [None, None, "used", None, "top"]

"""Walks over heaps that are not what malloc wrote: partial answers, and where they stop."""

from __future__ import annotations

import pytest

from heapglass.errors import MemoryFault
from heapglass.heap.columns import FENCEPOST, Columns, Walker
from heapglass.heap.footing import walk_through
from heapglass.heap.target import HeapThread
from heapglass.memory import Region

from .made import ARENA, BASE, MP, MadeHeap

ORDERS = [(8, "little"), (8, "big"), (4, "little"), (4, "big")]


@pytest.mark.parametrize(("word", "order"), ORDERS)
def test_chunks_of_any_word_size_and_byte_order(word, order):
    made = MadeHeap([0x21, 0x31, 0x41], word=word, order=order)
    made.link(1, [made.chunks[1]])

    chunks = list(made.heap().every_chunk())

    assert [chunk.address for chunk in chunks] == [*made.chunks, made.top]
    assert [chunk.size for chunk in chunks][:3] == [0x20, 0x30, 0x40]
    assert [chunk.state for chunk in chunks] == ["used", "free", "used", "top"]


def test_the_first_chunk_behind_an_odd_break_is_aligned():
    made = MadeHeap([0x31, 0x21, 0x31])
    made.set_word(MP + made.layout.structs["malloc_par"].offset("sbrk_base"), BASE + 0x2B)

    chunks = list(made.heap().every_chunk())

    assert [chunk.address for chunk in chunks] == [*made.chunks[1:], made.top]


def test_an_overwritten_size_is_corrupt_and_the_walk_goes_on_at_the_next_proven_chunk():
    made = MadeHeap([0x21, 0x21, 0x411, 0x21])
    made.link(1, [made.chunks[2]])
    made.set_size(made.chunks[1], 0x4141414141414141)

    heap = made.heap()
    chunks = list(heap.every_chunk())

    assert [(c.address, c.state) for c in chunks] == [
        (made.chunks[0], None),  # the header that would tell is not to be believed
        (made.chunks[1], "corrupt"),
        (made.chunks[2], "free"),
        (made.chunks[3], "used"),
        (made.top, "top"),
    ]
    reason = f"{made.chunks[1]:#x}: size 0x4141414141414140 runs past {made.top:#x}"
    assert f"{reason}; nothing is known up to {made.chunks[2]:#x}" in heap.problems


def test_the_foot_of_a_free_chunk_tells_where_the_next_one_is():
    """What an overflow into a free chunk's header leaves: its size is gone, its foot is not."""
    made = MadeHeap([0x411, 0x411, 0x21, 0x21])
    made.link(1, [made.chunks[1]])
    made.set_word(made.chunks[1], 0x4141414141414141)
    made.set_size(made.chunks[1], 0x4141414141414141)

    heap = made.heap()
    chunks = list(heap.every_chunk())

    assert [(c.address, c.state) for c in chunks] == [
        (made.chunks[0], None),
        (made.chunks[1], "corrupt"),
        (made.chunks[2], "used"),
        (made.chunks[3], "used"),
        (made.top, "top"),
    ]
    assert len([problem for problem in heap.problems if "in no bin" in problem]) == 0


@pytest.mark.parametrize(
    ("size", "reason"),
    [(0, "size 0x0 is below MINSIZE (0x20)"), (0x29, "size 0x28 is not a multiple of 0x10")],
)
def test_a_size_that_malloc_cannot_have_written_is_named(size, reason):
    made = MadeHeap([0x21, 0x21, 0x21])
    made.set_size(made.chunks[1], size)

    heap = made.heap()

    assert [c.state for c in heap.every_chunk()][-1] == "top"
    assert any(reason in problem for problem in heap.problems)


def test_a_chunk_that_is_free_by_its_flags_but_in_no_bin_is_unknown():
    made = MadeHeap([0x21, 0x21, 0x21])
    made.set_size(made.chunks[1], 0x20)

    heap = made.heap()
    states = [chunk.state for chunk in heap.every_chunk()]

    assert states == [None, "used", "used", "top"]
    assert any("in no bin" in problem for problem in heap.problems)


def test_a_binned_chunk_that_is_in_use_by_its_flags_is_corrupt():
    made = MadeHeap([0x411, 0x21, 0x21])
    made.link(1, [made.chunks[0]])
    made.set_size(made.chunks[1], 0x21)

    heap = made.heap()

    assert next(heap.every_chunk()).state == "corrupt"
    assert any("in use by the next chunk's P bit" in problem for problem in heap.problems)


def test_missing_memory_ends_the_walk_and_top_is_still_found():
    made = MadeHeap([0x1001] * 4)
    whole = made.memory
    missing = made.chunks[2] & -4096

    class Holed:
        def read(self, address, size):
            if address < missing + 4096 and address + size > missing:
                raise MemoryFault(max(address, missing), size)
            return whole.read(address, size)

        def view(self, start, end):
            return memoryview(self.read(start, end - start))

        def regions(self):
            return [
                Region(BASE, missing),
                Region(missing + 4096, BASE + 0x8000),
                *whole.regions()[1:],
            ]

    made.target.memory = Holed()
    heap = made.heap()
    chunks = list(heap.every_chunk())

    assert chunks[0].address == made.chunks[0]
    assert chunks[-1].state == "top"
    assert any(f"its memory ends at {missing:#x}" in problem for problem in heap.problems)


def test_a_piece_is_closed_by_two_fenceposts_and_the_next_one_is_found():
    """sysmalloc's picture of a foreign sbrk: chunks, two headers of size HDR, a gap, chunks."""
    made = MadeHeap([0x21, 0x31])
    second = made.top + 0x20 + 0x130
    made.set_size(made.top, 0x11)
    made.set_size(made.top + 0x10, 0x11)
    made.memory.write(made.top + 0x20, b"\xaa" * 0x130)
    made.set_size(second, 0x41)
    top = second + 0x40
    made.set_size(top, BASE + 0x8000 - top | 1)
    made.set_word(ARENA + made.layout.state.offset("top"), top)

    heap = made.heap()

    assert [(s.first, s.end) for s in heap.segments] == [
        (BASE, made.top + 0x20),
        (second, BASE + 0x8000),
    ]
    assert [c.state for c in heap.every_chunk()] == [
        *["used", "used", "fencepost", "fencepost", "used", "top"]
    ]
    assert heap.problems == []


def test_data_that_is_one_word_over_and_over_is_no_pair_of_fenceposts():
    made = MadeHeap([0x21, 0x31])
    at = made.chunks[1]
    for offset in range(8, 0x20, 8):
        made.set_word(at + offset, 0x11)  # a loop that ran over the header

    heap = made.heap()

    assert "fencepost" not in [chunk.state for chunk in heap.every_chunk()]


def test_an_array_that_was_filled_to_before_its_start_is_no_pair_of_fenceposts():
    made = MadeHeap([0x21, 0x31])
    at = made.chunks[1]
    for offset in range(8, 0x28, 8):
        made.set_word(at + offset, 0x11)

    heap = made.heap()

    assert "fencepost" not in [chunk.state for chunk in heap.every_chunk()]
    assert [c.state for c in heap.every_chunk() if c.address == at] == ["corrupt"]


def test_top_somewhere_else_is_said():
    made = MadeHeap([0x21, 0x31])
    made.set_word(ARENA + made.layout.state.offset("top"), 0x1230)

    heap = made.heap()

    assert all(chunk.state != "top" for chunk in heap.every_chunk())
    assert any("top 0x1230 is in none of its pieces" in problem for problem in heap.problems)


def test_without_mp_the_mapping_of_top_is_the_heap():
    made = MadeHeap([0x21, 0x31], extra=[Region(BASE - 0x1000, BASE)])  # a neighbour: .bss, say
    made.target.mp = None

    heap = made.heap()

    assert [chunk.state for chunk in heap.every_chunk()] == ["used", "used", "top"]
    assert heap.segments[0].start == BASE


def test_a_ring_that_does_not_close_is_said():
    made = MadeHeap([0x21])
    made.set_word(ARENA + made.layout.state.offset("next"), 0x1234560)

    heap = made.heap()

    assert len(heap.arenas) == 1
    assert any("next is 0x1234560, which is no arena" in problem for problem in heap.problems)


HEAP = 0xF4000000  # a multiple of HEAP_MAX_SIZE, 64 MiB
HEAP_REGION = Region(HEAP, HEAP + 0x2000)


def test_a_threads_arena_is_read_from_its_heap():
    made = MadeHeap([0x21], extra=[HEAP_REGION])
    arena = made.add_arena(HEAP)

    heap = made.heap()

    assert [found.address for found in heap.arenas] == [ARENA, arena]
    (segment,) = heap.heap_segments
    assert (segment.start, segment.first, segment.end) == (HEAP, HEAP + 0x8D0, HEAP + 0x2000)
    assert [chunk.state for chunk in heap.every_chunk()] == ["used", "top", "top"]
    assert heap.problems == []


def test_a_ring_with_a_loop_is_said():
    made = MadeHeap([0x21], extra=[HEAP_REGION])
    arena = made.add_arena(HEAP)
    made.set_word(arena + made.layout.state.offset("next"), arena)

    heap = made.heap()

    assert [found.address for found in heap.arenas] == [ARENA, arena]
    assert any("goes back to" in problem for problem in heap.problems)


@pytest.mark.parametrize("prev", [HEAP, 0x1000], ids=["loop", "wild"])
def test_a_chain_of_heaps_that_breaks_is_said(prev):
    made = MadeHeap([0x21], extra=[HEAP_REGION])
    made.add_arena(HEAP)
    made.set_word(HEAP + made.layout.structs["heap_info"].offset("prev"), prev)

    heap = made.heap()

    assert len(heap.heap_segments) == 1
    assert any(f"{prev:#x}" in problem for problem in heap.problems)


def closed(*size_words: int) -> tuple[Walker, Columns]:
    """Return a walker over chunks with these size words that fill a heap, walked to the end."""
    made = MadeHeap([])
    address = BASE
    for word in size_words:
        made.set_size(address, word)
        address += max(word & ~7, 0x10)
    walker, columns = Walker(made.heap().words, BASE, address), Columns()
    stop = walk_through(walker, columns, BASE, address, [])
    assert stop.kind == "fencepost"
    assert walker.add_fenceposts(columns, stop.address) == address
    return walker, columns


def test_a_full_heap_ends_with_headers_of_size_hdr_and_0():
    _, columns = closed(0x31, 0x11, 0x1)

    assert list(columns.states) == [0, FENCEPOST, FENCEPOST]
    assert columns.gaps == []


def test_a_heap_whose_rest_was_too_small_ends_with_0_alone():
    """sysmalloc with s < MINSIZE: the old top keeps the first header's place (2.23 to 2.44)."""
    _, columns = closed(0x31, 0x1)

    assert list(columns.states) == [0, FENCEPOST]


def test_what_a_destroyed_header_says_of_the_chunk_before_is_no_warning():
    made = MadeHeap([0x21, 0x21, 0x21])
    made.set_size(made.chunks[1], 0x4242424242424242)  # P is clear in it

    heap = made.heap()

    assert next(heap.every_chunk()).state is None
    assert [problem for problem in heap.problems if "in no bin" in problem] == []


# --- mmapped --------------------------------------------------------------------------

MAPPED = 0xF7000000


def mapped(version: tuple[int, int], headers: dict[int, tuple[int, int]], count: int) -> MadeHeap:
    made = MadeHeap([0x21], version=version, extra=[Region(MAPPED, MAPPED + 0x40000)])
    for offset, (prev_size, size) in headers.items():
        made.set_word(MAPPED + offset, prev_size)
        made.set_word(MAPPED + offset + 8, size)
    mp = made.layout.structs["malloc_par"]
    at = ARENA - 0x900
    made.memory.write(at + mp.offset("n_mmaps"), count.to_bytes(4, "little"))
    return made


def set_mapped_bytes(made: MadeHeap, total: int) -> None:
    mp = made.layout.structs["malloc_par"]
    made.set_word(ARENA - 0x900 + mp.offset("mmapped_mem"), total)


def test_an_mmapped_chunk_of_the_old_layout():
    made = mapped((2, 42), {0: (0, 0x31002)}, 1)
    set_mapped_bytes(made, 0x31000)

    heap = made.heap()

    (chunk,) = heap.mmapped
    assert (chunk.address, chunk.start, chunk.length) == (MAPPED, MAPPED, 0x31000)
    assert heap.problems == []


def test_an_mmapped_chunk_of_the_new_layout_leaves_a_header_out():
    made = mapped((2, 43), {0: (0, 0x30FF2)}, 1)
    set_mapped_bytes(made, 0x31000)

    (chunk,) = made.heap().mmapped

    assert chunk.length == 0x31000


def test_the_header_that_memalign_moved_counts_not_the_one_left_behind():
    lead = 0x10000 - 0x10
    made = mapped((2, 42), {0: (0, 0x31002), lead: (lead, 0x31000 - lead | 2)}, 1)
    set_mapped_bytes(made, 0x31000)

    (chunk,) = made.heap().mmapped

    assert (chunk.address, chunk.start) == (MAPPED + lead, MAPPED)


@pytest.mark.parametrize(("word", "natural"), [(8, 0), (4, 8)])
def test_a_moved_header_counts_even_after_mremap_has_moved_the_mapping(word, natural):
    """memalign put mem at a page, mremap took the mapping elsewhere: the old header is stale."""
    made = MadeHeap([0x21], version=(2, 36), word=word, extra=[Region(MAPPED, MAPPED + 0x40000)])
    lead = 0x7000 - 2 * word
    for offset, prev_size, size in (
        (natural, natural, 0x20000 - natural | 2),  # of the time before mremap
        (lead, lead, 0x31000 - lead | 2),
    ):
        made.set_word(MAPPED + offset, prev_size)
        made.set_word(MAPPED + offset + word, size)
    mp = made.layout.structs["malloc_par"]
    made.memory.write(ARENA - 0x900 + mp.offset("n_mmaps"), (1).to_bytes(4, "little"))
    set_mapped_bytes(made, 0x31000)

    heap = made.heap()

    assert [(chunk.address, chunk.length) for chunk in heap.mmapped] == [(MAPPED + lead, 0x31000)]
    assert heap.problems == []


def test_neighbours_in_one_mapping_are_told_apart():
    made = mapped((2, 42), {0: (0, 0x1002), 0x1000: (0, 0x2002), 0x5000: (0, 0x3002)}, 3)
    set_mapped_bytes(made, 0x6000)

    assert [chunk.length for chunk in made.heap().mmapped] == [0x1000, 0x2000, 0x3000]


def test_a_total_that_is_not_met_is_said():
    made = mapped((2, 42), {0: (0, 0x1002)}, 2)
    set_mapped_bytes(made, 0x3000)

    heap = made.heap()

    assert len(heap.mmapped) == 1
    assert heap.problems == [
        "mmapped: mp_ says 2 chunks with 0x3000 bytes of mappings; found 1 with 0x1000"
    ]


def test_threads_without_a_tcache_prove_that_chunks_are_used():
    made = MadeHeap([0x21, 0x21], threads=[HeapThread(1, tcache_state="disabled")])

    assert made.states() == ["used", "used", "top"]

"""Ways that no real library at hand goes: broken lists, other releases, a kernel that says no."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from heapglass.errors import BadTarget, MallocAbort, MemoryFault
from heapglass.model import Allocator
from heapglass.model.trace import read_trace

OFF = {"tcache_count": 0}


def chunk_of(block: int) -> int:
    return block - 16


def begin(glibc: str, **tunables: int) -> Allocator:
    """A model in which an endless list is found soon."""
    model = Allocator(glibc, tunables=tunables)
    model.machine.loops = 500
    return model


def apart(model: Allocator, *sizes: int) -> list[int]:
    """Blocks with a live one behind each."""
    blocks = []
    for size in sizes:
        blocks.append(model.malloc(size))
        model.malloc(24)
    return blocks


def put(model: Allocator, address: int, *words: int) -> None:
    for number, word in enumerate(words):
        model.machine.store(address + 8 * number, word)


def listed(model: Allocator, *sizes: int) -> list[int]:
    """Freed blocks, sorted into their bins."""
    blocks = apart(model, *sizes)
    for block in blocks:
        model.free(block)
    model.malloc(max(sizes) + 5000)
    return blocks


# --- lists without an end -------------------------------------------------------------------------


def test_a_ring_of_arenas_that_misses_main() -> None:
    model = begin("2.36")
    model.malloc(24)
    arena = model.machine.arena_for_chunk(chunk_of(model.thread().malloc(24)))
    put(model, arena + model.machine.o_next, arena)
    with pytest.raises(MemoryFault, match="never ends"):
        model.mallinfo2()


def test_a_bin_that_leads_to_itself() -> None:
    model = begin("2.36", **OFF)
    (block,) = listed(model, 2000)
    put(model, block, chunk_of(block), chunk_of(block))
    with pytest.raises(MemoryFault, match="never ends"):
        model.mallinfo2()


def test_a_fastbin_that_leads_to_itself() -> None:
    model = begin("2.31", **OFF)
    (block,) = apart(model, 24)
    model.free(block)
    put(model, block, chunk_of(block))
    with pytest.raises(MemoryFault, match="never ends"):
        model.mallinfo2()


def test_sizes_of_a_large_bin_that_lead_to_themselves() -> None:
    model = begin("2.36", **OFF)
    (between,) = apart(model, 5250)
    large, _ = listed(model, 5500, 5200)
    model.free(between)
    put(model, large + 16, chunk_of(large))  # fd_nextsize
    with pytest.raises(MemoryFault, match="never ends"):
        model.malloc(9000)
    model = begin("2.36", **OFF)
    large, small = listed(model, 5500, 5200)
    put(model, small + 24, chunk_of(small))  # bk_nextsize
    with pytest.raises(MemoryFault, match="never ends"):
        model.malloc(5400)


@pytest.mark.parametrize("size", [600, 3000])
def test_memalign_looks_through_a_bin_that_never_ends(size: int) -> None:
    model = begin("2.38", **OFF)
    for block in listed(model, *[size] * 6):
        put(model, block, chunk_of(block))
    with pytest.raises(MemoryFault, match="never ends"):
        model.memalign(1 << 16, size)


@pytest.mark.parametrize("glibc", ["2.41", "2.43"])
def test_memalign_looks_through_a_tcache_that_never_ends(glibc: str) -> None:
    model = begin(glibc)
    for block in [model.malloc(100) for _ in range(5)]:
        if block % 256:
            break
    model.free(block)
    put(model, block, block >> 12 ^ block)
    with pytest.raises(MemoryFault, match="never ends"):
        model.memalign(256, 100)


def test_a_large_bin_of_the_tcache_that_never_ends() -> None:
    model = begin("2.43", tcache_max=1 << 20)
    block = model.malloc(2100)
    model.free(block)
    put(model, block, block >> 12 ^ block)
    with pytest.raises(MemoryFault, match="never ends"):
        model.malloc(2500)


# --- checks ---------------------------------------------------------------------------------------


def test_2_42_checks_what_it_moves_from_a_fastbin_to_the_tcache() -> None:
    model = begin("2.42", tcache_count=3)
    kept = [model.malloc(24) for _ in range(3)]
    blocks = apart(model, 24, 24, 24)
    for block in kept + blocks:
        model.free(block)
    for _ in kept:
        model.malloc(24)
    put(model, blocks[1] - 8, 0x41)
    with pytest.raises(MallocAbort, match="chunk size mismatch in fastbin"):
        model.malloc(24)


@pytest.mark.parametrize("which", [0, 1])
def test_chunks_of_main_do_not_say_that_they_are_others(which: int) -> None:
    model = begin("2.36", **OFF)
    (between,) = apart(model, 5250)
    blocks = listed(model, 5500, 5300, 5200)
    model.free(between)
    model.machine.store(blocks[which] - 8, model.machine.load(blocks[which] - 8) | 4)
    with pytest.raises(MallocAbort, match="chunk_main_arena"):
        model.malloc(9000)


def test_calloc_trusts_no_small_chunk() -> None:
    """A small bin's chunk whose header says that it has no room for three words."""
    model = begin("2.36", **OFF)
    (block,) = listed(model, 200)
    put(model, block - 8, 0x11)
    with pytest.raises(MallocAbort, match="nclears >= 3"):
        model.calloc(1, 200)


def test_a_heap_that_names_another_arena() -> None:
    model = begin("2.36", mmap_threshold=32 << 20)
    model.malloc(24)
    thread, machine = model.thread(), model.machine
    blocks = [thread.malloc(20 << 20) for _ in range(4)]
    first, last = machine.heap_for_ptr(blocks[0]), machine.heap_for_ptr(blocks[-1])
    assert first != last
    put(model, last, machine.main)
    with pytest.raises(MallocAbort, match="heap->ar_ptr == av"):
        thread.free(blocks[0])


def test_a_heap_is_not_shrunk_below_its_head() -> None:
    model = begin("2.36")
    model.malloc(24)
    thread, machine = model.thread(), model.machine
    block = thread.malloc(100000)
    heap = machine.heap_for_ptr(block)
    top = machine.load(machine.load(heap) + machine.o_top)
    put(model, top + 8, 0x200001)  # much more than the heap has
    before = machine.load(machine._info(heap, "size"))
    assert not machine.heap_trim(heap, 0)
    assert machine.load(machine._info(heap, "size")) == before


def test_a_key_that_a_program_wrote_is_taken_off() -> None:
    """From 2.42 a block with the key that is in no list is freed after all."""
    for glibc in ("2.42", "2.43"):
        model = begin(glibc)
        machine = model.machine
        model.malloc(24)
        block = model.malloc(24)
        put(model, block + 8, machine.load(machine.at["tcache_key"]))
        model.free(block)
        assert model.malloc(24) == block


# --- little memory --------------------------------------------------------------------------------


def test_the_first_calloc_gets_nothing() -> None:
    for glibc in ("2.23", "2.33", "2.41", "2.43"):
        model = begin(glibc)
        model.kernel.brk_blocked, model.kernel.failing_mmaps = True, -1
        assert model.calloc(2, 12) == 0
        assert model.calloc(1, model.layout.max_address) == 0


def test_the_place_kept_for_a_heap_was_taken() -> None:
    """mmap returns another address than asked for; malloc gives it back and looks further."""
    model = Allocator("2.36", mmap_top=0x7FFFF0000000)
    model.malloc(24)
    machine = model.machine
    first = machine.heap_for_ptr(model.thread().malloc(24))
    hint = machine.load(machine.at["aligned_heap_area"])
    assert hint == first + (64 << 20)
    model.memory.map(hint, hint + 4096, "rw-")
    model.memory.map(first - 4096, first, "rw-")
    second = machine.heap_for_ptr(model.thread().malloc(24))
    assert second not in (first, hint)
    assert second % (64 << 20) == 0


@pytest.mark.parametrize(("top", "own"), [(0x7FFFF1000000, False), (0x7FFFF0000000, True)])
def test_room_for_one_heap_only(top: int, own: bool) -> None:
    """Twice the size cannot be had: the size itself will do, if it happens to be aligned."""
    others = [(0x10000, 0x555555550000), (0x555558000000, top - (100 << 20))]
    model = Allocator("2.36", mmap_top=top, reserved=others)
    model.malloc(24)
    block = model.thread().malloc(24)
    # With no arena at all every block is a mapping of its own.
    assert model.machine.load(block - 8) & 6 == (4 if own else 2)


@pytest.mark.parametrize("glibc", ["2.31", "2.36", "2.44"])
@pytest.mark.parametrize("left", [0x20, 0x30, 0x40])
def test_a_heap_that_is_left_with_hardly_any_top(glibc: str, left: int) -> None:
    """What stays between the last block and the heap's end is the fencepost's alone."""
    model = Allocator(glibc, tunables={"mmap_threshold": 32 << 20, "tcache_count": 0})
    model.malloc(24)
    thread, machine = model.thread(), model.machine
    first = thread.malloc(24)
    heap = machine.heap_for_ptr(first)
    arena = machine.load(heap)
    blocks = [thread.malloc(30 << 20), thread.malloc(30 << 20)]
    used = machine.load(arena + machine.o_top) - heap
    blocks.append(thread.malloc((64 << 20) - used - left - 8))
    assert machine.chunksize(machine.load(arena + machine.o_top)) == left
    beyond = thread.malloc(5000)
    assert machine.heap_for_ptr(beyond) != heap
    for block in [beyond, *blocks]:
        thread.free(block)
    assert machine.heap_for_ptr(machine.load(arena + machine.o_top)) == heap


def test_a_second_growth_of_the_break_that_fails() -> None:
    """Somebody else moved the break, and behind the new piece there is no page left."""
    model = begin("2.36")
    model.malloc(100000)
    kernel, machine, before = model.kernel, model.machine, model.mallinfo2().arena
    old_size = machine.chunksize(machine.load(machine.main + machine.o_top))
    kernel.sbrk(16)
    size = kernel.page_up(100016 + 0x20000 + 32 - old_size)
    wall = kernel.page_up(kernel.brk + size) + 4096
    model.memory.map(wall, wall + 4096, "---", "wall")
    start = kernel.brk
    assert model.malloc(100000) == start + 16
    assert kernel.brk == start + size  # no correction
    assert model.mallinfo2().arena == before + 16 + size


def test_a_top_too_small_for_fenceposts_and_a_chunk() -> None:
    model = begin("2.36", **OFF)
    machine = model.machine
    model.malloc(24)
    size = machine.chunksize(machine.load(machine.main + machine.o_top))
    model.malloc(size - 0x20 - 8)
    assert machine.chunksize(machine.load(machine.main + machine.o_top)) == 0x20
    model.sbrk(4096)
    assert model.malloc(100)
    assert model.mallinfo2().ordblks == 1  # top alone: nothing was freed


def test_a_break_that_does_not_go_down() -> None:
    model = begin("2.36")
    model.free(model.malloc(100000))
    before = model.mallinfo2().arena
    model.kernel.start_brk = model.kernel.brk
    assert model.malloc_trim(0) == 0
    assert model.mallinfo2().arena == before


@pytest.mark.parametrize(
    ("glibc", "grows"), [("2.23", True), ("2.26", True), ("2.31", False), ("2.36", False)]
)
def test_a_request_that_wraps_around(glibc: str, grows: bool) -> None:
    """At first malloc (-100) was no error yet, and the break moved by what was left of it.

    request2size's limit is -2 * MINSIZE; nb + top_pad + MINSIZE then wraps around to top_pad.
    """
    model = begin(glibc)
    model.malloc(24)
    model.mallopt("M_TOP_PAD", 1 << 20)
    before = model.kernel.brk
    assert model.malloc((1 << 64) - 100) == 0
    assert (model.kernel.brk - before > 1 << 19) == grows
    model.kernel.brk_blocked, before = True, len(list(model.memory.mappings()))
    assert model.malloc((1 << 64) - 100) == 0
    assert len(list(model.memory.mappings())) == before  # nor mmap: it would be less than asked for


def test_a_heap_is_never_longer_than_its_most() -> None:
    model = Allocator("2.36", tunables={"mmap_threshold": 1 << 30, "top_pad": 10 << 20})
    model.malloc(24)
    machine = model.machine
    thread = model.thread()
    heaps = [machine.heap_for_ptr(thread.malloc(60 << 20)) for _ in range(2)]
    assert heaps[0] != heaps[1]
    assert machine.load(machine._info(heaps[1], "size")) == 64 << 20


# --- others ---------------------------------------------------------------------------------------


def test_a_search_sorts_ten_thousand_chunks_at_most() -> None:
    model = begin("2.36", **OFF)
    blocks = apart(model, *[200] * 10050)
    for block in blocks:
        model.free(block)
    machine = model.machine
    unsorted = machine.main + machine.o_top
    assert model.malloc(300)
    left, at = 0, machine.load(unsorted + machine.BK)
    while at != unsorted:
        left, at = left + 1, machine.load(at + machine.BK)
    assert left == 50


@pytest.mark.parametrize("glibc", ["2.36", "2.42"])
def test_a_thread_that_ended_calls_malloc_once_more(glibc: str) -> None:
    """A destructor of thread-local data: no tcache is made any more."""
    model = begin(glibc)
    model.malloc(24)
    thread, machine = model.thread(), model.machine
    thread.malloc(24)
    thread.exit()
    before = machine.load(thread.tls + machine.places.tls.tcache)
    block = thread.malloc(24)
    thread.free(block)
    assert machine.load(thread.tls + machine.places.tls.tcache) == before == 0
    assert thread.mallinfo2().smblks == 1


def test_mallinfo_before_anything_was_allocated() -> None:
    for glibc in ("2.23", "2.26", "2.27", "2.43"):
        info = begin(glibc).mallinfo2()
        assert (info.arena, info.ordblks, info.fordblks) == (0, 1, 0)


def test_memalign_of_2_38_takes_an_aligned_chunk_out_of_its_bin() -> None:
    for size in (200, 3000):
        model = begin("2.38", **OFF)
        blocks = apart(model, *[size] * 12)
        aligned = [at for at in blocks if at % 64 == 0]
        assert aligned
        for block in blocks:
            model.free(block)
        model.malloc(5000)
        taken = {model.memalign(64, size) for _ in aligned}
        assert taken == set(aligned)  # exactly these; nothing is left over


@pytest.mark.parametrize("glibc", ["2.31", "2.38", "2.44"])
def test_memalign_refuses_what_cannot_be(glibc: str) -> None:
    model = begin(glibc)
    most = model.layout.max_address
    assert model.memalign(64, most) == 0
    assert model.memalign(64, most >> 1) == 0
    assert model.memalign(64, (most >> 1) - 40) == 0
    assert model.memalign((most >> 1) + 1, 100) == 0


@pytest.mark.parametrize(
    ("head", "name"), [(b"\x28\xb5\x2f\xfd", "zstandard"), (b"\x04\x22\x4d\x18", "lz4")], ids=repr
)
def test_a_module_that_is_not_installed(
    head: bytes, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").write_bytes(head + bytes(40))
    for module in (name, "lz4.frame"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BadTarget, match=f"{name}.* is missing") as caught:
        read_trace(str(tmp_path / "t"))
    assert f"pip install {name}" in str(caught.value.hint)

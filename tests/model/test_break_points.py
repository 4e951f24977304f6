"""Where releases part ways: each line of glibc's history that a model must know, on both sides."""

from __future__ import annotations

import pytest

from heapglass.errors import MallocAbort, UnsupportedGlibc
from heapglass.model import Allocator

LARGE = 0x500


def word(model: Allocator, address: int) -> int:
    return model.machine.load(address)


def put(model: Allocator, address: int, value: int) -> None:
    model.machine.store(address, value)


def offset(model: Allocator, block: int) -> int:
    """Where a block is, from the heap's base."""
    return block - model.kernel.start_brk


def end_of(model: Allocator, *frees: int) -> str:
    """Free blocks; how malloc ended the program, empty if it did not."""
    try:
        for block in frees:
            model.free(block)
    except MallocAbort as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("glibc", "there"), [("2.23", True), ("2.24", False)])
def test_2_24_malloc_par_loses_max_total_mem(glibc: str, there: bool) -> None:
    model = Allocator(glibc)
    model.malloc(24)
    assert ("max_total_mem" in model.machine.mp) == there
    assert word(model, model.machine.mp["sbrk_base"]) == model.kernel.start_brk


@pytest.mark.parametrize(("glibc", "ready"), [("2.24", False), ("2.25", True)])
def test_2_25_bins_are_initialised_with_malloc(glibc: str, ready: bool) -> None:
    model = Allocator(glibc)
    model.malloc_usable_size(0)
    model.memory.fill(model.places.variables["malloc_hook"], 0, 8)
    model._begin()
    assert bool(word(model, model.machine.main + model.machine.o_top)) == ready


@pytest.mark.parametrize(("glibc", "wrong"), [("2.24", 0), ("2.25", 1), ("2.26", 0)])
def test_2_25_m_arena_max_sets_arena_test(glibc: str, wrong: int) -> None:
    model = Allocator(glibc)
    assert model.mallopt("M_ARENA_MAX", 3) == 1
    assert word(model, model.machine.mp["arena_test"]) == (3 if wrong else 8)
    assert word(model, model.machine.mp["arena_max"]) == (0 if wrong else 3)


@pytest.mark.parametrize(
    ("glibc", "lp64", "ilp32"), [("2.25", 0x10, 0x8), ("2.26", 0x260, 0x8 + 0x158)]
)
def test_2_26_tcache_and_alignment_of_i386(glibc: str, lp64: int, ilp32: int) -> None:
    model = Allocator(glibc)
    assert offset(model, model.malloc(24)) == lp64
    model = Allocator(glibc, "i386")
    assert offset(model, model.malloc(12)) == ilp32
    assert model.layout.alignment == (8 if glibc == "2.25" else 16)


@pytest.mark.parametrize(("glibc", "given"), [("2.26", True), ("2.27", False)])
def test_2_27_requests_no_longer_wrap_around(glibc: str, given: bool) -> None:
    model = Allocator(glibc)
    block = model.malloc(24)
    model.free(block)
    assert (model.malloc((1 << 64) - 8) == block) == given


@pytest.mark.parametrize(("glibc", "flags", "field"), [("2.26", 0, None), ("2.27", 0, 1)])
def test_2_27_have_fastchunks_is_a_field(glibc: str, flags: int, field: int | None) -> None:
    model = Allocator(glibc, tunables={"tcache_count": 0})
    machine = model.machine
    assert machine.load_int(machine.main + 4) == 0
    block = model.malloc(24)
    assert machine.load_int(machine.main + 4) == (1 if glibc == "2.26" else 0)
    model.free(block)
    assert machine.load_int(machine.main + 4) == flags
    if field is not None:
        assert machine.load_int(machine.main + 8) == field


@pytest.mark.parametrize(
    ("glibc", "text"),
    [
        ("2.27", "malloc(): memory corruption"),
        ("2.28", "malloc(): corrupted unsorted chunks 3"),
        ("2.29", "malloc(): unsorted double linked list corrupted"),
    ],
)
def test_2_28_and_2_29_checks_of_the_unsorted_list(glibc: str, text: str) -> None:
    model = Allocator(glibc)
    block, behind = model.malloc(LARGE), model.malloc(LARGE)
    model.free(block)
    put(model, block + 8, behind)  # bk: a place whose fd does not lead back
    with pytest.raises(MallocAbort) as ended:
        model.malloc(0x900)
    assert str(ended.value) == text


@pytest.mark.parametrize(("glibc", "key"), [("2.28", False), ("2.29", True)])
def test_2_29_tcache_key_is_the_structs_address(glibc: str, key: bool) -> None:
    model = Allocator(glibc)
    block = model.malloc(24)
    model.free(block)
    tcache = model.kernel.start_brk + 0x10
    assert (word(model, block + 8) == tcache) == key
    assert end_of(model, block) == ("free(): double free detected in tcache 2" if key else "")


@pytest.mark.parametrize(
    ("glibc", "size", "first"), [("2.29", 0x251, 0x260), ("2.30", 0x291, 0x2A0)]
)
def test_2_30_counts_are_two_bytes(glibc: str, size: int, first: int) -> None:
    model = Allocator(glibc)
    assert offset(model, model.malloc(24)) == first
    assert word(model, model.kernel.start_brk + 8) == size


@pytest.mark.parametrize(("glibc", "given"), [("2.29", True), ("2.30", False)])
def test_2_30_pops_by_the_count(glibc: str, given: bool) -> None:
    model = Allocator(glibc)
    block = model.malloc(24)
    tcache = model.kernel.start_brk + 0x10
    entries = model.layout.tcache.offset("entries")
    put(model, tcache + entries, block)  # a head with a count of 0
    assert (model.malloc(24) == block) == given


@pytest.mark.parametrize(("glibc", "top"), [("2.30", 0), ("2.31", 1)])
def test_2_31_malloc_info_counts_top(glibc: str, top: int) -> None:
    model = Allocator(glibc)
    model.malloc(24)
    assert f'<total type="rest" count="{top}"' in model.malloc_info()


@pytest.mark.parametrize(("glibc", "fast"), [("2.30", True), ("2.31", False)])
def test_2_31_mxfast_0_means_none_on_i386(glibc: str, fast: bool) -> None:
    model = Allocator(glibc, "i386", {"tcache_count": 0})
    assert model.mallopt("M_MXFAST", 0) == 1
    block, _ = model.malloc(12), model.malloc(12)
    model.free(block)
    assert (model.mallinfo2().smblks == 1) == fast


@pytest.mark.parametrize(("glibc", "safe"), [("2.31", False), ("2.32", True)])
def test_2_32_links_are_protected(glibc: str, safe: bool) -> None:
    model = Allocator(glibc)
    first, second = model.malloc(24), model.malloc(24)
    model.free(first)
    model.free(second)
    assert word(model, second) == (second >> 12 ^ first if safe else first)
    assert word(model, first) == (first >> 12 if safe else 0)


@pytest.mark.parametrize(("glibc", "text"), [("2.32", ""), ("2.33", "too many chunks")])
def test_2_33_a_cycle_in_the_tcache_ends_the_scan(glibc: str, text: str) -> None:
    model = Allocator(glibc)
    first, second, other = model.malloc(24), model.malloc(24), model.malloc(24)
    model.free(first)
    model.free(second)
    put(model, first, first >> 12 ^ second)
    put(model, other + 8, model.kernel.start_brk + 0x10)
    if text:
        assert text in end_of(model, other)
    else:  # it would scan for ever: the model says so
        with pytest.raises(Exception, match="never ends"):
            model.free(other)


@pytest.mark.parametrize(("glibc", "random"), [("2.33", False), ("2.34", True)])
def test_2_34_the_key_is_a_random_word(glibc: str, random: bool) -> None:
    model = Allocator(glibc, tcache_key=0x1234567890ABCDEF)
    block = model.malloc(24)
    model.free(block)
    key = 0x1234567890ABCDEF if random else model.kernel.start_brk + 0x10
    assert word(model, block + 8) == key


@pytest.mark.parametrize(("glibc", "left"), [("2.33", True), ("2.34", False)])
def test_2_34_no_hook_before_the_first_calloc(glibc: str, left: bool) -> None:
    """Until then the first calloc went through a hook, and only the request was cleared."""
    model = Allocator(glibc, tunables={"tcache_count": 0})
    model.mallopt("M_MXFAST", 0)
    block = model.memalign(64, LARGE)
    model.memalign(64, 24)
    model.write(block, b"\xaa" * LARGE)
    model.free(block)
    again = model.calloc(1, LARGE + 0x20)  # the block, and what memalign left before it
    assert again == block - 0x30
    assert (model.read(again + LARGE + 0x20, 8) == b"\xaa" * 8) == left


@pytest.mark.parametrize(("glibc", "at"), [("2.34", 0x20), ("2.35", 0x30)])
def test_2_35_heap_info_has_a_page_size(glibc: str, at: int) -> None:
    model = Allocator(glibc)
    model.malloc(24)
    thread = model.thread()
    heap = thread.malloc(24) & -(64 << 20)
    assert word(model, heap) == heap + at
    assert (word(model, heap + 0x20) == 0x1000) == (glibc == "2.35")


@pytest.mark.parametrize(
    ("glibc", "second"),
    [("2.34", 0x100000), ("2.35", 0x40000), ("2.37", 0x40000), ("2.38", 0x100000)],
)
def test_2_35_to_2_37_the_fallback_has_its_arguments_swapped(glibc: str, second: int) -> None:
    model = Allocator(glibc)
    model.malloc(24)
    model.kernel.brk_blocked = True
    at = model.machine.main + model.machine.o_system
    grown, before = [], word(model, at)
    while len(grown) < 2:
        model.malloc(0x1F000)
        if word(model, at) != before:
            grown.append(word(model, at) - before)
            before = word(model, at)
    assert grown == [0x100000, second]


@pytest.mark.parametrize(
    ("glibc", "start"),
    [
        ("2.35", "malloc.c:2617: sysmalloc: Assertion `"),
        ("2.36", "Fatal glibc error: malloc assertion failure in sysmalloc: "),
        ("2.37", "Fatal glibc error: malloc.c:2594 (sysmalloc): assertion failed: "),
    ],
)
def test_2_36_and_2_37_forms_of_assertions(glibc: str, start: str) -> None:
    model = Allocator(glibc)
    model.malloc(24)
    put(model, word(model, model.machine.main + model.machine.o_top) + 8, 0x101)
    with pytest.raises(MallocAbort) as ended:
        model.malloc(0x2000)
    assert str(ended.value).startswith(start)


@pytest.mark.parametrize(("glibc", "kept"), [("2.36", 24), ("2.37", 0x4F8), ("2.38", 24)])
def test_2_37_realloc_keeps_what_it_has(glibc: str, kept: int) -> None:
    model = Allocator(glibc)
    block, _ = model.malloc(0x4F8), model.malloc(24)
    assert model.realloc(block, 24) == block
    assert model.malloc_usable_size(block) == kept


@pytest.mark.parametrize(("glibc", "given"), [("2.37", False), ("2.38", True)])
def test_2_38_memalign_looks_into_the_tcache(glibc: str, given: bool) -> None:
    model = Allocator(glibc)
    blocks = [model.malloc(40) for _ in range(8)]
    aligned = next(block for block in blocks if not block % 64)
    model.free(aligned)
    assert (model.memalign(64, 40) == aligned) == given


@pytest.mark.parametrize(("glibc", "given"), [("2.37", True), ("2.38", False)])
def test_2_38_aligned_alloc_wants_a_power_of_two(glibc: str, given: bool) -> None:
    assert bool(Allocator(glibc).aligned_alloc(24, 100)) == given


@pytest.mark.parametrize(("glibc", "given"), [("2.37", False), ("2.38", True), ("2.39", False)])
def test_2_38_memalign_looks_into_the_bins(glibc: str, given: bool) -> None:
    model = Allocator(glibc)
    block, _ = model.malloc(0xA00), model.malloc(24)
    model.free(block)
    model.malloc(0x1000)
    assert (block <= model.memalign(0x400, 0x600) < block + 0xA00) == given


@pytest.mark.parametrize(("glibc", "cached"), [("2.38", 1), ("2.39", 0)])
def test_2_39_what_memalign_cuts_off_is_not_cached(glibc: str, cached: int) -> None:
    model = Allocator(glibc)
    model.malloc(24)
    model.memalign(0x100, 0x100)
    tcache = model.kernel.start_brk + 0x10
    counts = model.read(tcache, 128)
    assert sum(counts) >= cached if cached else not sum(counts)


def test_2_40_is_2_39() -> None:
    old, new = Allocator("2.39"), Allocator("2.40")
    for model in (old, new):
        blocks = [model.malloc(size) for size in (24, 700, 5000, 24, 90000)]
        for block in blocks[::2]:
            model.free(block)
        model.memalign(256, 300)
    base = old.kernel.start_brk
    size = old.kernel.brk - base
    assert old.read(base, size) == new.read(base, size)


@pytest.mark.parametrize(("glibc", "given"), [("2.40", False), ("2.41", True)])
def test_2_41_calloc_takes_from_the_tcache(glibc: str, given: bool) -> None:
    model = Allocator(glibc)
    block = model.malloc(24)
    model.free(block)
    assert (model.calloc(1, 24) == block) == given


@pytest.mark.parametrize(("glibc", "kind"), [("2.40", "unsorted"), ("2.41", "size")])
def test_2_41_small_chunks_go_to_their_bins(glibc: str, kind: str) -> None:
    model = Allocator(glibc, tunables={"tcache_count": 0})
    block, _ = model.malloc(0x200), model.malloc(24)
    model.free(block)
    assert f'<{kind} from="529" to="529" total="529" count="1"/>' in model.malloc_info()


@pytest.mark.parametrize(("glibc", "count"), [("2.41", 1), ("2.42", 6)])
def test_2_42_slots_are_counted_down(glibc: str, count: int) -> None:
    model = Allocator(glibc)
    model.free(model.malloc(24))
    machine = model.machine
    tcache = machine.load(model.tls + model.places.tls.tcache)
    assert machine.load(tcache) & 0xFFFF == count


@pytest.mark.parametrize(("glibc", "early"), [("2.41", 0), ("2.42", 1)])
def test_2_42_malloc_is_ready_before_main(glibc: str, early: int) -> None:
    model = Allocator(glibc)
    assert word(model, model.places.variables["malloc_initialized"]) == early


@pytest.mark.parametrize(("glibc", "cached"), [("2.41", True), ("2.42", False)])
def test_2_42_realloc_frees_past_the_tcache(glibc: str, cached: bool) -> None:
    model = Allocator(glibc)
    block, _ = model.malloc(0x100), model.malloc(24)
    model.realloc(block, 0x60)
    key = word(model, model.places.variables["tcache_key"])
    assert (word(model, block + 0x70 + 8) == key) == cached


@pytest.mark.parametrize(("glibc", "largest"), [("2.41", 1040), ("2.42", 1024), ("2.43", 1040)])
def test_2_42_leaves_out_the_largest_small_size(glibc: str, largest: int) -> None:
    model = Allocator(glibc)
    model.free(model.malloc(24))
    block, _ = model.malloc(1032), model.malloc(24)
    model.free(block)
    assert (word(model, block + 8) == word(model, model.places.variables["tcache_key"])) == (
        largest == 1040
    )


@pytest.mark.parametrize(
    ("glibc", "size", "usable"), [("2.42", 0x31002, 0x30FF0), ("2.43", 0x30FF2, 0x30FE8)]
)
def test_2_43_a_header_behind_mmapped_chunks(glibc: str, size: int, usable: int) -> None:
    model = Allocator(glibc)
    block = model.malloc(200000)
    assert word(model, block - 8) == size
    assert model.malloc_usable_size(block) == usable


@pytest.mark.parametrize(("glibc", "fast"), [("2.42", 1), ("2.43", 0)])
def test_2_43_has_no_fastbins(glibc: str, fast: int) -> None:
    model = Allocator(glibc, tunables={"tcache_count": 0})
    block, _ = model.malloc(24), model.malloc(24)
    model.free(block)
    assert model.mallinfo2().smblks == fast
    assert ('type="fast"' in model.malloc_info()) == bool(fast)


@pytest.mark.parametrize(("glibc", "first", "kept"), [("2.42", 0x310, 7), ("2.43", 0x10, 16)])
def test_2_43_the_tcache_comes_late_and_keeps_16(glibc: str, first: int, kept: int) -> None:
    model = Allocator(glibc, tunables={"mxfast": 0} if glibc == "2.42" else {})
    blocks = [model.malloc(200) for _ in range(20)]
    model.malloc(24)
    assert offset(model, blocks[0]) == first
    for block in blocks:
        model.free(block)
    machine = model.machine
    tcache = machine.load(model.tls + model.places.tls.tcache)
    entry, count = machine.load(tcache + model.layout.tcache.offset("entries") + 11 * 8), 0
    while entry:
        entry, count = entry >> 12 ^ word(model, entry), count + 1
    assert count == kept


@pytest.mark.parametrize(("glibc", "given"), [("2.42", False), ("2.43", True)])
def test_2_43_has_free_sized(glibc: str, given: bool) -> None:
    model = Allocator(glibc)
    block = model.malloc(24)
    if given:
        model.free_sized(block, 24)
        assert model.malloc(24) == block
        model.free_aligned_sized(block, 16, 24)
    else:
        with pytest.raises(UnsupportedGlibc):
            model.free_sized(block, 24)
        with pytest.raises(UnsupportedGlibc):
            model.free_aligned_sized(block, 16, 24)


@pytest.mark.parametrize(("glibc", "stashed"), [("2.43", True), ("2.44", False)])
def test_2_44_exact_chunks_are_not_stashed(glibc: str, stashed: bool) -> None:
    model = Allocator(glibc)
    block, _ = model.malloc(LARGE), model.malloc(24)
    model.free(block)
    model.malloc(0x900)
    model.malloc(0x450)  # what is left of the block is the only unsorted chunk
    rest = model.malloc(0xA8)
    assert rest == block + 0x460
    unsorted = model.machine.main + model.machine.o_top
    assert word(model, rest + 8) == (0 if stashed else unsorted)


@pytest.mark.parametrize(("glibc", "most"), [("2.43", 9 + 8 * 2 - 9), ("2.44", 8)])
def test_2_44_fewer_arenas(glibc: str, most: int) -> None:
    model = Allocator(glibc, ncpu=2)
    for _ in range(24):
        model.thread().malloc(24)
    assert len(list(model.machine.arenas())) == most

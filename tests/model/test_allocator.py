"""The allocator's entry points, as a caller meets them; bytes are compared elsewhere."""

from __future__ import annotations

import random

import pytest

from heapglass.errors import BadRequest, MallocAbort, MemoryFault, UnsupportedGlibc
from heapglass.glibc.releases import name, releases
from heapglass.model import Allocator
from heapglass.model.allocator import EINVAL, ENOMEM

ALL = [name(version) for version in releases()]
ABIS = ("x86_64", "i386", "arm", "aarch64", "s390x", "ppc64", "x32")


def use(model: Allocator, dice: random.Random, calls: int) -> None:
    """Use all of malloc as a program would, with threads."""
    threads = [model, model.thread(), model.thread()]
    live: list[int] = []
    for _ in range(calls):
        thread, kind = dice.choice(threads), dice.random()
        size = dice.choice([dice.randrange(200), dice.randrange(70000), dice.randrange(300000)])
        if live and kind < 0.4:
            thread.free(live.pop(dice.randrange(len(live))))
        elif live and kind < 0.5:
            index = dice.randrange(len(live))
            live[index] = thread.realloc(live[index], size + 1)
        else:
            block = (
                thread.memalign(1 << dice.randrange(3, 13), size)
                if kind < 0.55
                else thread.calloc(2, size // 2)
                if kind < 0.65
                else thread.malloc(size)
            )
            assert block
            assert block % model.layout.alignment == 0
            assert model.malloc_usable_size(block) >= size // 2 * 2
            live.append(block)
    assert all(live)
    threads[2].exit()
    for block in live:
        threads[1].free(block)
    model.malloc_trim()


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize("glibc", ALL)
def test_every_release_on_every_kind_of_port(glibc: str, abi: str) -> None:
    model = Allocator(glibc, abi, {"arena_max": 2} if glibc > "2.24" else {})
    use(model, random.Random(5), 150)
    info = model.mallinfo2()
    assert info.uordblks + info.fordblks == info.arena
    assert info.hblks == 0
    xml = model.malloc_info()
    assert xml.startswith('<malloc version="1">\n<heap nr="0">')
    assert xml.endswith("</malloc>\n")


def test_the_same_words_in_the_other_byte_order() -> None:
    big, little = Allocator("2.36", "ppc64"), Allocator("2.36", "ppc64le")
    for model in (big, little):
        use(model, random.Random(2), 100)
    base = big.kernel.start_brk + 0x290  # behind the tcache, whose counts are half-words
    count = (big.kernel.brk - base) // 8
    assert [big.machine.load(base + 8 * i) for i in range(count)] == [
        little.machine.load(base + 8 * i) for i in range(count)
    ]


def test_what_is_refused() -> None:
    model = Allocator("2.36")
    assert model.malloc(1 << 63) == 0
    assert model.calloc(1 << 33, 1 << 33) == 0
    assert model.realloc(model.malloc(1), 1 << 63) == 0
    assert model.memalign(1 << 63 | 1, 1) == 0
    assert model.posix_memalign(24, 1) == (EINVAL, 0)
    assert model.posix_memalign(0, 1) == (EINVAL, 0)
    assert model.posix_memalign(64, 1 << 63) == (ENOMEM, 0)
    assert model.pvalloc((1 << 64) - 1) == 0
    assert model.malloc_usable_size(0) == 0
    assert Allocator("2.29").memalign(64, (1 << 64) - 40) == 0
    assert Allocator("2.43").memalign(64, 1 << 63) == 0
    assert Allocator("2.44").memalign(1 << 63, 1) == 0
    assert Allocator("2.42").malloc(1 << 63) == Allocator("2.42").calloc(1, 1 << 63) == 0
    assert Allocator("2.42").memalign(64, 1 << 63) == 0
    assert Allocator("2.41").calloc(1, (1 << 63) - 1) == 0


def test_requests_that_make_no_sense() -> None:
    with pytest.raises(UnsupportedGlibc):
        Allocator("2.22")
    with pytest.raises(UnsupportedGlibc):
        Allocator("2.36", "vax")
    with pytest.raises(BadRequest, match="page size 5000"):
        Allocator("2.36", page_size=5000)
    with pytest.raises(BadRequest, match="no tunable"):
        Allocator("2.36", tunables={"glibc.malloc.nothing": 1})
    with pytest.raises(BadRequest, match="mallopt has no"):
        Allocator("2.36").mallopt("M_NOTHING", 1)
    model = Allocator("2.36")
    for _ in range(511):
        model.thread()
    with pytest.raises(BadRequest, match="too many threads"):
        model.thread()


def test_addresses_are_parameters() -> None:
    model = Allocator("2.36", heap_base=0x10000000, libc_base=0x7F0000000000, page_size=65536)
    assert model.malloc(24) == 0x100002A0
    assert model.kernel.brk == 0x10030000
    assert model.malloc(1 << 20) & 0xFFFF == 0x10
    assert model.places.main_arena == 0x7F00001E0C80
    assert model.sbrk(16) == 0x10030000
    assert model.sbrk(-(1 << 40)) == 0
    model.write(0x100002A0, b"abc")
    assert model.read(0x100002A0, 3) == b"abc"
    with pytest.raises(MemoryFault):
        model.write(0x1234, b"abc")
    assert Allocator("2.30", "arm", alignment=16).layout.alignment == 16


@pytest.mark.parametrize("glibc", ["2.26", "2.36", "2.42", "2.43"])
@pytest.mark.parametrize("tunables", [{"tcache_count": 0}, {"tcache_max": 0}, {"perturb": 7}])
def test_tunables_that_change_the_tcache(glibc: str, tunables: dict[str, int]) -> None:
    use(Allocator(glibc, tunables=tunables), random.Random(9), 120)


@pytest.mark.parametrize("glibc", ALL[3:])
def test_large_chunks_in_the_tcache_since_2_42(glibc: str) -> None:
    model = Allocator(glibc, tunables={"glibc.malloc.tcache_max": 100000})
    model.free(model.malloc(24))
    first, _, second, _ = (model.malloc(size) for size in (9000, 24, 8500, 24))
    model.free(first)
    model.free(second)
    larger = model.has_large = glibc in ("2.42", "2.43", "2.44")
    assert (model.malloc(8500) == second) or not larger
    assert (model.calloc(1, 9000) == first) or not larger
    aligned = model.memalign(64, 5000)
    model.free(aligned)
    assert (model.memalign(64, 5000) == aligned) or not larger
    if larger:
        model.free(aligned)
        assert (model.malloc(4990) == aligned) == (glibc != "2.44" or True)


def test_limits_of_tunables() -> None:
    def params(glibc: str, **tunables: int) -> dict[str, int]:
        model = Allocator(glibc, tunables=tunables)
        model.malloc(1)
        return {key: model.machine.load(at) for key, at in model.machine.mp.items()}

    assert params("2.36", tcache_count=70000)["tcache_count"] == 7
    assert params("2.28", tcache_count=70000)["tcache_count"] == 70000
    assert params("2.36", tcache_max=2000)["tcache_max_bytes"] == 1032
    assert params("2.36", tcache_max=100)["tcache_bins"] == 6
    assert params("2.42", tcache_max=100)["tcache_max_bytes"] == 112
    assert params("2.42", tcache_max=5 << 20)["tcache_max_bytes"] == 1032
    assert params("2.43", tcache_max=5000)["tcache_max_bytes"] == 5009
    assert params("2.43", tcache_max=1 << 63)["tcache_max_bytes"] == 1041
    assert params("2.34", mmap_threshold=40 << 20)["mmap_threshold"] == 0x20000
    assert params("2.35", mmap_threshold=40 << 20)["mmap_threshold"] == 40 << 20
    assert params("2.36", arena_max=0)["arena_max"] == 0
    assert params("2.36", mmap_max=3, tcache_unsorted_limit=5)["tcache_unsorted_limit"] == 5
    assert params("2.36", hugetlb=2)["hp_pagesize"] == 2 << 20
    assert params("2.39", hugetlb=2)["mmap_threshold"] == 2 << 20
    assert params("2.39", hugetlb=1)["thp_pagesize"] == 2 << 20
    assert params("2.39", hugetlb=0)["thp_pagesize"] == 0


def test_mallopt() -> None:
    model = Allocator("2.36")
    assert model.mallopt("M_MXFAST", 161) == 0
    assert model.mallopt("M_MXFAST", 160) == 1
    assert model.machine.max_fast() == 160
    for parameter in ("M_TRIM_THRESHOLD", "M_TOP_PAD", "M_MMAP_THRESHOLD", "M_MMAP_MAX"):
        assert model.mallopt(parameter, 5000) == 1
    assert model.mallopt("M_PERTURB", 3) == model.mallopt("M_CHECK_ACTION", 1) == 1
    assert model.mallopt("M_ARENA_TEST", 5) == model.mallopt("M_ARENA_MAX", 0) == 1
    assert model.machine.load(model.machine.mp["arena_test"]) == 5
    assert Allocator("2.43").mallopt("M_MXFAST", 4000) == 1


@pytest.mark.parametrize("glibc", ["2.34", "2.36", "2.39", "2.42", "2.43"])
@pytest.mark.parametrize("hugetlb", [1, 2])
def test_huge_pages(glibc: str, hugetlb: int) -> None:
    model = Allocator(glibc, tunables={"hugetlb": hugetlb})
    block = model.malloc(100000)
    assert block
    model.free(model.malloc(3 << 20))
    big = model.malloc(5 << 20)
    assert model.realloc(big, 9 << 20)
    thread = model.thread()
    blocks = [thread.malloc(90000) for _ in range(40)]
    for one in blocks:
        thread.free(one)
    model.free(block)
    model.malloc_trim()


@pytest.mark.parametrize("glibc", ALL)
def test_no_memory_left(glibc: str) -> None:
    model = Allocator(glibc)
    blocks = [model.malloc(1000)]
    model.kernel.brk_blocked, model.kernel.failing_mmaps = True, -1
    while True:
        block = model.malloc(60000)
        if not block:
            break
        blocks.append(block)
    assert model.calloc(1, 60000) == 0
    assert model.memalign(64, 60000) == 0
    assert model.realloc(blocks[0], 60000) == 0
    thread = model.thread()
    assert thread.malloc(60000) == 0
    assert thread.calloc(1, 60000) == 0
    assert thread.memalign(64, 60000) == 0
    assert thread.realloc(blocks[0], 60000) == 0
    model.kernel.failing_mmaps = 0
    assert thread.malloc(60000)
    assert thread.realloc(blocks[0], 60000)


@pytest.mark.parametrize("glibc", ALL)
def test_heaps_of_threads_come_and_go(glibc: str) -> None:
    model = Allocator(glibc, "i386")
    model.malloc(24)
    thread = model.thread()
    blocks = [thread.malloc(60000) for _ in range(60)]
    assert len({block >> 20 for block in blocks}) > 2
    for block in reversed(blocks):
        thread.free(block)
    again = thread.malloc(60000)
    assert again >> 20 == blocks[0] >> 20


def test_an_address_space_with_little_room() -> None:
    model = Allocator("2.36", "i386", mmap_top=0x57800000)
    model.malloc(24)
    for _ in range(12):
        model.thread().malloc(24)
    assert len(list(model.machine.arenas())) in (1, 2, 3, 8)


def test_shrinking_heaps_for_good() -> None:
    model = Allocator("2.36")
    model.malloc(24)
    model.machine.may_shrink = True
    thread = model.thread()
    thread.malloc(24)
    blocks = [thread.malloc(100000) for _ in range(20)]
    for block in blocks:
        thread.free(block)
    info = model.machine.heap_for_ptr(blocks[0])
    assert model.machine.load(info + 0x18) == model.machine.load(info + 0x10)


def test_a_list_without_an_end_is_said() -> None:
    model = Allocator("2.31", tunables={"tcache_count": 0})
    first = model.malloc(24)
    second, _ = model.malloc(24), model.malloc(24)
    model.free(first)
    model.free(second)
    model.machine.store(first, second - 16)
    with pytest.raises(MemoryFault, match="never ends"):
        model.mallinfo2()
    machine = model.machine
    machine.store(machine.main + machine.o_next, machine.main + 8)
    with pytest.raises(MemoryFault):
        list(machine.arenas())


def test_a_thread_that_ends_wrongly() -> None:
    model = Allocator("2.36")
    model.malloc(24)
    thread = model.thread()
    thread.malloc(24)
    machine = model.machine
    machine.tls = thread.tls
    arena = machine.load(machine.thread_arena_at())
    machine.store(arena + machine.o_attached, 0)
    with pytest.raises(MallocAbort, match="a->attached_threads > 0"):
        thread.exit()
    other = model.thread()
    other.exit()  # it never had an arena

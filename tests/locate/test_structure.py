"""Without symbols: what the model has made is found by structure, on every release and ABI."""

from __future__ import annotations

import pytest

from heapglass.errors import NotFound
from heapglass.glibc import features
from heapglass.glibc.releases import name, releases
from heapglass.heap.heap import Heap
from heapglass.locate import Overrides, locate
from heapglass.memory import ByteMemory
from heapglass.source import Symbol

from .modelled import LIBC, ModelSource, Played, copied, play

RELEASES = [name(version) for version in releases()]
ABIS = ("x86_64", "i386", "aarch64", "arm", "riscv64", "ppc64le", "s390x", "x32")
STATES = ("used", "tcache", "fast", "free")


def states(heap: Heap) -> dict[str | None, int]:
    """Return how many chunks are in each state."""
    counted: dict[str | None, int] = {}
    for chunk in heap.every_chunk():
        counted[chunk.state] = counted.get(chunk.state, 0) + 1
    return counted


def known(played: Played) -> Heap:
    """Read the process as its own symbols would have it."""
    where = played.allocator.places
    said = Overrides(
        glibc=played.allocator.layout.release,
        main_arena=where.main_arena,
        mp=where.mp,
        tcaches={t.number: tcache_of(played, t) for t in played.threads if tcache_of(played, t)},
    )
    return Heap(locate(ModelSource(played), said))


def tcache_of(played: Played, thread: object) -> int:
    """Return what stands in the thread's variable; 0 without a tcache."""
    machine, offset = played.allocator.machine, played.allocator.places.tls.tcache
    if not machine.has("tcache"):
        return 0
    value = machine.load(thread.tls + offset)  # type: ignore[attr-defined]
    return 0 if value == played.allocator.places.dummy else value


def check(played: Played, heap: Heap) -> None:
    """Hold a target against the model's own variables, and the chunks against a reading of it."""
    target, where = heap.target, played.allocator.places
    assert target.main_arena is not None
    assert target.mp is not None
    assert (target.main_arena.address, target.main_arena.how) == (where.main_arena, "scan")
    assert (target.mp.address, target.mp.how) == (where.mp, "scan")
    assert [t.tcache or 0 for t in target.threads] == [tcache_of(played, t) for t in played.threads]
    assert all(thread.arena_known and thread.arena for thread in target.threads)
    assert len({thread.arena for thread in target.threads}) == len(played.threads)
    found = states(heap)
    assert found == states(known(played))
    assert found["used"] > 15
    assert None not in found
    assert heap.problems == []


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize("release", RELEASES)
def test_a_release_that_is_named_needs_no_symbols(release: str, abi: str):
    played = play(release, abi)

    heap = Heap(locate(ModelSource(played, banner=release)))

    check(played, heap)
    assert heap.target.release == release
    assert heap.target.warnings == []
    assert heap.layout == played.allocator.layout


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize("release", RELEASES)
def test_a_release_that_nobody_names_is_among_the_possible_ones(release: str, abi: str):
    played = play(release, abi)

    heap = Heap(locate(ModelSource(played)))

    check(played, heap)
    assert played.allocator.layout.version in heap.target.releases
    for group in ("malloc_state", "heap_info", "tcache_perthread_struct"):
        assert heap.layout.structs.get(group) == played.allocator.layout.structs.get(group)


def test_the_possible_releases_are_those_that_memory_cannot_tell_apart():
    found = {}
    for release in RELEASES:
        possible = locate(ModelSource(play(release))).releases
        found.setdefault(tuple(map(name, possible)), []).append(release)

    for possible, ones in found.items():
        assert list(possible) == ones
    assert max(len(possible) for possible in found) <= 7


@pytest.mark.parametrize(
    "row", features.BACKPORTS, ids=lambda row: f"{name(row.version)}: {row.source}"
)
@pytest.mark.parametrize("abi", ["x86_64", "i386", "s390x"])
def test_what_a_distribution_took_into_a_release_is_told_by_memory(
    row: features.Backport, abi: str
):
    played = play(name(row.version), abi, backports=row.as_of)

    heap = Heap(locate(ModelSource(played, banner=name(row.version))))

    check(played, heap)
    assert heap.target.release == name(row.version)
    assert heap.target.warnings
    assert heap.layout.structs == played.allocator.layout.structs
    for feature in ("safe_linking", "tcache_key_struct"):
        assert heap.layout.has(feature) == played.allocator.layout.has(feature)


KEY = (("tcache_entry", (2, 29)), ("tcache_key", (2, 29)))
MIXTURES = [
    ("2.31", (("safe_linking", (2, 32)),)),
    ("2.27", (("safe_linking", (2, 32)), *KEY)),
    ("2.33", (("tcache_key", (2, 34)),)),
    ("2.26", (("malloc_state", (2, 27)), *KEY)),
    ("2.36", (("safe_linking", (2, 31)),)),
]


@pytest.mark.parametrize(("release", "as_of"), MIXTURES)
def test_a_mixture_that_nobody_has_seen_yet_is_told_too(release: str, as_of: tuple):
    played = play(release, backports=as_of)

    heap = Heap(locate(ModelSource(played, banner=release)))

    assert heap.target.warnings
    assert None not in states(heap)
    assert heap.layout.structs == played.allocator.layout.structs
    for feature in ("safe_linking", "tcache_key_struct", "tcache_key_random"):
        assert heap.layout.has(feature) == played.allocator.layout.has(feature), feature
    assert heap.problems == []


@pytest.mark.parametrize("abi", ["aarch64", "ppc64le"])
@pytest.mark.parametrize("page", [0x1000, 0x10000])
def test_pages_of_64_kib(abi: str, page: int):
    """Mmapped blocks, tops and heaps end on larger pages there."""
    played = play("2.36", abi, page_size=page)
    blocks = [played.allocator.malloc(200000 + 70000 * n) for n in range(3)]
    source = ModelSource(played, banner="2.36")
    source.auxv = lambda: {6: page}

    heap = Heap(locate(source))

    assert heap.page_size == page
    assert [chunk.address + 16 for chunk in heap.mmapped] == sorted(blocks)
    assert all(chunk.length % page == 0 for chunk in heap.mmapped)
    check(played, heap)


@pytest.mark.parametrize("said", [0, 1, 4097, 1 << 63, 0x8000])
def test_a_page_size_that_linux_does_not_have_is_not_believed(said: int):
    source = ModelSource(play("2.36"), banner="2.36")
    source.auxv = lambda: {6: said}

    assert locate(source).page_size == 0x1000


# --- several libraries, none, another -------------------------------------------------------------


def test_two_libraries_with_a_heap_each_are_both_named():
    one = play("2.36")
    two = play("2.31", libc_base=0x7F1000000000, heap_base=0x700000000000)
    memory = copied((one, LIBC), (two, "/opt/lib/libc.so.6"))
    source = ModelSource(one, "2.36", (LIBC, "/opt/lib/libc.so.6"), memory)

    target = locate(source)
    (warning,) = [text for text in target.warnings if "another C library" in text]

    assert target.main_arena is not None
    assert target.main_arena.address == one.allocator.places.main_arena
    other = two.allocator.places.main_arena
    assert f"{other:#x} of /opt/lib/libc.so.6" in warning
    assert "--main-arena" in warning
    assert target.main_arena.runners_up == (f"{other:#x} of /opt/lib/libc.so.6",)
    chosen = locate(source, Overrides(main_arena=other, glibc="2.31"))
    assert chosen.main_arena is not None
    assert (chosen.main_arena.address, chosen.main_arena.how) == (other, "user")


def test_a_library_that_was_loaded_and_never_used_is_no_second_heap():
    one = play("2.36")
    two = Played(play("2.31", libc_base=0x7F1000000000).allocator, [])
    fresh = play("2.36", threads=1, libc_base=0x7F1000000000, heap_base=0x700000000000)
    del two
    memory = copied((one, LIBC), (fresh, "/opt/lib/libc.so.6"))
    state, where = fresh.allocator.layout.state, fresh.allocator.places.main_arena
    memory.write(where, bytes(state.size))
    for field, value in (("next", where), ("attached_threads", 1)):
        memory.write(where + state.offset(field), value.to_bytes(8, "little"))

    target = locate(ModelSource(one, "2.36", (LIBC, "/opt/lib/libc.so.6"), memory))

    assert target.main_arena is not None
    assert target.main_arena.address == one.allocator.places.main_arena
    assert not any("another C library" in text for text in target.warnings)


def test_where_no_file_is_known_all_memory_is_searched():
    played = play("2.36")

    target = locate(ModelSource(played, modules=()))

    assert target.main_arena is not None
    assert target.main_arena.address == played.allocator.places.main_arena
    assert target.main_arena.where == ""


@pytest.mark.parametrize("file", ["/bin/program", "/opt/odd/renamed.bin"])
def test_malloc_in_the_program_or_in_a_library_of_any_name_is_found(file: str):
    played = play("2.36")
    memory = copied((played, file))

    target = locate(ModelSource(played, None, ("/bin/program", file), memory))

    assert target.main_arena is not None
    assert target.main_arena.where == file


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (("/bin/program", "/lib/ld-musl-x86_64.so.1"), r"it runs on musl \(/lib/ld-musl-x86_64"),
        (("/bin/program",), "no loaded file has glibc's banner"),
        ((), "no loaded file has glibc's banner"),
    ],
)
def test_where_there_is_no_glibc_one_line_says_so(modules: tuple[str, ...], said: str):
    played = play("2.36")
    memory = copied((played, LIBC))
    where = played.allocator.places.main_arena
    memory.write(where, bytes(played.allocator.layout.state.size))

    with pytest.raises(NotFound, match=f"^no glibc heap here: {said}") as caught:
        locate(ModelSource(played, None, modules, memory))
    assert "\n" not in str(caught.value)
    assert "--main-arena" in caught.value.hint


@pytest.mark.parametrize("symbols", [True, False], ids=["symbols", "none"])
@pytest.mark.parametrize("damage", [0x4141414141414141, 0, 0x555555559010])
@pytest.mark.parametrize("release", ["2.26", "2.31", "2.44"])
def test_an_arena_whose_next_was_overwritten_is_still_the_arena(
    release: str, damage: int, symbols: bool
):
    played = play(release, threads=1)
    memory = copied((played, LIBC))
    where, state = played.allocator.places.main_arena, played.allocator.layout.state
    memory.write(where + state.offset("next"), damage.to_bytes(8, "little"))
    source = ModelSource(played, release, memory=memory)
    if symbols:
        named = Symbol("main_arena", where, 8, "symbol", LIBC)
        source.symbols = lambda name: [named] if name == "main_arena" else []

    heap = Heap(locate(source))

    assert heap.target.main_arena is not None
    assert heap.target.main_arena.address == where
    assert heap.target.main_arena.how == ("symbol" if symbols else "scan")
    assert len(list(heap.every_chunk())) > 15
    assert any(f"arena {where:#x}: next" in text for text in heap.problems)


# --- tcaches without a TLS ------------------------------------------------------------------------


@pytest.mark.parametrize("release", ["2.26", "2.29", "2.31", "2.36", "2.42", "2.44"])
def test_the_one_tcache_of_the_one_thread_is_found_in_the_heap(release: str):
    played = play(release, "s390x", threads=1)  # no thread pointer by structure there

    target = locate(ModelSource(played, release, tp=False))

    (thread,) = target.threads
    assert (thread.tcache, thread.tcache_how) == (tcache_of(played, played.allocator), "scan")
    assert any("is taken as thread 1's" in text for text in target.warnings)


def test_two_tcaches_are_named_and_given_to_nobody():
    played = play("2.36", "s390x", threads=2)
    caches = [tcache_of(played, thread) for thread in played.threads]

    target = locate(ModelSource(played, "2.36", tp=False))

    assert [thread.tcache_state for thread in target.threads] == ["unknown", "unknown"]
    (said,) = [text for text in target.missing if "look like one" in text]
    assert all(f"{cache:#x}" in said for cache in caches)
    assert "--tcache THREAD=ADDR" in said


def test_a_block_of_that_size_is_no_tcache():
    """The first chunk of a heap is no tcache because it is first, nor because of its size."""
    played = play("2.36", "s390x", threads=1, tunables={"tcache_count": 0})
    block = played.allocator.malloc(0x280)
    memory = copied((played, LIBC))
    memory.write(block, bytes(range(256)))

    target = locate(ModelSource(played, "2.36", memory=memory, tp=False))

    assert [thread.tcache for thread in target.threads] == [None]


def test_since_2_42_no_struct_in_all_the_heap_means_no_tcache():
    played = play("2.42", "s390x", threads=1, tunables={"tcache_count": 0})

    target = locate(ModelSource(played, "2.42", tp=False))

    (thread,) = target.threads
    assert (thread.tcache, thread.tcache_state) == (None, "none")
    assert not any("tcache" in text for text in target.missing)


def test_nothing_is_found_in_memory_that_is_not_there():
    source = ModelSource(play("2.36"), memory=ByteMemory({0x1000: bytes(0x1000)}), modules=())

    with pytest.raises(NotFound, match="no glibc heap here"):
        locate(source)


def test_where_mappings_are_not_known_nobody_is_said_to_have_no_tcache():
    played = play("2.42", threads=1)
    memory = played.allocator.memory
    pieces = {r.start: bytes(memory.view(r.start, r.end)) for r in memory.regions()}
    blind = ModelSource(played, "2.42", memory=ByteMemory(pieces, []), tp=False)
    where = played.allocator.places

    target = locate(blind, Overrides(main_arena=where.main_arena, mp=where.mp))

    assert [thread.tcache_state for thread in target.threads] == ["unknown"]
    assert any("tcache" in text for text in target.missing)


def test_where_mappings_are_not_known_a_symbol_tells_the_dummy_tcache(monkeypatch):
    played = play("2.44", threads=1)
    played = played._replace(threads=[*played.threads, played.allocator.thread()])
    memory = played.allocator.memory
    pieces = {r.start: bytes(memory.view(r.start, r.end)) for r in memory.regions()}
    blind = ModelSource(played, "2.44", memory=ByteMemory(pieces, []))
    where = played.allocator.places
    dummy = Symbol("__tcache_dummy", where.dummy, 0, "dwarf", "")
    monkeypatch.setattr(blind, "symbols", lambda name: [dummy] if name == dummy.name else [])

    target = locate(blind, Overrides(main_arena=where.main_arena, mp=where.mp))

    assert [thread.tcache_state for thread in target.threads] == ["active", "none"]
    assert target.missing == []

"""Cores made by hand: what is there is read exactly, what is not is missing, never zero."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heapglass.errors import BadTarget, MemoryFault
from heapglass.memory import Region
from heapglass.targets import CoreSource, OpenOptions

from .build import MACHINES, PAGE, SHAPES, Core, Load, open_bytes

HEAP, STACK = 0x10000, 0x40000
DATA = bytes(range(256)) * 16


def small(abi: str) -> Core:
    """Two neighbours, a hole, and a segment of which the second page was left out."""
    core = Core(abi)
    core.loads = [
        Load(HEAP, DATA),
        Load(HEAP + PAGE, DATA[::-1], perms="r--"),
        Load(STACK, DATA, size=2 * PAGE),
    ]
    core.notes = core.status(7, bytes(300)) + core.psinfo(6)
    return core


@pytest.mark.parametrize("abi", SHAPES)
def test_reads_both_word_sizes_and_byte_orders(abi: str, tmp_path: Path) -> None:
    with open_bytes(small(abi).build(), tmp_path) as source:
        assert source.machine == (abi, MACHINES[abi][1], MACHINES[abi][2])
        assert source.kind == "core"
        assert source.warnings == []
        assert source.pid == 6
        assert source.memory.read(HEAP + 3, 5) == DATA[3:8]
        assert source.memory.read(HEAP + PAGE - 2, 4) == DATA[-2:] + DATA[::-1][:2]
        assert source.memory.read(STACK, 0) == b""
        assert [t.id for t in source.threads()] == [7]
        assert source.auxv() == {}
        assert list(source.memory.regions()) == [
            Region(HEAP, HEAP + PAGE, "rw-"),
            Region(HEAP + PAGE, HEAP + 2 * PAGE, "r--"),
            Region(STACK, STACK + 2 * PAGE, "rw-"),
        ]


@pytest.mark.parametrize("abi", SHAPES)
def test_what_was_left_out_is_missing_and_not_zero(abi: str, tmp_path: Path) -> None:
    with open_bytes(small(abi).build(), tmp_path) as source:
        for address, size, first in (
            (STACK + PAGE, 1, STACK + PAGE),
            (STACK + PAGE - 1, 2, STACK + PAGE),
            (STACK - 1, 2, STACK - 1),
            (HEAP + 2 * PAGE - 8, 9, HEAP + 2 * PAGE),
            (0, 1, 0),
            (1 << 64, 8, 1 << 64),
            (HEAP, -1, HEAP),
        ):
            with pytest.raises(MemoryFault) as caught:
                source.memory.read(address, size)
            assert caught.value.address == first
            with pytest.raises(MemoryFault):
                source.memory.view(address, address + size)
        with pytest.raises(MemoryFault, match="the core left it out"):
            source.memory.read(STACK + PAGE, 8)


def test_a_huge_size_is_a_fault_and_allocates_nothing(tmp_path: Path) -> None:
    with open_bytes(small("x86_64").build(), tmp_path) as source:
        with pytest.raises(MemoryFault):
            source.memory.read(HEAP, 1 << 60)
        with pytest.raises(MemoryFault):
            source.memory.view(HEAP, HEAP + (1 << 60))


def test_a_view_is_no_copy_even_across_segments_that_are_neighbours(tmp_path: Path) -> None:
    with open_bytes(small("x86_64").build(), tmp_path) as source:
        view = source.memory.view(HEAP + 8, HEAP + 2 * PAGE)
        assert view == (DATA + DATA[::-1])[8:]
        assert view.readonly
        assert type(view.obj).__name__ == "mmap"


def test_a_view_across_pieces_of_the_file_is_one_copy(tmp_path: Path) -> None:
    core = Core(loads=[Load(HEAP + PAGE, b"b" * PAGE), Load(HEAP, b"a" * PAGE)])
    with open_bytes(core.build(), tmp_path) as source:
        view = source.memory.view(HEAP + PAGE - 3, HEAP + PAGE + 2)
        assert bytes(view) == b"aaabb"
        assert source.memory.read(HEAP + PAGE - 3, 5) == b"aaabb"


def test_what_was_opened_stays_readable_through_its_views(tmp_path: Path) -> None:
    source = open_bytes(small("x86_64").build(), tmp_path)
    view = source.memory.view(HEAP, HEAP + PAGE)
    source.close()
    assert view == DATA


@pytest.mark.parametrize("abi", SHAPES)
def test_the_number_of_segments_may_be_in_section_zero(abi: str, tmp_path: Path) -> None:
    core = small(abi)
    core.count_in_section = True
    with open_bytes(core.build(), tmp_path) as source:
        assert source.memory.read(STACK, 4) == DATA[:4]
        assert len(source.memory.regions()) == 3


def test_a_hundred_thousand_segments(tmp_path: Path) -> None:
    core = Core(loads=[Load(i * 2 * PAGE, b"%08d" % i) for i in range(1, 100_001)])
    core.count_in_section = True
    with open_bytes(core.build(), tmp_path) as source:
        assert source.memory.read(77_777 * 2 * PAGE, 8) == b"00077777"
        assert len(source.memory.regions()) == 100_000


# --- damaged and cut cores ---------------------------------------------------------------


@pytest.mark.parametrize("abi", SHAPES)
def test_a_core_cut_anywhere_gives_what_is_left_or_one_line(abi: str, tmp_path: Path) -> None:
    core = small(abi)
    whole = core.build()
    memory = core.offsets[HEAP]
    for length in [*range(1, memory, 7), *range(memory - 8, memory + 2), len(whole) - 1]:
        source = opened_or_said(whole[:length], tmp_path)
        if source is None:
            assert length < memory
            continue
        with source:
            assert "the core is cut off" in "".join(source.warnings)
            have = max(0, min(PAGE, length - memory))
            assert bytes(source.memory.read(HEAP, have) if have else b"") == DATA[:have]
            with pytest.raises(MemoryFault):
                source.memory.read(STACK, PAGE)
            if have < PAGE:
                with pytest.raises(MemoryFault, match="cut off before it") as caught:
                    source.memory.read(HEAP, PAGE)
                assert caught.value.address == HEAP + have


def opened_or_said(data: bytes, folder: Path) -> CoreSource | None:
    """Open a core; None if it is refused in one line. Anything else fails the test."""
    try:
        return open_bytes(data, folder)
    except BadTarget as error:
        return None if "\n" not in str(error) else pytest.fail(str(error))


WHOLE = {abi: small(abi).build() for abi in SHAPES}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    abi=st.sampled_from(SHAPES),
    changes=st.lists(st.tuples(st.integers(4, 1200), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.integers(0, 4000),
)
def test_a_damaged_core_is_read_or_refused_in_one_line(
    abi: str, changes: list[tuple[int, int]], cut: int, tmp_path: Path
) -> None:
    data = bytearray(WHOLE[abi])
    for at, value in changes:
        data[at] = value
    source = opened_or_said(bytes(data[: len(data) - cut]), tmp_path)
    if source is None:
        return
    with source:
        regions = source.memory.regions()
        assert all(a.end <= b.start for a, b in zip(regions, regions[1:]))
        for region in list(regions)[:8]:
            try:
                assert len(source.memory.read(region.start, 1)) == 1
            except MemoryFault as fault:
                assert fault.address == region.start  # noqa: PT017
        for module in source.modules():
            source.file_bytes(module, b"GNU C Library", 64)
        assert source.symbols("main_arena") == []
        source.threads()


def test_overlapping_segments_are_cut_and_said(tmp_path: Path) -> None:
    core = Core(loads=[Load(HEAP, b"a" * PAGE), Load(HEAP + 16, b"b" * (PAGE - 8) + b"12345678")])
    with open_bytes(core.build(), tmp_path) as source:
        assert source.memory.read(HEAP, PAGE + 16) == b"a" * PAGE + b"b" * 8 + b"12345678"
        assert "1 segments of the core overlap" in source.warnings[-1]


def test_a_segment_behind_the_end_of_the_address_space_is_cut(tmp_path: Path) -> None:
    core = Core("i386", loads=[Load(HEAP, DATA), Load(0xFFFFF000, DATA * 2)])
    with open_bytes(core.build(), tmp_path) as source:
        assert source.memory.regions()[-1].end == 1 << 32


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"hello", "not an ELF file"),
        (b"\x7fELF", "ELF header is damaged or cut off"),
        (Core(type=2, loads=[Load(HEAP, DATA)]).build(), "it is an executable, not a core"),
        (Core(type=3, loads=[Load(HEAP, DATA)]).build(), "or shared library, not a core"),
        (Core(type=1, loads=[Load(HEAP, DATA)]).build(), "it is an object file, not a core"),
        (Core(type=77, loads=[Load(HEAP, DATA)]).build(), "ELF file of type 77, not a core"),
        (Core().build(), "it has no memory"),
    ],
)
def test_what_is_no_core_is_refused_in_one_line(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(BadTarget, match=reason) as caught:
        open_bytes(data, tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "core"))
    assert "\n" not in str(caught.value)


def test_more_segments_than_anybody_has_are_refused(tmp_path: Path) -> None:
    core = small("x86_64")
    core.count_in_section = True
    data = bytearray(core.build())
    info = 64 + 56 * 4 + 44
    data[info : info + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(BadTarget, match="4294967295 program headers, more than"):
        open_bytes(bytes(data), tmp_path)


# --- mapped files ------------------------------------------------------------------------

LIBRARY = 0x20000


def with_file(path: str, perms: str = "r--", abi: str = "x86_64") -> Core:
    """A core that left a file's second page out, and a mapping that has no PT_LOAD at all."""
    core = Core(abi)
    core.loads = [Load(LIBRARY, b"D" * PAGE, size=2 * PAGE, perms=perms), Load(HEAP, DATA)]
    core.notes = core.status(1, bytes(300)) + core.files(
        (LIBRARY, LIBRARY + 2 * PAGE, PAGE, path), (STACK, STACK + PAGE, 0, path)
    )
    return core


@pytest.fixture
def mapped(tmp_path: Path) -> Path:
    file = tmp_path / "root" / "lib" / "mapped"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"0" * PAGE + b"1" * PAGE + b"2" * (PAGE - 16))
    return file


@pytest.mark.parametrize("abi", SHAPES)
def test_read_only_pages_that_were_left_out_come_from_the_mapped_file(
    abi: str, mapped: Path, tmp_path: Path
) -> None:
    with open_bytes(with_file(str(mapped), abi=abi).build(), tmp_path) as source:
        assert source.memory.read(LIBRARY, PAGE + 2) == b"D" * PAGE + b"22"
        assert bytes(source.memory.view(LIBRARY + PAGE, LIBRARY + PAGE + 3)) == b"222"
        assert list(source.memory.regions())[1:] == [
            Region(LIBRARY, LIBRARY + 2 * PAGE, "r--", str(mapped), PAGE),
            Region(STACK, STACK + PAGE, "rw-", str(mapped), 0),
        ]
        with pytest.raises(MemoryFault, match="behind the end of the mapped file") as caught:
            source.memory.read(LIBRARY + PAGE, PAGE)
        assert caught.value.address == LIBRARY + 2 * PAGE - 16


def test_the_sysroot_is_where_the_files_are(mapped: Path, tmp_path: Path) -> None:
    core = with_file("/usr/lib/mapped").build()  # and /usr/lib may be /lib there
    with open_bytes(core, tmp_path, OpenOptions(sysroot=str(tmp_path / "root"))) as source:
        assert source.memory.read(LIBRARY + PAGE, 2) == b"22"
    with open_bytes(core, tmp_path) as source, pytest.raises(MemoryFault, match="see --sysroot"):
        source.memory.read(LIBRARY + PAGE, 2)


def test_a_path_cannot_leave_the_sysroot(mapped: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 4 * PAGE)
    core = with_file("/../secret").build()
    options = OpenOptions(sysroot=str(tmp_path / "root"))
    with open_bytes(core, tmp_path, options) as source, pytest.raises(MemoryFault):
        source.memory.read(LIBRARY + PAGE, 2)


def test_writable_pages_never_come_from_a_file(mapped: Path, tmp_path: Path) -> None:
    with open_bytes(with_file(str(mapped), "rw-").build(), tmp_path) as source:
        with pytest.raises(MemoryFault, match="the program may have changed"):
            source.memory.read(LIBRARY + PAGE, 1)
        with pytest.raises(MemoryFault):
            source.memory.read(STACK, 1)  # nobody says that it is read only


def test_what_a_cut_core_had_never_comes_from_a_file(mapped: Path, tmp_path: Path) -> None:
    core = Core(loads=[Load(HEAP, DATA), Load(LIBRARY, b"D" * PAGE, perms="r--")])
    core.notes = core.files((LIBRARY, LIBRARY + PAGE, 0, str(mapped)))
    with open_bytes(core.build()[:-PAGE], tmp_path) as source:
        with pytest.raises(MemoryFault, match="cut off before it"):
            source.memory.read(LIBRARY, 1)
        assert "the core is cut off: 4096 bytes of 1 segments" in source.warnings[-1]


def test_a_pipe_or_device_that_a_core_names_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_open, opened = os.open, list[str]()

    def watched(path: str, *rest: Any, **named: Any) -> int:
        opened.append(str(path))
        return true_open(path, *rest, **named)

    monkeypatch.setattr(os, "open", watched)
    for path in ("/dev/zero", str(tmp_path), "relative", "/nowhere/at/all", "/\udcff"):
        core = with_file("PATH")
        core.notes = core.notes.replace(b"PATH", path.encode("utf-8", "surrogateescape")[:4])
        core = with_file(path) if path.isascii() else core
        with open_bytes(core.build(), tmp_path) as source, pytest.raises(MemoryFault):
            source.memory.read(LIBRARY + PAGE, 1)
    assert str(tmp_path / "core") in opened
    assert "/dev/zero" not in opened


def test_mappings_with_other_borders_split_the_segments(tmp_path: Path) -> None:
    core = Core(loads=[Load(HEAP, DATA * 4, perms="r-x"), Load(STACK, DATA)])
    core.notes = core.files(
        (HEAP - PAGE, HEAP + PAGE, 0, "/a"),
        (HEAP + PAGE // 2, HEAP + PAGE, 0, "/inside"),  # overlaps: hostile
        (HEAP + 2 * PAGE, HEAP + 3 * PAGE, PAGE, "/b"),
        (STACK + PAGE, STACK + 2 * PAGE, 0, "/c"),
    )
    with open_bytes(core.build(), tmp_path) as source:
        assert list(source.memory.regions()) == [
            Region(HEAP - PAGE, HEAP, "rw-", "/a", 0),
            Region(HEAP, HEAP + PAGE, "r-x", "/a", PAGE),
            Region(HEAP + PAGE, HEAP + 2 * PAGE, "r-x"),
            Region(HEAP + 2 * PAGE, HEAP + 3 * PAGE, "r-x", "/b", PAGE),
            Region(HEAP + 3 * PAGE, HEAP + 4 * PAGE, "r-x"),
            Region(STACK, STACK + PAGE, "rw-"),
            Region(STACK + PAGE, STACK + 2 * PAGE, "rw-", "/c", 0),
        ]


def test_the_vdso_is_named(tmp_path: Path) -> None:
    core = Core(loads=[Load(HEAP, DATA), Load(STACK, DATA, perms="r-x")])
    core.notes = core.auxv((33, STACK), (9, HEAP))
    with open_bytes(core.build(), tmp_path) as source:
        assert source.auxv() == {33: STACK, 9: HEAP}
        assert [r.path for r in source.memory.regions()] == ["", "[vdso]"]
        assert "names no thread" in source.warnings[0]

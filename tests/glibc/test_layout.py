"""Facts of glibc that the tables must give, from the sources of each release."""

from __future__ import annotations

import pytest

from heapglass.errors import UnsupportedGlibc
from heapglass.glibc.layout import alignment_of, backported, layout_for, with_alignment, word_of
from heapglass.glibc.releases import parse_version, releases

ABIS = ("x86_64", "i386", "aarch64", "arm", "riscv64", "ppc64le", "s390x", "x32")


@pytest.mark.parametrize(
    ("version", "word", "alignment", "top", "size"),
    [
        ((2, 23), 8, 16, 0x58, 0x890),
        ((2, 26), 8, 16, 0x58, 0x890),
        ((2, 27), 8, 16, 0x60, 0x898),
        ((2, 42), 8, 16, 0x60, 0x898),
        ((2, 43), 8, 16, 0x08, 0x840),
        ((2, 25), 4, 8, 0x30, 0x454),
        ((2, 27), 4, 8, 0x34, 0x458),
        ((2, 26), 4, 16, 0x34, 0x458),
        ((2, 27), 4, 16, 0x38, 0x45C),
        ((2, 43), 4, 8, 0x08, 0x42C),
        ((2, 44), 4, 16, 0x08, 0x42C),
    ],
)
def test_malloc_state_is_laid_out_as_gcc_lays_it(version, word, alignment, top, size):
    state = layout_for(version, word, alignment=alignment).state

    assert state.offset("top") == top
    assert state.size == size


@pytest.mark.parametrize(
    ("version", "lp64", "ilp32"),
    [
        ((2, 23), 0x58, 0x34),
        ((2, 24), 0x50, 0x30),
        ((2, 26), 0x70, 0x40),
        ((2, 35), 0x88, 0x4C),
        ((2, 42), 0x88, 0x4C),
        ((2, 43), 0x90, 0x50),
        ((2, 44), 0x88, 0x4C),
    ],
)
def test_malloc_par_has_the_size_of_the_release(version, lp64, ilp32):
    assert layout_for(version, 8).structs["malloc_par"].size == lp64
    assert layout_for(version, 4).structs["malloc_par"].size == ilp32


@pytest.mark.parametrize(
    ("version", "lp64", "i386", "arm"),
    [
        ((2, 25), 0x20, 0x10, 0x10),
        ((2, 26), 0x20, 0x18, 0x10),
        ((2, 34), 0x20, 0x18, 0x10),
        ((2, 35), 0x30, 0x18, 0x18),
    ],
)
def test_heap_info_is_padded_to_the_alignment(version, lp64, i386, arm):
    assert layout_for(version, abi="x86_64").structs["heap_info"].size == lp64
    assert layout_for(version, 4, abi="i386").structs["heap_info"].size == i386
    assert layout_for(version, 4, abi="arm").structs["heap_info"].size == arm


@pytest.mark.parametrize(
    ("version", "lp64", "ilp32"),
    [
        ((2, 25), 0, 0),
        ((2, 26), 0x240, 0x140),
        ((2, 29), 0x240, 0x140),
        ((2, 30), 0x280, 0x180),
        ((2, 41), 0x280, 0x180),
        ((2, 42), 0x2F8, 0x1C8),
        ((2, 44), 0x2F8, 0x1C8),
    ],
)
def test_the_tcache_struct_has_the_size_of_the_release(version, lp64, ilp32):
    assert layout_for(version, 8).tcache.size == lp64
    assert layout_for(version, 4).tcache.size == ilp32


@pytest.mark.parametrize("version", releases())
def test_no_release_has_a_hole(version):
    for abi in ABIS:
        layout = layout_for(version, word_of(abi), abi=abi)
        assert layout.state.size > 0x400
        assert {"top", "bins", "next", "system_mem"} <= set(layout.state.fields)
        assert "sbrk_base" in layout.structs["malloc_par"]
        assert layout.has("tcache") == (layout.tcache.size > 0)
        assert layout.has("fastbins") == ("fastbinsY" in layout.state)


@pytest.mark.parametrize("text", ["2.22", "2.45", "glibc 3.1", "musl", "", "2.360", "12.36"])
def test_what_the_tables_do_not_cover_is_refused_by_name(text):
    with pytest.raises(UnsupportedGlibc) as caught:
        parse_version(text)

    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["2.36", "2.36-9+deb12u14", "GLIBC 2.36", "glibc-2.36"])
def test_a_release_is_read_out_of_a_package_version(text):
    assert parse_version(text) == (2, 36)


def test_an_unknown_abi_is_refused_by_name():
    with pytest.raises(UnsupportedGlibc, match="sparc"):
        alignment_of("sparc", (2, 36))


@pytest.mark.parametrize(
    ("version", "alignment"), [((2, 25), 8), ((2, 26), 16)], ids=["2.25", "2.26"]
)
def test_i386_aligns_to_16_since_2_26(version, alignment):
    assert layout_for(version, 4, abi="i386").alignment == alignment


# --- sizes and bins -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("abi", "request_", "size"),
    [
        ("x86_64", 0, 32),
        ("x86_64", 24, 32),
        ("x86_64", 25, 48),
        ("i386", 12, 16),
        ("i386", 13, 32),
        ("arm", 12, 16),
        ("arm", 13, 24),
    ],
)
def test_request2size(abi, request_, size):
    layout = layout_for((2, 36), word_of(abi), abi=abi)

    assert layout.request2size(request_) == size


LP64_BINS = [
    (2, 0x20, 0x20),
    (63, 0x3F0, 0x3F0),
    (64, 0x400, 0x430),
    (96, 0xC00, 0xC30),
    (97, 0xC40, 0xDF0),
    (98, 0xE00, 0xFF0),
    (99, 0x1000, 0x11F0),
    (111, 0x2800, 0x29F0),
    (112, 0x2A00, 0x2FF0),
    (113, 0x3000, 0x3FF0),
    (120, 0xA000, 0xFFF0),
    (121, 0x10000, 0x17FF0),
    (124, 0x28000, 0x3FFF0),
    (125, 0x40000, 0x7FFF0),
    (126, 0x80000, None),
]


@pytest.mark.parametrize(("index", "low", "high"), LP64_BINS)
def test_the_bins_of_lp64(index, low, high):
    layout = layout_for((2, 36))

    assert layout.bin_range(index) == (low, high)
    assert layout.bin_index(low) == index
    assert layout.bin_index(high or 1 << 40) == index


@pytest.mark.parametrize(
    ("index", "ends"),
    [
        (2, (0x10, 0x10)),
        (64, (0x3F0, 0x3F0)),
        (65, (0x400, 0x430)),
        (94, (0xB40, 0xB70)),
        (95, None),
        (96, (0xB80, 0xBF0)),
        (97, (0xC00, 0xDF0)),
    ],
)
def test_the_bins_of_i386(index, ends):
    assert layout_for((2, 36), 4).bin_range(index) == ends


@pytest.mark.parametrize(
    ("index", "ends"),
    [(64, (0x200, 0x238)), (95, (0x9C0, 0x9F8)), (96, (0xA00, 0xBF8)), (97, (0xC00, 0xDF8))],
)
def test_the_bins_of_ilp32_with_8_byte_alignment(index, ends):
    assert layout_for((2, 36), 4, abi="arm").bin_range(index) == ends


@pytest.mark.parametrize("version", [(2, 23), (2, 36), (2, 44)])
@pytest.mark.parametrize("abi", ["x86_64", "i386", "arm"])
def test_every_size_is_in_the_range_of_its_bin(version, abi):
    layout = layout_for(version, word_of(abi), abi=abi)
    ranges = {index: layout.bin_range(index) for index in range(2, 127)}

    for size in range(layout.min_chunk, 0xA0000, layout.alignment):
        ends = ranges[layout.bin_index(size)]
        assert ends is not None
        assert ends[0] <= size
        assert ends[1] is None or size <= ends[1]


@pytest.mark.parametrize(
    ("version", "abi", "index", "ends"),
    [
        ((2, 36), "x86_64", 0, (0x20, 0x20)),
        ((2, 36), "x86_64", 63, (0x410, 0x410)),
        ((2, 42), "x86_64", 64, (0x420, 0x7F0)),
        ((2, 43), "x86_64", 75, (0x200000, 0x3FFFF0)),
        ((2, 42), "i386", 64, None),
        ((2, 43), "i386", 64, (0x410, 0x7F0)),
    ],
)
def test_the_tcache_bins(version, abi, index, ends):
    assert layout_for(version, word_of(abi), abi=abi).tcache_range(index) == ends


@pytest.mark.parametrize("version", [(2, 26), (2, 36), (2, 42), (2, 43), (2, 44)])
@pytest.mark.parametrize("abi", ["x86_64", "i386", "arm"])
def test_every_size_is_in_the_range_of_its_tcache_bin(version, abi):
    layout = layout_for(version, word_of(abi), abi=abi)

    for size in range(layout.min_chunk, 1 << 16, layout.alignment):
        index = layout.tcache_index(size)
        if index is None:
            assert size > layout.tcache_small_max
            continue
        ends = layout.tcache_range(index)
        assert ends is not None
        assert ends[0] <= size <= ends[1]


def test_what_the_tcache_takes_by_default():
    assert layout_for((2, 41)).tcache_default_max == 1040
    assert layout_for((2, 42)).tcache_default_max == 1024
    assert layout_for((2, 43)).tcache_default_max == 1040
    assert layout_for((2, 36), 4).tcache_default_max == 1024


def test_an_mmapped_chunk_can_use_a_header_more_since_2_43():
    assert layout_for((2, 42)).usable(0x31000, mmapped=True) == 0x30FF0
    assert layout_for((2, 43)).usable(0x30FF0, mmapped=True) == 0x30FE8


def test_the_largest_fast_chunk():
    assert layout_for((2, 36)).default_max_fast == 0x80
    assert layout_for((2, 36), 4).default_max_fast == 0x40
    assert layout_for((2, 43)).default_max_fast == 0


# --- backports --------------------------------------------------------------------------


def test_a_branch_may_have_the_next_releases_arena():
    (layout,) = backported(layout_for((2, 26)))

    assert layout.version == (2, 26)
    assert layout.state.size == 0x898
    assert layout.tcache.size == 0x240


def test_rhel_8_has_safe_linking_in_2_28():
    layouts = list(backported(layout_for((2, 28))))

    assert [layout.has("safe_linking") for layout in layouts] == [False, False, True]
    assert layouts[-1].tcache.size == 0x280
    assert layouts[-1].has("tcache_key_struct")


def test_another_alignment_of_the_same_build():
    layout = with_alignment(layout_for((2, 36), 4), 8)

    assert layout.alignment == 8
    assert layout.state.size == 0x458

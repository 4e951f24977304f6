"""What differs between releases beside the structs: features, constants, alignment, backports.

Each row has the first release that has it and the first that has it no more.
"""

from __future__ import annotations

from typing import NamedTuple

from .releases import BEFORE, NEVER, Version


class Feature(NamedTuple):
    """A behaviour that a reader of memory has to know of."""

    name: str
    since: Version
    until: Version
    source: str


FEATURES: tuple[Feature, ...] = (
    Feature("tcache", (2, 26), NEVER, "d5c3fafc43"),
    Feature("tcache_key_struct", (2, 29), (2, 34), "bcdaad21d4; fc859c3048"),
    Feature("tcache_key_random", (2, 34), NEVER, "fc859c3048"),
    Feature("tcache_counts_down", (2, 42), NEVER, "7e10e30e64"),
    Feature("tcache_large", (2, 42), NEVER, "cbfd798810"),
    Feature("tcache_max_excludes", (2, 42), NEVER, "tcache_max_bytes is compared with <"),
    Feature("tcache_dummy", (2, 43), NEVER, "2bf2188fae"),
    Feature("tcache_maxsmall_usable", (2, 42), (2, 43), "MAXSMALL fixed in 2.43"),
    Feature("safe_linking", (2, 32), NEVER, "a1a486d70e"),
    Feature("fastbins", BEFORE, (2, 43), "bb5a4f5295"),
    Feature("no_fastchunks_bit", BEFORE, (2, 27), "e956075a5a: flags bit 0, inverted"),
    Feature("arena_corrupt_bit", BEFORE, (2, 27), "ec2c1fcefb: flags bit 2"),
    Feature("max_fast_byte", (2, 37), (2, 43), "15a94e6668: global_max_fast is uint8_t"),
    Feature("mmap_header_apart", (2, 43), NEVER, "614cfd0f8a: size field leaves a header out"),
    Feature("mmap_hugetlb_bit", (2, 43), NEVER, "614cfd0f8a: prev_size bit 0"),
    Feature("heap_max_follows_hugetlb", (2, 35), (2, 42), "0f982c1827: 4 * hp_pagesize"),
    Feature("malloc_info_subheaps", (2, 27), NEVER, "7a9368a117"),
    Feature("malloc_info_counts_top", (2, 31), NEVER, "b6d2c4475d"),
    Feature("free_small_to_bin", (2, 41), NEVER, "e2436d6f5a"),
    Feature("hooks", BEFORE, (2, 34), "2d2d9f2b48"),
)


class Constant(NamedTuple):
    """A number that glibc was compiled with; *lp64* and *ilp32* by word size."""

    name: str
    lp64: int
    ilp32: int
    since: Version = BEFORE
    until: Version = NEVER
    source: str = ""


CONSTANTS: tuple[Constant, ...] = (
    Constant("DEFAULT_MMAP_THRESHOLD", 0x20000, 0x20000),
    Constant("DEFAULT_MMAP_THRESHOLD_MAX", 32 << 20, 512 << 10),
    Constant("HEAP_MAX_SIZE", 64 << 20, 1 << 20),
    Constant("HEAP_MIN_SIZE", 0x8000, 0x8000),
    Constant("DEFAULT_TOP_PAD", 0x20000, 0x20000, source="sysdeps/generic/malloc-machine.h"),
    Constant("DEFAULT_TRIM_THRESHOLD", 0x20000, 0x20000),
    Constant("DEFAULT_MMAP_MAX", 65536, 65536),
    Constant("DEFAULT_ARENA_TEST", 8, 2),
    Constant("DEFAULT_MXFAST", 128, 64, BEFORE, (2, 43), "bb5a4f5295"),
    Constant("FASTBIN_CONSOLIDATION_THRESHOLD", 65536, 65536),
    Constant("TCACHE_FILL_COUNT", 7, 7, (2, 26), (2, 43), "d5c3fafc43"),
    Constant("TCACHE_FILL_COUNT", 16, 16, (2, 43), NEVER, "0b9210bd76"),
    Constant("TCACHE_SMALL_BINS", 64, 64, (2, 26), NEVER, "d5c3fafc43"),
    Constant("TCACHE_LARGE_BINS", 12, 12, (2, 42), NEVER, "cbfd798810"),
)


class PortAlignment(NamedTuple):
    """MALLOC_ALIGNMENT of a port."""

    abi: str
    word: int
    alignment: int
    since: Version = BEFORE
    until: Version = NEVER
    source: str = "max(2 * SIZE_SZ, alignof (long double))"


ALIGNMENTS: tuple[PortAlignment, ...] = (
    PortAlignment("x86_64", 8, 16),
    PortAlignment("aarch64", 8, 16),
    PortAlignment("riscv64", 8, 16),
    PortAlignment("ppc64le", 8, 16),
    PortAlignment("ppc64", 8, 16),
    PortAlignment("s390x", 8, 16),
    PortAlignment("i386", 4, 8, BEFORE, (2, 26), "2 * SIZE_SZ"),
    PortAlignment("i386", 4, 16, (2, 26), NEVER, "sysdeps/i386/malloc-alignment.h, in 2.26"),
    PortAlignment("x32", 4, 16),
    PortAlignment("arm", 4, 8),
)


class Backport(NamedTuple):
    """A release whose stable branch (or a distribution) has a later release's layout.

    *as_of* says which release each group follows; groups are the structs, and for features
    "safe_linking" and "tcache_key".
    """

    version: Version
    as_of: tuple[tuple[str, Version], ...]
    source: str


_COUNTS = ("tcache_perthread_struct", (2, 30))
_KEY = (("tcache_entry", (2, 29)), ("tcache_key", (2, 29)))

BACKPORTS: tuple[Backport, ...] = (
    Backport((2, 26), (("malloc_state", (2, 27)),), "release/2.26, 2017-11-16"),
    Backport((2, 27), _KEY, "release/2.27, 2018-12-12"),
    Backport((2, 28), _KEY, "release/2.28, 2018-11-28"),
    Backport((2, 28), (*_KEY, _COUNTS), "release/2.28, 2019-10-30"),
    Backport((2, 29), (_COUNTS,), "release/2.29, 2019-11-18"),
    Backport((2, 28), (*_KEY, _COUNTS, ("safe_linking", (2, 32))), "RHEL 8"),
)
FEATURE_GROUPS = {"safe_linking": "safe_linking", "tcache_key_struct": "tcache_key"}

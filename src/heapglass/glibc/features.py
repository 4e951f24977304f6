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
    Feature("memory_tagging", (2, 33), (2, 44), "3784dfc098: MTE on aarch64; gone in 2.44"),
    Feature("hooks", BEFORE, (2, 34), "2d2d9f2b48"),
    # What only an allocator has to know: where it starts, what it checks, which way it goes.
    Feature("init_at_start", (2, 42), NEVER, "25d37948c9: before main"),
    Feature("init_by_consolidate", BEFORE, (2, 27), "an arena with NULL bins: 3381be5cde"),
    Feature("init_by_first_use", BEFORE, (2, 25), "no tunables: ptmalloc_init leaves the bins"),
    Feature("single_thread_paths", (2, 27), NEVER, "a15d53e2de: SINGLE_THREAD_P"),
    Feature("request_wraps", BEFORE, (2, 27), "request2size after REQUEST_OUT_OF_RANGE"),
    Feature("request_below_ptrdiff", (2, 30), NEVER, "9bf8e29ca1"),
    Feature("request_saturates", (2, 43), NEVER, "checked_request2size gives SIZE_MAX"),
    Feature("tcache_pop_by_count", (2, 30), (2, 42), "1f50f2ad85"),
    Feature("tcache_asserts", (2, 26), (2, 30), "1f50f2ad85"),
    Feature("tcache_scan_bounded", (2, 33), NEVER, "0e00b35704"),
    Feature("tcache_large_exact", (2, 43), NEVER, "b2b4b46a52"),
    Feature("tcache_struct_rounded_twice", (2, 43), (2, 44), "request2size of request2size"),
    Feature("tcache_init_on_exact", (2, 43), (2, 44), "unsorted: size == nb"),
    Feature("tcache_not_mmapped", (2, 42), (2, 43), "large tcache: no mmapped chunks"),
    Feature("tcache_recreated_on_exit", (2, 26), (2, 27), "0a947e061d: shutting_down set too late"),
    Feature("tcache_exit_bypasses", (2, 43), NEVER, "straight to _int_free_chunk"),
    Feature("unsorted_stash", (2, 26), (2, 44), "gone in 2.44"),
    Feature("stash_checks_index", (2, 42), (2, 43), "chunk size mismatch in fastbin"),
    Feature("single_pass", (2, 44), NEVER, "gone in 2.44: the outer loop"),
    Feature("free_internal_bypasses", (2, 42), NEVER, "cd33535002, 69da24fbc5"),
    Feature("free_checks_late", (2, 42), NEVER, "after the tcache, and weaker"),
    Feature("calloc_from_tcache", (2, 41), NEVER, "226e3b0a41"),
    Feature("calloc_asserts", BEFORE, (2, 41), "nclears >= 3"),
    Feature("unlink_checks_size", (2, 26), NEVER, "17f487b7af"),
    Feature("unsorted_checks", (2, 29), NEVER, "b90ddd08f6"),
    Feature("unsorted_unlink_check", (2, 28), (2, 38), "bdc3009b8f"),
    Feature("merge_checks_size", (2, 29), NEVER, "d6db68e66d"),
    Feature("consolidate_checks_size", (2, 27), (2, 43), "in 2.27"),
    Feature("top_size_check", (2, 29), NEVER, "30a17d8c95"),
    Feature("largebin_checks", (2, 30), NEVER, "5b06f538c5"),
    Feature("largebin_append_check", (2, 42), NEVER, "nextsize ring at the end of a bin"),
    Feature("mmap_checks_mem", (2, 29), NEVER, "c0e82f1173"),
    Feature("realloc_keeps_trim", (2, 37), (2, 38), "f4f2ca1509"),
    Feature("realloc_keeps_usable", (2, 38), NEVER, "2fb12bbd09"),
    Feature("realloc_keeps_page", (2, 38), (2, 43), "2fb12bbd09: mmapped, by a page"),
    Feature("realloc_arena_late", (2, 43), NEVER, "the arena is looked up behind the checks"),
    Feature("realloc_asserts_copies", BEFORE, (2, 29), "ncopies >= 3"),
    Feature("memalign_limit", BEFORE, (2, 30), "9bf8e29ca1"),
    Feature("memalign_limit_chunk", (2, 27), (2, 30), "8e448310d7; 9bf8e29ca1"),
    Feature("memalign_ptrdiff", (2, 43), NEVER, "CVE-2026-0861"),
    Feature("memalign_from_tcache", (2, 38), NEVER, "24cdd6c71d"),
    Feature("memalign_from_bins", (2, 38), (2, 39), "24cdd6c71d; 0dc7fc1cf0"),
    Feature("memalign_merges", (2, 39), NEVER, "542b110585"),
    Feature("memalign_any_tail", (2, 39), (2, 43), "a tail below MINSIZE if it can be merged"),
    Feature("memalign_exact_tail", (2, 43), NEVER, "size - nb >= MINSIZE"),
    Feature("aligned_alloc_checks", (2, 38), NEVER, "in 2.38: EINVAL for what is no power of two"),
    Feature("pvalloc_odd", (2, 30), (2, 42), "mask -(pagesize - 1)"),
    Feature("fallback_swapped", (2, 35), (2, 38), "0849eed45d: page size and minimum"),
    Feature("fallback_by_request", (2, 43), NEVER, "nb + top_pad + MINSIZE"),
    Feature("fallback_checks_size", BEFORE, (2, 43), "size <= nb"),
    Feature("arena_leaves_free_list", (2, 25), NEVER, "in 2.25: remove_from_free_list"),
    Feature("arena_limit_at_test", (2, 44), NEVER, "narenas >= arena_test"),
    Feature("mallopt_consolidates", BEFORE, (2, 43), "bb5a4f5295"),
    Feature("mxfast_tunable", (2, 31), (2, 43), "c48d92b430"),
    Feature("mallopt_arena_bug", (2, 25), (2, 26), "M_ARENA_MAX sets arena_test"),
    Feature("mmap_threshold_limit", BEFORE, (2, 35), "HEAP_MAX_SIZE / 2"),
    Feature("mxfast_zero_align", BEFORE, (2, 31), "SMALLBIN_WIDTH for mxfast 0"),
    Feature("mxfast_small_none", (2, 32), NEVER, "MIN_CHUNK_SIZE / 2 up to MASK - SIZE_SZ"),
    Feature("mmap_huge", (2, 35), NEVER, "0f982c1827"),
    Feature("hugetlb_mmap_threshold", (2, 39), NEVER, "bc6d79f4ae: it is lowered to a page"),
    Feature("thp_by_curbrk", (2, 35), (2, 43), "__curbrk is 0 before libc's first brk"),
    Feature("thp_mode_unset", (2, 44), NEVER, "0: not asked yet; madvise is 3, never 4"),
    Feature("hugetlb_within_heap", (2, 42), NEVER, "only pages up to HEAP_MAX_SIZE"),
    Feature("heap_of_thp", (2, 43), NEVER, "new_heap tries thp_pagesize"),
    Feature("mallinfo2", (2, 33), NEVER, "e3960d1c57"),
    Feature("malloc_info_tabs", BEFORE, (2, 31), "b6d2c4475d"),
    Feature("free_sized", (2, 43), NEVER, "C23"),
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
# Bits at the top of an address that the machine ignores in user space (top-byte-ignore): HWASan and
# memory tagging keep a tag there.
IGNORED_TOP_BITS = {"aarch64": 8}
FEATURE_GROUPS = {
    "safe_linking": "safe_linking",
    "tcache_key_struct": "tcache_key",
    "tcache_key_random": "tcache_key",
    "tcache_counts_down": "tcache_perthread_struct",
    "tcache_large": "tcache_perthread_struct",
    "fastbins": "malloc_state",
    "max_fast_byte": "max_fast_byte",
}

"""What malloc says before it aborts: every message and assertion, with the releases that have it.

Texts and line numbers are facts of glibc's source at each tag (2.43 and 2.44: of the binaries;
`old_top` in 2.24 and 2.37: as recorded from a build, two less and one more than in the tag).
In 2.23 to 2.26 a message came in a frame (`*** Error in …: TEXT: 0xADDR ***`); here is the TEXT.
"""

from __future__ import annotations

from typing import NamedTuple

from .releases import BEFORE, NEVER, Version


class Message(NamedTuple):
    """A text that `malloc_printerr` prints, and where."""

    text: str
    where: str  # the part of malloc that checks
    since: Version = BEFORE
    until: Version = NEVER


MESSAGES: tuple[Message, ...] = (
    Message("free(): invalid pointer", "free"),
    Message("free(): invalid size", "free"),
    Message("free(): double free detected in tcache 2", "free, tcache", (2, 29)),
    Message("free(): unaligned chunk detected in tcache 2", "free, tcache", (2, 32)),
    Message("free(): too many chunks detected in tcache", "free, tcache", (2, 33)),
    Message("free(): invalid next size (fast)", "free, fast", BEFORE, (2, 43)),
    Message("double free or corruption (fasttop)", "free, fast", BEFORE, (2, 43)),
    Message("invalid fastbin entry (free)", "free, fast", BEFORE, (2, 43)),
    Message("double free or corruption (top)", "free"),
    Message("double free or corruption (out)", "free"),
    Message("double free or corruption (!prev)", "free"),
    Message("free(): invalid next size (normal)", "free"),
    Message("corrupted size vs. prev_size while consolidating", "free, merge", (2, 29)),
    Message("free(): corrupted unsorted chunks", "free, insert"),
    Message("free(): chunks in smallbin corrupted", "free, insert", (2, 41)),
    Message("corrupted size vs. prev_size", "unlink", (2, 26)),
    Message("corrupted double-linked list", "unlink"),
    Message("corrupted double-linked list (not small)", "unlink"),
    Message("malloc_consolidate(): invalid chunk size", "consolidate", (2, 27), (2, 43)),
    Message(
        "malloc_consolidate(): unaligned fastbin chunk detected", "consolidate", (2, 32), (2, 43)
    ),
    Message("corrupted size vs. prev_size in fastbins", "consolidate", (2, 29), (2, 43)),
    Message("malloc(): memory corruption (fast)", "malloc, fast", BEFORE, (2, 43)),
    Message("malloc(): unaligned fastbin chunk detected", "malloc, fast", (2, 32), (2, 43)),
    Message("malloc(): unaligned fastbin chunk detected 2", "malloc, fast", (2, 32), (2, 43)),
    Message("malloc(): unaligned fastbin chunk detected 3", "malloc, fast", (2, 32), (2, 43)),
    Message("malloc(): chunk size mismatch in fastbin", "malloc, fast", (2, 42), (2, 43)),
    Message("malloc(): unaligned tcache chunk detected", "malloc, tcache", (2, 32)),
    Message("malloc(): smallbin double linked list corrupted", "malloc, small"),
    Message("malloc(): memory corruption", "malloc, unsorted", BEFORE, (2, 29)),
    Message("malloc(): invalid size (unsorted)", "malloc, unsorted", (2, 29)),
    Message("malloc(): invalid next size (unsorted)", "malloc, unsorted", (2, 29)),
    Message("malloc(): mismatching next->prev_size (unsorted)", "malloc, unsorted", (2, 29)),
    Message("malloc(): unsorted double linked list corrupted", "malloc, unsorted", (2, 29)),
    Message("malloc(): invalid next->prev_inuse (unsorted)", "malloc, unsorted", (2, 29)),
    Message("malloc(): corrupted unsorted chunks 3", "malloc, unsorted", (2, 28), (2, 38)),
    Message("malloc(): largebin double linked list corrupted (nextsize)", "malloc, large", (2, 30)),
    Message("malloc(): largebin double linked list corrupted (bk)", "malloc, large", (2, 30)),
    Message("malloc(): corrupted unsorted chunks", "malloc, split"),
    Message("malloc(): corrupted unsorted chunks 2", "malloc, split"),
    Message("malloc(): corrupted top size", "malloc, top", (2, 29)),
    Message("break adjusted to free malloc space", "sysmalloc"),
    Message("realloc(): invalid pointer", "realloc"),
    Message("realloc(): invalid old size", "realloc"),
    Message("realloc(): invalid next size", "realloc"),
    Message("munmap_chunk(): invalid pointer", "free, mmapped"),
    Message("mremap_chunk(): invalid pointer", "realloc, mmapped", (2, 29)),
    Message("tcache_thread_shutdown(): unaligned tcache chunk detected", "thread exit", (2, 32)),
    Message("int_mallinfo(): unaligned fastbin chunk detected", "mallinfo", (2, 32), (2, 43)),
    Message("__malloc_info(): unaligned fastbin chunk detected", "malloc_info", (2, 32), (2, 43)),
    Message("_int_memalign(): unaligned chunk detected", "memalign", (2, 38), (2, 39)),
    Message("max tcache size too large", "tcache_init", (2, 42), (2, 43)),
)


class Assertion(NamedTuple):
    """An `assert` of malloc.c or arena.c; *lines* has its line in each release from *since* on."""

    key: str  # our name for it
    file: str
    function: str
    expression: str
    since: Version
    lines: str


ASSERTIONS: tuple[Assertion, ...] = (
    Assertion(
        "old_top",
        "malloc.c",
        "sysmalloc",
        "(old_top == initial_top (av) && old_size == 0) || ((unsigned long) (old_size) >= "
        "MINSIZE && prev_inuse (old_top) && ((unsigned long) old_end & (pagesize - 1)) == 0)",
        (2, 23),
        "2392 2398 2366 2412 2398 2382 2389 2379 2379 2394 2539 2516 2617 2611 2594 2589 2599 "
        "2599 2601 2607 2371 2199",
    ),
    Assertion(
        "top_too_large",
        "malloc.c",
        "sysmalloc",
        "(unsigned long) (old_size) < (unsigned long) (nb + MINSIZE)",
        (2, 23),
        "2398 2406 2372 2418 2404 2388 2395 2385 2385 2400 2545 2522 2623 2617 2599 2595 2605 "
        "2605 2607 2613 2377 2205",
    ),
    Assertion(
        "munmap_mmapped",
        "malloc.c",
        "munmap_chunk",
        "chunk_is_mmapped (p)",
        (2, 23),
        "2832 2838 2803 2849 2831 2815 2823 2813 2813 2828 2978 2937 3048 3042 3024 3018 3028 "
        "3028 3030 3036 2802 2630",
    ),
    Assertion(
        "mremap_aligned",
        "malloc.c",
        "mremap_chunk",
        "((size + offset) & (GLRO (dl_pagesize) - 1)) == 0",
        (2, 23),
        "2869 2880 2845 2891 2868 2852",
    ),
    Assertion(
        "mremap_mem",
        "malloc.c",
        "mremap_chunk",
        "aligned_OK (chunk2mem (p))",
        (2, 23),
        "2886 2897 2862 2908 2885 2869 2885 2875 2875 2890",
    ),
    Assertion(
        "mremap_mem",
        "malloc.c",
        "mremap_chunk",
        "aligned_OK (chunk2mem (p))",
        (2, 34),
        "2994 3107 3101 3083 3077 3087 3087 3089",
    ),
    Assertion(
        "mremap_mem",
        "malloc.c",
        "mremap_chunk",
        "aligned_OK (chunk2rawmem (p))",
        (2, 33),
        "3040",
    ),
    Assertion(
        "mremap_mem",
        "malloc.c",
        "mremap_chunk",
        "!misaligned_chunk (p)",
        (2, 42),
        "3095",
    ),
    Assertion(
        "mremap_offset",
        "malloc.c",
        "mremap_chunk",
        "(p->prev_size == offset)",
        (2, 23),
        "2888 2899",
    ),
    Assertion(
        "mremap_offset",
        "malloc.c",
        "mremap_chunk",
        "prev_size (p) == offset",
        (2, 25),
        "2864 2910 2887 2871 2887 2877 2877 2892 3042 2996 3109 3103 3085 3079 3089 3089 3091 3097",
    ),
    Assertion(
        "malloc_main",
        "malloc.c",
        "__libc_malloc",
        "!victim || chunk_is_mmapped (mem2chunk (victim)) || &main_arena == arena_for_chunk "
        "(mem2chunk (victim))",
        (2, 27),
        "3058 3042 3066 3059 3059 3079 3230 3209 3322 3316 3298 3317 3329 3329 3407",
    ),
    Assertion(
        "malloc_main",
        "malloc.c",
        "__libc_malloc2",
        "!victim || chunk_is_mmapped (mem2chunk (victim)) || &main_arena == arena_for_chunk "
        "(mem2chunk (victim))",
        (2, 42),
        "3436 3254 3074",
    ),
    Assertion(
        "malloc_arena",
        "malloc.c",
        "__libc_malloc",
        "!victim || chunk_is_mmapped (mem2chunk (victim)) || ar_ptr == arena_for_chunk "
        "(mem2chunk (victim))",
        (2, 23),
        "2927 2938 2903 3084 3078 3062 3086 3079 3079 3099 3252 3231 3344 3338 3320 3339 3351 "
        "3351 3429",
    ),
    Assertion(
        "malloc_arena",
        "malloc.c",
        "__libc_malloc2",
        "!victim || chunk_is_mmapped (mem2chunk (victim)) || ar_ptr == arena_for_chunk "
        "(mem2chunk (victim))",
        (2, 42),
        "3458 3276 3094",
    ),
    Assertion(
        "realloc_main",
        "malloc.c",
        "__libc_realloc",
        "!newp || chunk_is_mmapped (mem2chunk (newp)) || ar_ptr == arena_for_chunk (mem2chunk "
        "(newp))",
        (2, 23),
        "3049 3083 3048 3234 3222 3206 3230 3227 3227 3247 3428 3373 3486 3481 3471 3497 3509 "
        "3509 3587 3658 3472 3269",
    ),
    Assertion(
        "realloc_arena",
        "malloc.c",
        "__libc_realloc",
        "!newp || chunk_is_mmapped (mem2chunk (newp)) || ar_ptr == arena_for_chunk (mem2chunk "
        "(newp))",
        (2, 23),
        "3049 3083 3048 3234 3233 3217 3241 3238 3238 3258 3439 3384 3497 3492 3482 3508 3520 "
        "3520 3598 3669 3483 3280",
    ),
    Assertion(
        "memalign_main",
        "malloc.c",
        "_mid_memalign",
        "!p || chunk_is_mmapped (mem2chunk (p)) || &main_arena == arena_for_chunk (mem2chunk (p))",
        (2, 27),
        "3306 3290 3314 3304 3304 3324 3505 3450 3563 3558 3548 3629 3641 3641 3717 3762 3597 3381",
    ),
    Assertion(
        "memalign_arena",
        "malloc.c",
        "_mid_memalign",
        "!p || chunk_is_mmapped (mem2chunk (p)) || ar_ptr == arena_for_chunk (mem2chunk (p))",
        (2, 23),
        "3132 3166 3131 3317 3325 3309 3333 3323 3323 3343 3523 3468 3581 3576 3566 3647 3659 "
        "3659 3735 3780 3615 3399",
    ),
    Assertion(
        "calloc_arena",
        "malloc.c",
        "__libc_calloc",
        "!mem || chunk_is_mmapped (mem2chunk (mem)) || av == arena_for_chunk (mem2chunk (mem))",
        (2, 23),
        "3240 3274 3239 3427 3438 3422 3446 3430 3430 3450 3639 3568 3681 3676 3666 3744 3756 "
        "3756 3846",
    ),
    Assertion(
        "calloc_arena",
        "malloc.c",
        "__libc_calloc2",
        "!mem || chunk_is_mmapped (mem2chunk (mem)) || av == arena_for_chunk (mem2chunk (mem))",
        (2, 42),
        "3851 3686 3469",
    ),
    Assertion(
        "calloc_clears",
        "malloc.c",
        "__libc_calloc",
        "nclears >= 3",
        (2, 23),
        "3284 3318 3283 3471 3485 3469 3493 3477 3477 3497 3691 3621 3734 3729 3719 3797 3809 3809",
    ),
    Assertion(
        "largebin_tail",
        "malloc.c",
        "_int_malloc",
        "(bck->bk->size & NON_MAIN_ARENA) == 0",
        (2, 23),
        "3552 3586",
    ),
    Assertion(
        "largebin_tail",
        "malloc.c",
        "_int_malloc",
        "chunk_main_arena (bck->bk)",
        (2, 25),
        "3552 3819 3830 3816 3851 3839 3839 3867 4062 3992 4105 4101 4091 4167 4179 4179 4237 "
        "4297 4041 3768",
    ),
    Assertion(
        "largebin_first",
        "malloc.c",
        "_int_malloc",
        "(fwd->size & NON_MAIN_ARENA) == 0",
        (2, 23),
        "3564 3598",
    ),
    Assertion(
        "largebin_first",
        "malloc.c",
        "_int_malloc",
        "chunk_main_arena (fwd)",
        (2, 25),
        "3565 3832 3843 3829 3864 3852 3852 3880 4075 4005 4118 4114 4104 4180 4192 4192 4250 "
        "4313 4057 3784",
    ),
    Assertion(
        "largebin_next",
        "malloc.c",
        "_int_malloc",
        "(fwd->size & NON_MAIN_ARENA) == 0",
        (2, 23),
        "3568 3602",
    ),
    Assertion(
        "largebin_next",
        "malloc.c",
        "_int_malloc",
        "chunk_main_arena (fwd)",
        (2, 25),
        "3569 3836 3847 3833 3868 3856 3856 3884 4079 4009 4122 4118 4108 4184 4196 4196 4254 "
        "4317 4061 3788",
    ),
    Assertion(
        "bin_size",
        "malloc.c",
        "_int_malloc",
        "(unsigned long) (size) >= (unsigned long) (nb)",
        (2, 23),
        "3723 3757 3728 4015 4023 4009 4044 4036 4036 4064 4259 4189 4302 4298 4288 4364 4376 "
        "4376 4434 4497 4241 3948",
    ),
    Assertion(
        "free_heap",
        "malloc.c",
        "_int_free",
        "heap->ar_ptr == av",
        (2, 23),
        "4089 4123 4095 4396 4375 4361 4421 4413 4413 4446 4644 4574 4687 4683 4673 4749",
    ),
    Assertion(
        "free_heap",
        "malloc.c",
        "_int_free_maybe_consolidate",
        "heap->ar_ptr == av",
        (2, 39),
        "4794 4794 4851 4897",
    ),
    Assertion(
        "free_heap",
        "malloc.c",
        "_int_free_maybe_trim",
        "heap->ar_ptr == av",
        (2, 43),
        "4546 4247",
    ),
    Assertion(
        "realloc_copies",
        "malloc.c",
        "_int_realloc",
        "ncopies >= 3",
        (2, 23),
        "4332 4366 4338 4639 4597 4583",
    ),
    Assertion(
        "realloc_size",
        "malloc.c",
        "_int_realloc",
        "(unsigned long) (newsize) >= (unsigned long) (nb)",
        (2, 23),
        "4368 4402 4374 4675 4633 4619 4635 4627 4627 4664 4866 4796 4909 4905 4896 4972 5006 "
        "5006 5063 5109 4651 4351",
    ),
    Assertion(
        "memalign_size",
        "malloc.c",
        "_int_memalign",
        "newsize >= nb && (((unsigned long) (chunk2mem (p))) % alignment) == 0",
        (2, 23),
        "4463 4497 4469 4770 4735 4721 4737 4725 4725 4762",
    ),
    Assertion(
        "memalign_size",
        "malloc.c",
        "_int_memalign",
        "newsize >= nb && (((unsigned long) (chunk2mem (p))) % alignment) == 0",
        (2, 34),
        "4896 5009 5006 4997 5227 5108 5108 5165 5211",
    ),
    Assertion(
        "memalign_size",
        "malloc.c",
        "_int_memalign",
        "newsize >= nb && (((unsigned long) (chunk2rawmem (p))) % alignment) == 0",
        (2, 33),
        "4966",
    ),
    Assertion(
        "trim_start",
        "malloc.c",
        "mtrim",
        "(char *) chunk2mem (p) + 4 * SIZE_SZ <= paligned_mem",
        (2, 23),
        "4522 4556 4528 4829 4790 4776 4792 4780 4780 4817",
    ),
    Assertion(
        "trim_start",
        "malloc.c",
        "mtrim",
        "(char *) chunk2rawmem (p) + 2 * CHUNK_HDR_SZ <= paligned_mem",
        (2, 33),
        "5021",
    ),
    Assertion(
        "trim_start",
        "malloc.c",
        "mtrim",
        "(char *) chunk2mem (p) + 2 * CHUNK_HDR_SZ <= paligned_mem",
        (2, 34),
        "4951 5064 5061 5052 5282 5175 5175 5232 5278 4777 4475",
    ),
    Assertion(
        "trim_end",
        "malloc.c",
        "mtrim",
        "(char *) p + size > paligned_mem",
        (2, 23),
        "4523 4557 4529 4830 4791 4777 4793 4781 4781 4818 5023 4953 5066 5063 5054 5284 5177 "
        "5177 5234 5280 4779 4477",
    ),
    Assertion(
        "heap_fence",
        "arena.c",
        "heap_trim",
        "p->size == (0 | PREV_INUSE)",
        (2, 23),
        "698 563",
    ),
    Assertion(
        "heap_fence",
        "arena.c",
        "heap_trim",
        "chunksize_nomask (p) == (0 | PREV_INUSE)",
        (2, 25),
        "617 628 612 612 612 611 613 613 663 605 659 659 656 542 553 553 553 537 543 523",
    ),
    Assertion(
        "heap_fence_size",
        "arena.c",
        "heap_trim",
        "new_size > 0 && new_size < (long) (2 * MINSIZE)",
        (2, 23),
        "701 566 620 631 615 615 615 614 616 616 666 608 662 662 659 545 556 556 556 540 546 526",
    ),
    Assertion(
        "heap_new_size",
        "arena.c",
        "heap_trim",
        "new_size > 0 && new_size < HEAP_MAX_SIZE",
        (2, 23),
        "704 569 623 634 618 618 618 617 619 619 669 611",
    ),
    Assertion(
        "heap_new_size",
        "arena.c",
        "heap_trim",
        "new_size > 0 && new_size < max_size",
        (2, 35),
        "665 665 662 548 559 559 559 543 549 529",
    ),
    Assertion(
        "heap_page",
        "arena.c",
        "heap_trim",
        "((unsigned long) ((char *) p + new_size) & (pagesz - 1)) == 0",
        (2, 23),
        "717 581 635 646 630 630 630 629 631 631 681 623",
    ),
    Assertion(
        "heap_page",
        "arena.c",
        "heap_trim",
        "((unsigned long) ((char *) p + new_size) & (heap->pagesize - 1)) == 0",
        (2, 35),
        "680 680 677 563 574 574 574 558 564 544",
    ),
    Assertion(
        "heap_end",
        "arena.c",
        "heap_trim",
        "((char *) p + new_size) == ((char *) heap + heap->size)",
        (2, 23),
        "718 582 636 647 631 631 631 630 632 632 682 624 682 682 679 565 576 576 576 560 566 546",
    ),
    Assertion(
        "detach",
        "arena.c",
        "detach_arena",
        "replaced_arena->attached_threads > 0",
        (2, 23),
        "763 626 680 691 675 675 675 674 676 676 726 669 727 727 724 610 621 621 621 605 611 591",
    ),
    Assertion(
        "thread_exit",
        "arena.c",
        "arena_thread_freeres",
        "a->attached_threads > 0",
        (2, 23),
        "1031 892 977 988 960",
    ),
    Assertion(
        "thread_exit",
        "arena.c",
        "__malloc_arena_thread_freeres",
        "a->attached_threads > 0",
        (2, 28),
        "960 960 959 961 961 1011 955 1013 1013 1010 896 907 907 907 891 896 871",
    ),
    Assertion(
        "free_list",
        "arena.c",
        "get_free_list",
        "result->attached_threads == 0",
        (2, 25),
        "774 785 769 769 769 768 770 770 820 763 821 821 818 704 715 715 715 699 705 685",
    ),
    Assertion(
        "in_free_list",
        "arena.c",
        "remove_from_free_list",
        "p->attached_threads == 0",
        (2, 25),
        "800 811 795 795 795 794 796 796 846 789 847 847 844 730 741 741 741 725 731 711",
    ),
    Assertion(
        "tcache_put_index",
        "malloc.c",
        "tcache_put",
        "tc_idx < TCACHE_MAX_BINS",
        (2, 26),
        "2952 2929 2913 2931",
    ),
    Assertion(
        "tcache_get_index",
        "malloc.c",
        "tcache_get",
        "tc_idx < TCACHE_MAX_BINS",
        (2, 26),
        "2964 2941 2925 2948",
    ),
    Assertion(
        "tcache_get_entry",
        "malloc.c",
        "tcache_get",
        "tcache->entries[tc_idx] > 0",
        (2, 26),
        "2965 2942 2926 2949",
    ),
)


class Form(NamedTuple):
    """How a failed assertion is printed; the program's name in front is left out."""

    template: str
    since: Version
    until: Version


FORMS: tuple[Form, ...] = (
    Form("{file}:{line}: {function}: Assertion `{expression}' failed.", BEFORE, (2, 36)),
    Form(
        "Fatal glibc error: malloc assertion failure in {function}: {expression}",
        (2, 36),
        (2, 37),
    ),
    Form(
        "Fatal glibc error: {file}:{line} ({function}): assertion failed: {expression}",
        (2, 37),
        NEVER,
    ),
)


def messages_of(version: Version) -> frozenset[str]:
    """Return the messages that a release can print."""
    return frozenset(row.text for row in MESSAGES if row.since <= version < row.until)


def assertion(key: str, version: Version) -> str:
    """Return what a release prints where the assertion named *key* fails.

    :raises KeyError: if the release has no such assertion.
    """
    for row in ASSERTIONS:
        number = version[1] - row.since[1]
        lines = row.lines.split()
        if row.key == key and 0 <= number < len(lines):
            form = next(form for form in FORMS if form.since <= version < form.until)
            return form.template.format(line=lines[number], **row._asdict())
    raise KeyError(key)

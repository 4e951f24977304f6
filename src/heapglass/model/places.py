"""Where malloc's variables stand in the simulated memory, each a word or a struct of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..glibc.layout import Layout

# Variables of libc's .data and .bss beside main_arena and mp_, in words.
VARIABLES = (
    "global_max_fast",
    "narenas",
    "narenas_limit",
    "next_to_use",
    "free_list",
    "aligned_heap_area",
    "perturb_byte",
    "tcache_key",
    "may_shrink_heap",
    "malloc_initialized",
    "malloc_hook",
    "realloc_hook",
    "memalign_hook",
    "single_threaded",
    "check_action",
)
DUMMY_SIZE = 0x340  # bytes of __tcache_dummy, and of nothing else


class TlsOffsets(NamedTuple):
    """Offsets of malloc's thread-local variables from the start of a thread's block."""

    tcache: int
    thread_arena: int
    shutting_down: int
    size: int  # of the block


@dataclass(frozen=True)
class Places:
    """Addresses of malloc's variables in one process."""

    main_arena: int
    mp: int
    variables: Mapping[str, int] = field(hash=False)
    dummy: int  # __tcache_dummy, in read-only memory
    tls: TlsOffsets

    def end(self) -> int:
        """The end of the last variable."""
        return max(self.variables.values()) + 16

    def symbols(self) -> dict[str, int]:
        """Return name to address, as a symbol table would have them."""
        names = {"main_arena": self.main_arena, "mp_": self.mp, "__tcache_dummy": self.dummy}
        return {**names, **self.variables}


def tls_offsets(layout: Layout) -> TlsOffsets:
    """Return where a thread's block has malloc's variables."""
    word = layout.word
    return TlsOffsets(2 * word, 3 * word, 4 * word, 16 * word)


def lay_out(layout: Layout, main_arena: int) -> Places:
    """Place mp_ and the variables below and behind *main_arena*."""
    word = layout.word
    mp = main_arena - 0x120
    behind = (main_arena + layout.state.size + 0x5F) & -0x20
    variables = {name: behind + number * word for number, name in enumerate(VARIABLES)}
    dummy = (main_arena & -0x1000) - 0x2000
    return Places(main_arena, mp, variables, dummy, tls_offsets(layout))

"""Arenas: `struct malloc_state`, and the ring that links them."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import MemoryFault
from ..glibc.layout import Layout
from .words import Words

NONCONTIGUOUS = 2  # bit of flags, all releases
MAX_ARENAS = 1 << 20  # more than any machine has; a ring is also checked for loops


@dataclass(frozen=True)
class Arena:
    """A malloc_state as it stood when read."""

    address: int
    main: bool
    flags: int
    have_fastchunks: bool | None  # None: this release has no such field
    fastbins: tuple[int, ...]  # heads: chunk addresses, 0 for empty; () where there are none
    top: int
    last_remainder: int
    bins: tuple[int, ...]  # 254 words: fd and bk of bin 1, 2, …
    binmap: tuple[int, ...]
    next: int
    next_free: int
    attached_threads: int
    system_mem: int
    max_system_mem: int

    @property
    def contiguous(self) -> bool:
        """Whether sbrk is still expected to extend the top."""
        return not self.flags & NONCONTIGUOUS

    @property
    def initialised(self) -> bool:
        """Whether the arena was ever set up (its bins point somewhere)."""
        return self.top != 0 and self.bins[0] != 0

    def has_top(self, layout: Layout) -> bool:
        """Whether top is a real chunk, not the initial one (the unsorted bin's own address)."""
        return self.top not in (0, layout.bin_at(self.address, 1))


def read_arena(words: Words, address: int, main: bool) -> Arena:
    """Read the malloc_state at *address*, and believe it.

    :raises MemoryFault: if it cannot be read whole.
    """
    fields = words.struct(words.layout.state, address)

    def one(name: str) -> int:
        return fields[name][0]

    fast = fields.get("have_fastchunks")
    return Arena(
        address=address,
        main=main,
        flags=one("flags"),
        have_fastchunks=bool(fast[0]) if fast else None,
        fastbins=fields.get("fastbinsY", ()),
        top=one("top"),
        last_remainder=one("last_remainder"),
        bins=fields["bins"],
        binmap=fields["binmap"],
        next=one("next"),
        next_free=one("next_free"),
        attached_threads=one("attached_threads"),
        system_mem=one("system_mem"),
        max_system_mem=one("max_system_mem"),
    )


def read_ring(words: Words, main_arena: int, problems: list[str]) -> list[Arena]:
    """Read every arena, in the order of the ring: main_arena, then the newest first.

    A ring that does not close is said in *problems*; the arenas before the break are returned.

    :raises MemoryFault: if main_arena itself cannot be read.
    """
    arenas = [read_arena(words, main_arena, main=True)]
    seen = {main_arena}
    while arenas[-1].next != main_arena and len(arenas) < MAX_ARENAS:
        here, address = arenas[-1].address, arenas[-1].next
        if address in seen:
            problems.append(f"arena {here:#x}: next goes back to {address:#x}, not to main_arena")
            break
        reason = why_no_arena(words, address)
        if reason:
            problems.append(f"arena {here:#x}: next is {address:#x}, which is no arena: {reason}")
            break
        arenas.append(read_arena(words, address, main=False))
        seen.add(address)
    return arenas


def why_no_arena(words: Words, address: int) -> str:
    """Return why *address* cannot be the malloc_state of a thread's arena; empty if it can be."""
    layout = words.layout
    info = layout.structs["heap_info"]
    if address % layout.word or address <= info.size:
        return "not aligned" if address % layout.word else "not in a heap"
    try:
        ar_ptr = words.word(address - info.size + info.offset("ar_ptr"))
        arena = read_arena(words, address, main=False)
    except MemoryFault as fault:
        return str(fault)
    if ar_ptr != address:
        return f"the heap_info before it has ar_ptr {ar_ptr:#x}"
    if arena.system_mem > arena.max_system_mem:
        return "system_mem is above max_system_mem"
    return ""

"""A candidate is believed when the allocator's invariants hold there. Each check has a name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..errors import MemoryFault
from ..glibc.layout import SIZE_BITS, Layout
from ..heap.arena import Arena, read_arena, read_ring
from ..heap.words import Words
from ..memory import Memory

CLOSES = "closes"
MOST_BROKEN_BINS = 32  # of 127: a heap may be corrupt, a struct at a wrong place has none right


class Verdict(NamedTuple):
    """The checks that a candidate passed, and the first one that it did not."""

    passed: tuple[str, ...]
    failed: str = ""

    @property
    def good(self) -> bool:
        """Whether nothing speaks against the candidate."""
        return not self.failed


def verify_arena(memory: Memory, layout: Layout, address: int, ring: bool = True) -> Verdict:
    """Tell whether a main_arena of this layout can stand at *address*.

    *ring* False: also where `next` was overwritten, and leads to no arena.
    """
    words = Words(memory, layout)
    try:
        arena = read_arena(words, address, main=True)
    except MemoryFault as fault:
        return Verdict((), str(fault))
    passed: list[str] = []
    for check in (_flags, _bins, _memory_totals, _threads):
        said = check(layout, arena)
        if not said.good:
            return Verdict(tuple(passed), said.failed)
        passed += said.passed
    problems: list[str] = []
    arenas = read_ring(words, address, problems)
    if problems and len(arenas) == 1:
        if ring:
            return Verdict(tuple(passed), problems[0])
    else:
        passed.append(
            f"the ring of {len(arenas)} arenas {CLOSES}" if not problems else "has a ring"
        )
    return Verdict(tuple(passed))


def closes(checks: Iterable[str]) -> bool:
    """Whether the ring of arenas came back to the one that has passed these checks."""
    return any(check.endswith(CLOSES) for check in checks)


def _flags(layout: Layout, arena: Arena) -> Verdict:
    known = 7 if layout.has("no_fastchunks_bit") else 2
    if arena.flags & ~known:
        return Verdict((), f"flags are {arena.flags:#x}, which no arena has")
    return Verdict(("flags has known bits only",))


def _bins(layout: Layout, arena: Arena) -> Verdict:
    """Empty bins point to themselves, others away from the arena; fd and bk agree on which."""
    if not any(arena.bins):
        if arena.next == arena.address and arena.attached_threads == 1:
            return Verdict(("not used yet: bins are zero, next is itself",))
        return Verdict((), "the bins are zero, and yet it is not an unused arena")
    empty, broken = count_bins(layout, arena)
    if broken > MOST_BROKEN_BINS or not empty:
        return Verdict((), f"{broken} of 127 bins make no sense, {empty} are empty")
    return Verdict((f"{empty} empty bins point to themselves, {broken} are broken",))


def count_bins(layout: Layout, arena: Arena) -> tuple[int, int]:
    """Return how many bins point to themselves, and in how many fd and bk make no sense."""
    empty = broken = 0
    for index in range(1, len(arena.bins) // 2 + 1):
        fd, bk = arena.bins[2 * index - 2], arena.bins[2 * index - 1]
        own = layout.bin_at(arena.address, index)
        empty += fd == own and bk == own
        broken += (fd == own) != (bk == own) or not fd or not bk
    return empty, broken


def _memory_totals(layout: Layout, arena: Arena) -> Verdict:
    """Neither is half of all there is; sysmalloc adds to the first before it raises the second."""
    if max(arena.system_mem, arena.max_system_mem) > layout.max_address >> 1:
        return Verdict(
            (), f"system_mem is {arena.system_mem:#x}, its most {arena.max_system_mem:#x}"
        )
    if arena.system_mem > arena.max_system_mem:
        return Verdict(("system_mem is plausible, but above max_system_mem",))
    return Verdict(("system_mem is not above max_system_mem",))


def _threads(_layout: Layout, arena: Arena) -> Verdict:
    if arena.attached_threads > 1 << 22:
        return Verdict((), f"attached_threads is {arena.attached_threads}")
    return Verdict((f"attached_threads is {arena.attached_threads}",))


def verify_mp(memory: Memory, layout: Layout, address: int, initialised: bool) -> Verdict:
    """Tell whether an mp_ of this layout can stand at *address*."""
    try:
        read = Words(memory, layout).struct(layout.structs["malloc_par"], address)
    except MemoryFault as fault:
        return Verdict((), str(fault))
    mp = {name: values[0] for name, values in read.items()}
    claims = (
        ("n_mmaps is not above max_n_mmaps", mp["n_mmaps"] <= mp["max_n_mmaps"]),
        ("mmapped_mem is not above max_mmapped_mem", mp["mmapped_mem"] <= mp["max_mmapped_mem"]),
        ("no_dyn_threshold is a flag", mp["no_dyn_threshold"] in (0, 1)),
        ("arena_test is small", mp["arena_test"] <= 1 << 20),
        ("tcache_count is small", mp.get("tcache_count", 0) <= 0xFFFF or not initialised),
        (
            "n_mmaps and mmapped_mem are both zero or both not",
            bool(mp["n_mmaps"]) <= bool(mp["mmapped_mem"]),
        ),
    )
    return _judge(claims)


def _judge(claims: Iterable[tuple[str, bool]]) -> Verdict:
    passed: list[str] = []
    for name, holds in claims:
        if not holds:
            return Verdict(tuple(passed), f"it does not hold that {name}")
        passed.append(name)
    return Verdict(tuple(passed))


def verify_tcache(memory: Memory, layout: Layout, address: int) -> Verdict:
    """Tell whether a tcache struct in a chunk of its own can stand at *address* (a mem)."""
    if not layout.has("tcache"):
        return Verdict((), f"glibc {layout.release} has no tcache")
    if not address or address % layout.alignment:
        return Verdict((), f"{address:#x} is not aligned")
    words = Words(memory, layout)
    try:
        size = words.word(address - layout.word) & ~SIZE_BITS
        entries = words.struct(layout.tcache, address)["entries"]
    except MemoryFault as fault:
        return Verdict((), str(fault))
    smallest = layout.request2size(layout.tcache.size)
    if not smallest <= size <= smallest + 2 * layout.alignment:
        return Verdict((), f"its chunk has size {size:#x}, expected {smallest:#x}")
    askew = sum(bool(entry % layout.alignment) for entry in entries)
    if askew > len(entries) // 4:
        return Verdict((f"chunk size {size:#x}",), f"{askew} of its entries are not aligned")
    return Verdict((f"chunk size {size:#x}", f"{len(entries) - askew} entries are aligned"))


def tcache_shape(words: Words, address: int, count: int | None) -> Verdict:
    """Tell whether a block has the counters and heads of a tcache: for one found by its size.

    A head is null where the counter says that the bin is empty, else a mem whose chunk has the
    bin's size. *count*: mp_.tcache_count, from which 2.42 and later count down.
    """
    layout = words.layout
    said = verify_tcache(words.memory, layout, address)
    if not said.good:
        return said
    fields = words.struct(layout.tcache, address)
    counts = fields.get("counts")
    if counts is None:
        most = layout.constants["TCACHE_FILL_COUNT"] if count is None else count
        counts = tuple(most - slots for slots in fields["num_slots"])
    for index, (head, number) in enumerate(zip(fields["entries"], counts)):
        if bool(head) != bool(number) or number < 0:
            return Verdict(said.passed, f"bin {index}: counter {number}, head {head:#x}")
        if head and not _heads(words, index, head):
            return Verdict(said.passed, f"bin {index}: no chunk of its size at {head:#x}")
    return Verdict((*said.passed, "each counter agrees with its head"))


def _heads(words: Words, index: int, head: int) -> bool:
    sizes = words.layout.tcache_range(index)
    if sizes is None or head % words.layout.alignment:
        return False
    try:
        size = words.word(head - words.size) & ~SIZE_BITS
    except MemoryFault:
        return False
    return sizes[0] <= size <= sizes[1]

"""What one call of the model changes, from the words that it wrote: chunks, bins, tops, mappings.

Only the lists that a written word belongs to are read again, so that a call costs what it touches.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import MemoryFault
from ..glibc.layout import SIZE_BITS, Layout
from ..heap.heap import Heap
from ..heap.lists import FreeList, read_bin, read_fast
from ..heap.tcache import read_tcache_bin
from ..heap.words import Words
from ..model.allocator import Thread
from ..model.overlay import Overlay

IS_MMAPPED = 2
NAMES = ("global_max_fast", "narenas", "perturb_byte")
Key = tuple[str, int, int]  # kind; the arena, or the thread's tcache; index


class Seen(NamedTuple):
    """A chunk at one time."""

    size: int
    state: str  # used, mmapped, top, free, tcache or fast
    bin: str | None
    thread: int | None = None  # whose tcache it is in


class Change(NamedTuple):
    """A chunk before and after a call; None: there was, or is, no chunk there.

    *other* is the chunk that it was cut from or went into.
    """

    address: int
    before: Seen | None
    after: Seen | None
    other: int | None


class Setting(NamedTuple):
    """A variable or a field of mp_ that got another value."""

    name: str
    before: int
    after: int


@dataclass
class Effects:
    """All that a call did, beside its result."""

    chunks: list[Change] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    arenas: list[int] = field(default_factory=list)  # new ones
    brk: tuple[int, int] | None = None  # where the break was, and is
    mapped: list[tuple[int, int]] = field(default_factory=list)
    unmapped: list[tuple[int, int]] = field(default_factory=list)


class Watcher:
    """Knows every list of the heap, and tells after a call what it did."""

    def __init__(self, heap: Heap, overlay: Overlay, threads: dict[int, Thread]) -> None:
        self._layout, self._overlay, self._threads = heap.layout, overlay, threads
        self._machine = overlay.machine
        self._words = Words(overlay.memory, heap.layout)
        self._lists: dict[Key, FreeList] = {}
        self._heads: dict[int, Key] = {}
        self._in: dict[int, Key] = {}
        self._arenas: list[int] = []
        self._caches: dict[int, int] = {}  # by thread
        for found in heap.lists:
            owner = found.arena
            if owner is None:
                owner = next(t.tcache or 0 for t in heap.target.threads if t.id == found.thread)
            self._know((found.kind, owner, found.index), found)
        for av in self._machine.arenas():
            self._add_arena(av)
        for number in threads:
            self._add_tcache(number)

    # --- the lists ----------------------------------------------------------------------------

    def _know(self, key: Key, found: FreeList) -> None:
        self._lists[key] = found
        for chunk in found.chunks:
            self._in.setdefault(chunk, key)

    def _add_arena(self, av: int) -> None:
        self._arenas.append(av)
        machine, word = self._machine, self._layout.word
        for index in range(1, 128):
            at = machine.bin_at(av, index) + 2 * word
            key = "unsorted" if index == 1 else "small" if index < 64 else "large", av, index
            self._heads[at] = self._heads[at + word] = key
        for index in range(machine.nfastbins):
            self._heads[machine.o_fast + av + index * word] = "fast", av, index

    def _add_tcache(self, number: int) -> None:
        """Learn where a thread's tcache has its bins; the scratch one of the model has them too."""
        tcache = self.tcache_of(number)
        if self._caches.get(number) == tcache or not tcache:
            return
        self._caches[number] = tcache
        struct, word = self._layout.tcache, self._layout.word
        for index in range(struct.fields["entries"].length):
            self._heads[tcache + struct.offset("entries") + index * word] = "tcache", tcache, index

    def tcache_of(self, number: int) -> int:
        """Return the tcache that a thread has now, 0 for none."""
        machine = self._machine
        if not machine.has("tcache"):
            return 0
        tcache = machine.load(self._threads[number].tls + machine.places.tls.tcache)
        dummy = machine.places.dummy if machine.has("tcache_dummy") else 0
        return 0 if tcache in (dummy, dummy + machine.SZ) else tcache

    def _read(self, key: Key) -> FreeList:
        """Read a list; empty if it cannot be."""
        try:
            return self._follow(*key) or FreeList(key[0], key[2], None, None)
        except MemoryFault:
            return FreeList(key[0], key[2], None, None)

    def _follow(self, kind: str, owner: int, index: int) -> FreeList | None:
        words, word = self._words, self._layout.word
        if kind == "tcache":
            at = owner + self._layout.tcache.offset("entries") + index * word
            thread = next(n for n, cache in self._caches.items() if cache == owner)
            return read_tcache_bin(words, thread, index, words.word(at), None)
        if kind == "fast":
            head = words.word(owner + self._machine.o_fast + index * word)
            return read_fast(words, owner, index, head)
        return read_bin(
            words, owner, index, words.words(self._machine.bin_at(owner, index) + 2 * word, 2)
        )

    # --- before and after a call --------------------------------------------------------------

    def begin(self, chunk: int | None) -> Effects:
        """Look before a call; *chunk* is the one that it is about. Nothing has changed yet."""
        machine = self._machine
        machine.space.watch()
        self._tops = {av: machine.load(av + machine.o_top) for av in self._arenas}
        self._brk, self._maps = machine.kernel.brk, _ranges(self._overlay)
        asked = set() if chunk is None else {chunk}
        self._asked = {c: seen for c in asked if (seen := self._now(c)) is not None}
        tops = {top for av, top in self._tops.items() if top != machine.bin_at(av, 1)}
        self._was = {**self._asked, **self._seen(tops)}
        return Effects()

    def end(self, thread: int, given: int | None, returned: bool) -> Effects:
        """Tell what a call by a thread did; *given* is the chunk that it returned, if it did."""
        machine, effects = self._machine, Effects()
        effects.arenas = [av for av in machine.arenas() if av not in self._tops]
        for av in effects.arenas:
            self._add_arena(av)
        cache = self._caches.get(thread)
        self._add_tcache(thread)
        alive = set(self._asked) if returned else set()
        alive |= set() if given is None else {given}
        if self._caches.get(thread) != cache:
            alive.add(self._caches[thread] - self._layout.header)
        alive |= {top for av in self._arenas if (top := self._top(av)) is not None}
        changed = list(machine.space.changed())
        new = {key: self._read(key) for key in self._keys(changed)}
        moved = {c for at in changed if (c := at - machine.SZ) in self._in}
        for key, found in new.items():
            old = set(self._lists[key].chunks) if key in self._lists else set()
            moved |= old.symmetric_difference(found.chunks)
        before = self._before(moved)
        for chunk in self._asked.keys() - alive - moved:
            del before[chunk]  # malloc gave up on it
        self._take(new, self._caches.get(thread))
        alive |= {chunk for chunk in moved if chunk in self._in}
        effects.chunks = list(_compared(before, self._seen({*alive, *moved}), alive))
        effects.settings = list(self._settings(changed))
        self._of_kernel(effects)
        return effects

    def _keys(self, changed: Iterable[int]) -> set[Key]:
        """Return the lists that changed words belong to: by their heads, or links of chunks."""
        word, heads, listed = self._layout.word, self._heads, self._in
        forward, back = 2 * word, 3 * word
        keys = {heads[at] for at in changed if at in heads}
        keys.update(listed[at - forward] for at in changed if at - forward in listed)
        keys.update(listed[at - back] for at in changed if at - back in listed)
        return keys

    def _take(self, new: dict[Key, FreeList], own: int | None) -> None:
        """Put lists in the places of the old ones; a chunk in two of them is in the *own* cache."""
        for key in new:
            for chunk in self._lists[key].chunks if key in self._lists else ():
                if self._in.get(chunk) == key:
                    del self._in[chunk]
        for key, found in sorted(new.items(), key=lambda item: (item[0][1] == own, item[0])):
            self._lists[key] = found
            self._in.update(dict.fromkeys(found.chunks, key))

    # --- chunks -------------------------------------------------------------------------------

    def _top(self, av: int) -> int | None:
        top = self._machine.load(av + self._machine.o_top)
        return None if top == self._machine.bin_at(av, 1) else top

    def _now(self, chunk: int) -> Seen | None:
        """Return a chunk as it is now, None if it cannot be read."""
        try:
            word = self._machine.load(chunk + self._machine.SZ)
        except MemoryFault:
            return None
        key = self._in.get(chunk)
        if key is not None:
            return self._listed(word, key)
        if any(self._top(av) == chunk for av in self._arenas):
            return Seen(word & ~SIZE_BITS, "top", None)
        return Seen(word & ~SIZE_BITS, "mmapped" if word & IS_MMAPPED else "used", None)

    def _listed(self, word: int, key: Key) -> Seen:
        state = key[0] if key[0] in ("tcache", "fast") else "free"
        thread = next((n for n, cache in self._caches.items() if cache == key[1]), None)
        return Seen(word & ~SIZE_BITS, state, self._lists[key].label, thread)

    def _seen(self, chunks: Iterable[int]) -> dict[int, Seen]:
        return {chunk: seen for chunk in chunks if (seen := self._now(chunk)) is not None}

    def _before(self, chunks: Iterable[int]) -> dict[int, Seen]:
        """Return the chunks of which it is known what they were, by the lists that are still so."""
        before = dict(self._was)
        for chunk in chunks:
            word = self._machine.space.earlier(chunk + self._machine.SZ)
            if chunk in self._in and word is not None:
                before[chunk] = self._listed(word, self._in[chunk])
        return before

    # --- the rest -----------------------------------------------------------------------------

    def _settings(self, changed: Iterable[int]) -> Iterator[Setting]:
        """Yield the fields of mp_ and the variables that got another value."""
        machine, layout = self._machine, self._layout
        struct, places = layout.structs["malloc_par"], []
        for name, one in struct.fields.items():
            places.append((f"mp_.{name}", machine.places.mp + one.offset))
        places += [(name, machine.at[name]) for name in NAMES]
        words = {at & -layout.word for at in changed}
        for name, at in places:
            if at & -layout.word in words:
                before = machine.space.earlier(at & -layout.word)
                after = machine.load(at & -layout.word)
                width = self._width(name)
                pair = [_part(v, at % layout.word, width, layout) for v in (before or 0, after)]
                if pair[0] != pair[1]:
                    yield Setting(name, *pair)

    def _width(self, name: str) -> int:
        if name.startswith("mp_."):
            return self._layout.structs["malloc_par"].fields[name[4:]].size
        if name == "perturb_byte":
            return 4
        return (
            1
            if name == "global_max_fast" and self._machine.has("max_fast_byte")
            else self._layout.word
        )

    def _of_kernel(self, effects: Effects) -> None:
        brk, maps = self._machine.kernel.brk, _ranges(self._overlay)
        if brk != self._brk:
            effects.brk = self._brk, brk
        low, high = sorted((self._brk, brk))
        low, high = low & -0x1000, high + 0xFFF & -0x1000
        for mine, other, found in (
            (maps, self._maps, effects.mapped),
            (self._maps, maps, effects.unmapped),
        ):
            found += [r for r in _without(mine, other) if not (low <= r[0] and r[1] <= high)]


def _part(value: int, offset: int, width: int, layout: Layout) -> int:
    """Return *width* bytes of a word, *offset* bytes behind its start."""
    data = value.to_bytes(layout.word, layout.order)  # type: ignore[arg-type]
    return int.from_bytes(data[offset : offset + width], layout.order)  # type: ignore[arg-type]


def _compared(before: dict[int, Seen], after: dict[int, Seen], alive: set[int]) -> Iterator[Change]:
    """Yield the chunks that differ; a chunk that lies in one that is *alive* is there no more."""
    whole = {chunk: seen for chunk, seen in after.items() if chunk in alive}
    holders, owners = _Holders(whole), _Holders(before)
    for chunk in sorted({*before, *after}):
        was, now = before.get(chunk), after.get(chunk)
        into = holders.of(chunk)
        if into is not None:
            now = None
        if was == now:
            continue
        other = into if now is None else owners.of(chunk) if was is None else None
        yield Change(chunk, was, now, other)


class _Holders:
    """Finds the chunk that another one lies in. One that lies in another holds nothing itself."""

    def __init__(self, chunks: dict[int, Seen]) -> None:
        self._chunks = chunks
        self._order: list[int] = []
        end = 0
        for chunk in sorted(chunks):
            if chunk >= end:
                self._order.append(chunk)
                end = chunk + chunks[chunk].size

    def of(self, address: int) -> int | None:
        """Return the chunk that an address is inside of, not at its start."""
        number = bisect_left(self._order, address) - 1
        if number < 0:
            return None
        chunk = self._order[number]
        return chunk if address < chunk + self._chunks[chunk].size else None


def _ranges(overlay: Overlay) -> list[tuple[int, int]]:
    """Return what is mapped and can be written, those that touch as one."""
    found: list[tuple[int, int]] = []
    for one in overlay.memory.mappings():
        if "w" not in one.perms:
            continue
        if found and found[-1][1] == one.start:
            found[-1] = found[-1][0], one.end
        else:
            found.append((one.start, one.end))
    return found


def _without(
    ranges: Iterable[tuple[int, int]], other: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield the parts of *ranges* that *other* has not; both ascending."""
    starts = [start for start, _ in other]
    for start, end in ranges:
        here = start
        for low, high in other[max(bisect_left(starts, start) - 1, 0) :]:
            if low >= end:
                break
            if here < low:
                yield here, low
            here = max(here, min(high, end))
        if here < end:
            yield here, end

"""The offsets of `tcache` and `thread_arena` in libc's TLS block, by what stands there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import MemoryFault
from ..heap.words import Words
from .libraries import Library
from .tls import tls_blocks
from .verify import verify_tcache

DEFAULT_SIZE = 0x200  # bytes of a block that are looked at where its size is not known
NEAR = 0x2000  # bytes around a block in which a thread's own structs are
MOST_SIZE = 0x4000  # a static program has its own variables in the same block


class Found(NamedTuple):
    """Where the two variables are in the blocks of one module."""

    blocks: Mapping[int, int] = {}  # of that module, by thread
    arena: int | None = None  # offset of thread_arena
    tcache: int | None = None  # offset of tcache; None: no thread has one, or not known
    tcache_known: bool = False
    dummy: int = 0  # address of __tcache_dummy, 0 if it was not seen
    why: str = ""  # what was ambiguous or missing


class _Fit(NamedTuple):
    """What one TLS module offers."""

    blocks: Mapping[int, int]
    rows: Mapping[int, tuple[int, ...]]  # words of each thread's block
    arenas: Sequence[int]  # word numbers that can be thread_arena
    score: int  # threads that have an arena there


def scan_blocks(
    words: Words,
    pointers: Mapping[int, int],
    arenas: set[int],
    library: Library | None,
    dummy: int = 0,
) -> Found:
    """Find the offsets in the TLS blocks of the threads (*pointers*: thread pointer by id).

    *dummy* is where a symbol says that __tcache_dummy is, 0 if none does.
    """
    tls = library.of_kind("tls") if library else []
    size = min(tls[0].end - tls[0].start, MOST_SIZE) if tls else DEFAULT_SIZE
    fits = list(_fits(words, pointers, arenas, size // words.size))
    best = max(fits, key=lambda fit: fit.score, default=None)
    if best is None or not best.score:
        return Found(why="no thread has an arena in a TLS block that can be read")
    columns = {tuple(row[number] for row in best.rows.values()) for number in best.arenas}
    if len(columns) > 1:
        return Found(why=f"{len(best.arenas)} words of the TLS block can be thread_arena")
    image = tls[0].start if tls else None
    found = _tcache(words, best, image, _Kinds(words, library, arenas, dummy))
    return found._replace(blocks=best.blocks, arena=best.arenas[0] * words.size)


def _fits(words: Words, pointers: Mapping[int, int], arenas: set[int], count: int) -> list[_Fit]:
    blocks: dict[int, dict[int, int]] = {}
    for thread, tp in pointers.items():
        for module, block in tls_blocks(words, tp):
            blocks.setdefault(module, {})[thread] = block
    return [_fit(words, of_module, arenas, count) for of_module in blocks.values()]


def _fit(words: Words, blocks: Mapping[int, int], arenas: set[int], count: int) -> _Fit:
    rows = {}
    for thread, block in blocks.items():
        try:
            rows[thread] = words.words(block, count)
        except MemoryFault:
            continue
    possible = {0, *arenas}
    columns = list(zip(*rows.values()))
    good = [n for n, column in enumerate(columns) if any(column) and possible.issuperset(column)]
    used = [sum(map(bool, columns[n])) for n in good]
    best = max(used, default=0)
    chosen = [n for n, number in zip(good, used) if number == best]
    return _Fit(blocks, rows, chosen, best)


def _tcache(words: Words, fit: _Fit, image: int | None, kinds: _Kinds) -> Found:
    """Find the word that is the tcache of every thread that has one."""
    if not words.layout.has("tcache"):
        return Found()
    active: dict[int, int] = {}
    for number, column in enumerate(zip(*fit.rows.values())):
        if number in fit.arenas:
            continue
        caches = sum(kinds.active(value) for value in column)
        others = (v for v in column if not kinds.active(v))
        if caches and all(kinds.idle(value) for value in others):
            active[number] = caches
    best = [n for n in active if active[n] == max(active.values())]
    if len(best) > 1:
        return Found(why=f"{len(best)} words of the TLS block can be tcache")
    if not words.layout.has("tcache_dummy"):
        return _plain(words, fit, best, kinds)
    return _with_dummy(words, fit, best, kinds, image)


def _plain(words: Words, fit: _Fit, best: Sequence[int], kinds: _Kinds) -> Found:
    if best:
        return Found(tcache=best[0] * words.size, tcache_known=True)
    near = [(block - NEAR, block + NEAR) for block in fit.blocks.values()]  # struct pthread
    suspicious = {
        value
        for row in fit.rows.values()
        for value in row
        if kinds.in_a_heap(value) and not any(low <= value < high for low, high in near)
    }
    if suspicious:
        return Found(why=f"{min(suspicious):#x} is in a TLS block, and is no sound tcache")
    return Found(tcache_known=True)  # no word of the block can be one: nobody has a tcache


def _with_dummy(
    words: Words, fit: _Fit, best: Sequence[int], kinds: _Kinds, image: int | None
) -> Found:
    """Since 2.43 the variable starts as the address of a constant of zeros, in .tdata."""
    numbers = best or [
        number
        for number, column in enumerate(zip(*fit.rows.values()))
        if all(kinds.dummy(value) for value in column)
    ]
    if len(numbers) != 1:
        return Found(why=f"{len(numbers)} words of the TLS block can be tcache")
    seen = {row[numbers[0]] for row in fit.rows.values() if kinds.dummy(row[numbers[0]])}
    if image is not None:
        try:
            initial = words.word(image + numbers[0] * words.size)
        except MemoryFault:
            initial = 0
        seen |= {initial} if kinds.dummy(initial) else set()
    return Found(
        tcache=numbers[0] * words.size,
        tcache_known=True,
        dummy=min(seen, default=0),
    )


class _Kinds:
    """What a word of a TLS block can be."""

    def __init__(self, words: Words, library: Library | None, arenas: set[int], dummy: int) -> None:
        self._words = words
        self._dummy = dummy
        self._arenas = arenas
        self._library = library
        self._path = library.path if library else None
        self._regions = [r for r in words.memory.regions() if r.end > r.start]
        self._starts = [region.start for region in self._regions]
        self._active: dict[int, bool] = {}

    def active(self, value: int) -> bool:
        """Whether it points to a tcache struct."""
        if value not in self._active:
            verdict = verify_tcache(self._words.memory, self._words.layout, value)
            self._active[value] = value % self._words.size == 0 and verdict.good
        return self._active[value]

    def idle(self, value: int) -> bool:
        """Whether it is what a thread without a tcache has there."""
        return self.dummy(value) if self._words.layout.has("tcache_dummy") else not value

    def dummy(self, value: int) -> bool:
        """Whether it points to a tcache of zeros in memory that nobody writes."""
        layout, number = self._words.layout, bisect_right(self._starts, value) - 1
        if self._dummy:
            return self._dummy <= value < self._dummy + layout.tcache.size
        if not value or number < 0 or value % layout.word:
            return False
        region = self._regions[number]
        size = layout.tcache.size - layout.word
        if value + size > region.end or "w" in region.perms:
            return False
        try:
            return not any(self._words.memory.read(value, size))
        except MemoryFault:
            return region.path == self._path  # its constants are not at hand

    def in_a_heap(self, value: int) -> bool:
        """Whether it points to writable memory that no file is behind, and not libc's own."""
        number = bisect_right(self._starts, value) - 1
        if number < 0 or value >= self._regions[number].end or value in self._arenas:
            return False
        region = self._regions[number]
        own = self._library is not None and self._library.holds(value)
        return region.anonymous and "w" in region.perms and not own and not self._in_stack(value)

    def _in_stack(self, value: int) -> bool:
        return self._regions[bisect_right(self._starts, value) - 1].path.startswith("[stack")

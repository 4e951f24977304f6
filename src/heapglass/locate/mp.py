"""`mp_`: by symbol, or by its defaults in the data of the library that has main_arena."""

from __future__ import annotations

from ..errors import MemoryFault
from ..glibc.layout import Layout
from ..heap.arena import read_arena
from ..heap.target import Place, Target
from ..heap.words import Words
from ..source import Source
from .libraries import Library
from .scan import FoundMp, mp_claims, scan_mp
from .shape import Shape
from .verify import verify_mp

MOST_RUNNERS_UP = 3


def find_mp(
    source: Source, target: Target, shape: Shape, library: Library | None, said: int | None
) -> None:
    """Set `target.mp`; *shape* takes the malloc_par that memory shows."""
    if said is not None:
        verdict = verify_mp(target.memory, shape.layout, said, True)
        if not verdict.good:
            target.warnings.append(f"mp_ {said:#x} was given, but {verdict.failed}")
        target.mp = Place(said, "user", "", verdict.passed)
        return
    refused: list[str] = []
    symbols = [s for s in source.symbols("mp_") if not s.tls and s.value]
    own = [s for s in symbols if library and library.owns(s)]
    for symbol in own or symbols:
        layouts = shape.variants("malloc_par")
        verdicts = [verify_mp(target.memory, one, symbol.value, True) for one in layouts]
        verdict = next((one for one in verdicts if one.good), verdicts[0])
        if verdict.good:
            target.mp = Place(symbol.value, symbol.how, symbol.module, verdict.passed)
            _settle(target, shape, symbol.value)
            return
        refused.append(f"the symbol says {symbol.value:#x}, but {verdict.failed}")
    _scan(target, shape, library, refused)


def _settle(target: Target, shape: Shape, address: int) -> None:
    """Let the defaults at a known place say which malloc_par it is."""
    main_heap = _main_heap(target, shape)
    words = Words(target.memory, shape.layout)
    shape.choose(
        "malloc_par",
        "malloc_par",
        lambda layout: len(mp_claims(words, layout, address, main_heap)),
    )


def _main_heap(target: Target, shape: Shape) -> tuple[int, int] | None:
    """Return the addresses among which sbrk_base is; None if the main heap was not begun."""
    assert target.main_arena is not None
    words = Words(target.memory, shape.layout)
    everywhere = (0, shape.layout.max_address)
    try:
        arena = read_arena(words, target.main_arena.address, main=True)
    except MemoryFault:
        return everywhere
    if not arena.has_top(shape.layout):
        return None
    if not arena.contiguous:
        return everywhere
    return (max(0, arena.top - arena.max_system_mem), arena.top)


def _scan(target: Target, shape: Shape, library: Library | None, refused: list[str]) -> None:
    main_heap = _main_heap(target, shape)
    ranges = library.writable if library else ()
    found: dict[Layout, list[FoundMp]] = {}

    def score(layout: Layout) -> int:
        best = scan_mp(target.memory, [layout], ranges, main_heap)
        found[layout] = best
        return len(best[0].claims) if best else 0

    shape.choose("malloc_par", "malloc_par", score)
    best = found.get(shape.layout) or scan_mp(target.memory, [shape.layout], ranges, main_heap)
    first = [one for one in best if len(one.claims) == len(best[0].claims)]
    if len(first) == 1:
        others = [f"{o.address:#x} ({len(o.claims)} claims)" for o in best[1 : 1 + MOST_RUNNERS_UP]]
        where = library.path if library else ""
        target.mp = Place(first[0].address, "scan", where, first[0].claims, tuple(others))
        return
    if first:
        refused.append(f"{len(first)} places look like it, the first is {first[0].address:#x}")
    why = "; ".join(refused) or "no symbol of that name, and nothing in the data looks like it"
    target.missing.append(f"mp_ was not found: {why}")

"""`locate`: from a source of bytes to a `Target`. Every find has a method and its checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..glibc.layout import Layout, backported, layout_for
from ..glibc.releases import releases
from ..heap.target import HeapThread, Place, Target
from ..heap.words import Words
from ..memory import CachedMemory
from ..source import Source, Symbol
from .release import find_release
from .threads import locate_threads
from .verify import Verdict, verify_arena, verify_mp

VARIABLES = (
    "global_max_fast",
    "narenas",
    "perturb_byte",
    "tcache_key",
    "__tcache_dummy",
)


@dataclass(frozen=True)
class Overrides:
    """What the user said: it is taken, and checked all the same."""

    glibc: str | None = None
    main_arena: int | None = None
    mp: int | None = None
    tcaches: Mapping[int, int] = field(default_factory=dict)  # thread id to address


def locate(source: Source, overrides: Overrides | None = None) -> Target:
    """Find the allocator. What was not found is None in the target and said in `missing`.

    :raises NotFound: if the release is not known.
    :raises UnsupportedGlibc: if the tables do not cover the release or the machine.
    """
    said = overrides or Overrides()
    version, how = find_release(source, said.glibc)
    machine = source.machine
    layout = layout_for(version, machine.word, machine.order, abi=machine.abi)
    target = Target(
        memory=source.memory,
        layout=layout,
        main_arena=None,
        mp=None,
        glibc_how=how,
        pid=source.pid,
        kind=source.kind,
        name=source.name,
        warnings=list(source.warnings),
    )
    _find_main_arena(source, said, target)
    _find_mp(source, said, target)
    target.names = dict(_find_variables(source))
    target.threads = _find_threads(source, said, target)
    return target


# --- main_arena ---------------------------------------------------------------------------------


def _find_main_arena(source: Source, said: Overrides, target: Target) -> None:
    """Set main_arena, and the layout that its memory shows."""
    if said.main_arena is not None:
        verdict = _fit(target, said.main_arena)
        if not verdict.good:
            target.warnings.append(
                f"main_arena {said.main_arena:#x} was given, but {verdict.failed}"
            )
        target.main_arena = Place(said.main_arena, "user", "", verdict.passed)
        return
    refused: list[str] = []
    for symbol in _data_symbols(source, "main_arena"):
        verdict = _fit(target, symbol.value)
        if verdict.good:
            target.main_arena = Place(symbol.value, symbol.how, symbol.module, verdict.passed)
            return
        refused.append(f"the symbol says {symbol.value:#x}, but {verdict.failed}")
    why = "; ".join(refused) if refused else "the C library has no symbol of that name at hand"
    target.missing.append(f"main_arena was not found: {why}")


def _fit(target: Target, address: int) -> Verdict:
    """Verify an arena; a distribution may ship another layout under the same release."""
    verdict = verify_arena(target.memory, target.layout, address)
    if verdict.good:
        return verdict
    for layout in _other_layouts(target.layout):
        other = verify_arena(target.memory, layout, address)
        if other.good:
            follows = ", ".join(f"{group} of {v[0]}.{v[1]}" for group, v in layout.as_of)
            target.warnings.append(
                f"main_arena {address:#x} has not the layout of {layout.release}: "
                f"{verdict.failed}. It is read with {follows}"
            )
            target.layout = layout
            return other
    return verdict


def _other_layouts(layout: Layout) -> Iterator[Layout]:
    """Yield this release with known backports, then with each other malloc_state."""
    yield from backported(layout)
    seen = {layout.state}
    for version in releases():
        as_of = (("malloc_state", version), ("heap_info", version))
        other = layout_for(
            layout.version, layout.word, layout.order, layout.alignment, layout.abi, as_of
        )
        if other.state not in seen:
            seen.add(other.state)
            yield other


def _data_symbols(source: Source, name: str) -> list[Symbol]:
    return [symbol for symbol in source.symbols(name) if not symbol.tls and symbol.value]


# --- mp_ and its neighbours ----------------------------------------------------------------------


def _find_mp(source: Source, said: Overrides, target: Target) -> None:
    if said.mp is not None:
        verdict = verify_mp(target.memory, target.layout, said.mp, True)
        if not verdict.good:
            target.warnings.append(f"mp_ {said.mp:#x} was given, but {verdict.failed}")
        target.mp = Place(said.mp, "user", "", verdict.passed)
        return
    refused: list[str] = []
    for symbol in _data_symbols(source, "mp_"):
        verdict = verify_mp(target.memory, target.layout, symbol.value, True)
        if verdict.good:
            target.mp = Place(symbol.value, symbol.how, symbol.module, verdict.passed)
            return
        refused.append(f"the symbol says {symbol.value:#x}, but {verdict.failed}")
    why = "; ".join(refused) if refused else "the C library has no symbol of that name at hand"
    target.missing.append(f"mp_ was not found: {why}")


def _find_variables(source: Source) -> Iterator[tuple[str, Place]]:
    """Yield the variables that have symbols; nothing but the symbol speaks for them."""
    for name in VARIABLES:
        for symbol in _data_symbols(source, name)[:1]:
            yield name, Place(symbol.value, symbol.how, symbol.module)


# --- threads --------------------------------------------------------------------------------------


def _find_threads(source: Source, said: Overrides, target: Target) -> list[HeapThread]:
    cached = CachedMemory(source.memory)
    words = Words(cached, target.layout)
    found = locate_threads(source, words, target, said.tcaches)
    known = {thread.id for thread in found}
    for thread_id in said.tcaches:
        if thread_id not in known:
            target.warnings.append(f"no thread {thread_id} to give a tcache to")
    return found

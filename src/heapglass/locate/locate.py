"""`locate`: from a source of bytes to a `Target`. Every find has a method and its checks.

Symbols are taken where they are at hand, and verified; without them, or where they are refused,
the writable data of the C library is searched for the invariants of `verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..errors import NotFound
from ..glibc.features import IGNORED_TOP_BITS
from ..glibc.layout import Layout, backported, layout_for
from ..glibc.releases import Version, parse_version, releases
from ..heap.arena import read_arena
from ..heap.target import Loaded, Near, Place, Target
from ..heap.words import Words
from ..memory import CachedMemory
from ..source import Module, Source, Symbol
from .heapsearch import search_tcaches
from .libraries import Library, all_memory, banner_of, libraries, musl_of
from .mp import find_mp
from .scan import scan_arenas
from .shape import Shape
from .shapes import settle_lists, settle_ring
from .threads import locate_threads, say_unknown
from .variables import Names, settle_max_fast
from .verify import Verdict, verify_arena

AT_HWCAP2 = 26
HWCAP2_MTE = 1 << 18  # of aarch64
# Of PR_SET_TAGGED_ADDR_CTRL: how faults of tags are told, and which tags may be drawn.
TAGS_ON = 3 << 1 | 0xFFFF << 3
PAGE_SIZES = (0x1000, 0x2000, 0x4000, 0x10000)
MOST_MEMORY = 512 << 20  # bytes that are searched where no file is known
NO_HEAP_HINT = (
    "heapglass reads glibc's malloc; if this is glibc, say where the target's files are with "
    "--sysroot DIR, or give --main-arena ADDR and --glibc VERSION "
    "(in gdb: set heapglass main-arena ADDR, …)"
)


@dataclass(frozen=True)
class Overrides:
    """What the user said: it is taken, and checked all the same."""

    glibc: str | None = None
    main_arena: int | None = None
    mp: int | None = None
    tcaches: Mapping[int, int] = field(default_factory=dict)  # thread id to address


class Hit(NamedTuple):
    """A main_arena that was found, or that a user gave."""

    place: Place
    layout: Layout
    library: Library | None
    version: Version | None  # None: nothing names the release
    version_how: str
    use: int  # 2: memory was given out of it, 1: it was set up, 0: it is untouched, -1: not sound
    grows: bool = True  # by brk, which in a namespace of dlmopen nobody does


def locate(source: Source, overrides: Overrides | None = None) -> Target:
    """Find the allocator. What was not found is None in the target and said in `missing`.

    :raises NotFound: if there is no heap of glibc's malloc in the target.
    :raises UnsupportedGlibc: if the tables do not cover the release or the machine.
    """
    said = _untagged(source, overrides or Overrides())
    finder = _ArenaFinder(source, said)
    hits = finder.hits()
    if not hits:
        return _without_arena(source, finder)
    hit = max(hits, key=lambda one: (one.use, one.grows))
    shape = Shape(hit.layout, hit.version)
    target = _target(source, hit.layout, hit.place, hit.version_how, finder.warnings)
    _say_others(target, hit, hits)
    _say_other_layout(target, hit)
    cached = CachedMemory(source.memory)
    settle_ring(cached, shape, hit.place.address)
    target.layout = shape.layout
    find_mp(source, target, shape, hit.library, said.mp)
    target.layout = shape.layout
    names = Names(source, target, hit.library)
    target.names = names
    target.threads = locate_threads(
        source, Words(cached, shape.layout), target, said.tcaches, hit.library, names.found
    )
    settle_lists(cached, shape, target, source, said.tcaches, hit.library, names.found)
    target.layout = shape.layout
    search_tcaches(target)
    say_unknown(target, target.threads)
    _say_wrong_threads(target, said)
    target.warnings += shape.warnings
    target.files = finder.files
    if hit.version is None:
        settle_max_fast(source, target, shape, hit.library)
        target.layout = shape.layout
        target.glibc_how = f"by structure: {', '.join(shape.evidence)}"
        target.releases = tuple(shape.possible)
    return target


def _target(
    source: Source, layout: Layout, place: Place | None, how: str, warnings: Sequence[str]
) -> Target:
    return Target(
        memory=source.memory,
        layout=layout,
        main_arena=place,
        mp=None,
        glibc_how=how,
        page_size=_page_size(source),
        may_tag=_may_tag(source),
        symbol_at=_near(source),
        addresses_of=_addresses_of(source),
        frame_at=source.frame_at,
        pid=source.pid,
        kind=source.kind,
        name=source.name,
        warnings=[*source.warnings, *warnings],
    )


def _near(source: Source) -> Callable[[int], Near | None]:
    def near(address: int) -> Near | None:
        symbol = source.symbol_at(address)
        if symbol is None:
            return None
        return Near(symbol.name, address - symbol.value, symbol.module)

    return near


def _addresses_of(source: Source) -> Callable[[str], Sequence[int]]:
    def addresses_of(name: str) -> Sequence[int]:
        return [symbol.value for symbol in source.symbols(name) if not symbol.tls]

    return addresses_of


def _page_size(source: Source) -> int:
    """Return AT_PAGESZ, if it is one that Linux has; 4 KiB otherwise."""
    said = source.auxv().get(6, 0)
    return said if said in PAGE_SIZES else PAGE_SIZES[0]


def _may_tag(source: Source) -> bool:
    """Whether malloc may tag memory, by the processor and by what the kernel was asked for.

    Where neither is known, an aarch64 may.
    """
    if source.machine.abi != "aarch64":
        return False
    if not source.auxv().get(AT_HWCAP2, HWCAP2_MTE) & HWCAP2_MTE:
        return False
    asked = [thread.tag_ctl for thread in source.threads() if thread.tag_ctl is not None]
    return not asked or any(value & TAGS_ON for value in asked)


def _untagged(source: Source, said: Overrides) -> Overrides:
    """Return what the user said, without tags that the machine ignores in addresses."""
    ignored = IGNORED_TOP_BITS.get(source.machine.abi)
    if not ignored:
        return said
    mask = (1 << 64 - ignored) - 1
    return replace(
        said,
        main_arena=None if said.main_arena is None else said.main_arena & mask,
        mp=None if said.mp is None else said.mp & mask,
        tcaches={thread: address & mask for thread, address in said.tcaches.items()},
    )


def _without_arena(source: Source, finder: _ArenaFinder) -> Target:
    """Return a target of a known release in which main_arena was not found.

    :raises NotFound: if nothing says that it is glibc at all.
    """
    if finder.version is None:
        musl = musl_of(source)
        why = (
            f"it runs on musl ({musl})"
            if musl
            else (
                "no loaded file has glibc's banner, and no writable memory holds an arena of any "
                "release from 2.23 to 2.44"
            )
        )
        raise NotFound(f"no glibc heap here: {why}", NO_HEAP_HINT)
    machine = source.machine
    layout = layout_for(finder.version, machine.word, machine.order, abi=machine.abi)
    target = _target(source, layout, None, finder.version_how, finder.warnings)
    why = "; ".join(finder.refused) or "no symbol of that name, and no arena in writable memory"
    target.missing.append(f"main_arena was not found: {why}")
    target.missing.append("mp_ was not found: it is looked for beside main_arena")
    target.threads = locate_threads(source, Words(source.memory, layout), target, {}, None, {})
    target.files = finder.files
    return target


def _say_others(target: Target, hit: Hit, hits: Sequence[Hit]) -> None:
    """Name the other arenas that were found; a second one in use is another heap."""
    others = [other for other in hits if other is not hit]
    assert target.main_arena is not None
    target.main_arena = target.main_arena._replace(
        runners_up=tuple(f"{o.place.address:#x} of {o.place.where or 'memory'}" for o in others)
    )
    used = [other for other in others if other.use == 2]
    if used and hit.use == 2 and hit.place.how != "user":
        where = ", ".join(
            f"main_arena {o.place.address:#x} of {o.place.where or 'memory'}" for o in used
        )
        target.warnings.append(
            f"another C library has a heap in this process ({where}); it is read with --main-arena"
        )


def _say_other_layout(target: Target, hit: Hit) -> None:
    layout = hit.layout
    if hit.version is None or not layout.as_of:
        return
    own = layout_for(hit.version, layout.word, layout.order, abi=layout.abi)
    verdict = verify_arena(target.memory, own, hit.place.address)
    follows = ", ".join(f"{group} of {v[0]}.{v[1]}" for group, v in layout.as_of)
    target.warnings.append(
        f"main_arena {hit.place.address:#x} has not the layout of {layout.release}: "
        f"{verdict.failed}. It is read with {follows}"
    )


def _say_wrong_threads(target: Target, said: Overrides) -> None:
    known = {thread.id for thread in target.threads}
    for thread_id in said.tcaches:
        if thread_id not in known:
            target.warnings.append(f"no thread {thread_id} to give a tcache to")


def _loaded(module: Module) -> Loaded:
    return Loaded(module.path, module.build_id, bool(module.file), bool(module.debug_file))


class _ArenaFinder:
    """Looks for main_arena: given by the user, by symbol, in a library's data, in all memory."""

    def __init__(self, source: Source, said: Overrides) -> None:
        self._source = source
        self._said = said
        self._symbols = [s for s in source.symbols("main_arena") if not s.tls and s.value]
        self.refused: list[str] = []
        self.files: tuple[Loaded, ...] = ()
        self.warnings: list[str] = []
        self.version = parse_version(said.glibc) if said.glibc else None
        self.version_how = "user" if said.glibc else ""

    def hits(self) -> list[Hit]:
        """Return every main_arena, those of likelier files first."""
        known = libraries(self._source)
        self.files = tuple(_loaded(one.module) for one in known if one.likely and one.module)
        if self._said.main_arena is not None:
            return [self._given(self._said.main_arena, known)]
        found = [hit for library in known if library.likely for hit in self._of(library)]
        if not any(hit.use > 0 for hit in found):
            found += [hit for library in known if not library.likely for hit in self._of(library)]
        if not found:
            found = self._stray(known)
        if not found and self.version is None:
            found = self._scan(all_memory(self._source, MOST_MEMORY), None, "")
        return found

    def _given(self, address: int, known: Sequence[Library]) -> Hit:
        library = next((one for one in known if one.holds(address)), None)
        version, how = self._version_of(library) if library else (self.version, self.version_how)
        if version is None:  # the file that holds it says nothing: ask the likely ones
            for one in known:
                if one.likely and version is None:
                    version, how = self._version_of(one)
        layouts = self._layouts(version)
        for layout in layouts:
            verdict = verify_arena(self._source.memory, layout, address)
            if verdict.good:
                return self._hit(address, layout, library, (version, how), ("user", verdict))
        verdict = verify_arena(self._source.memory, layouts[0], address)
        self.warnings.append(f"main_arena {address:#x} was given, but {verdict.failed}")
        return Hit(
            Place(address, "user"), layouts[0], library, version or layouts[0].version, how, -1
        )

    def _of(self, library: Library) -> list[Hit]:
        """Return what a library has: its symbols if they are sound, else what its data shows."""
        symbols = [s for s in self._symbols if library.owns(s)]
        version, how = self._version_of(library)
        found: list[Hit] = []
        for symbol in symbols:
            hit = self._by_symbol(symbol, library, (version, how))
            if hit is not None and hit.place.address not in [f.place.address for f in found]:
                found.append(hit)
        return found or self._scan(library, version, how)

    def _stray(self, known: Sequence[Library]) -> list[Hit]:
        """Return what symbols say that belong to no library's writable part."""
        strays = [s for s in self._symbols if not any(one.owns(s) for one in known)]
        named = next((one for one in known if one.likely), None)
        version, how = self._version_of(named) if named else (self.version, self.version_how)
        found = [self._by_symbol(symbol, named, (version, how)) for symbol in strays]
        return [hit for hit in found if hit is not None]

    def _version_of(self, library: Library | None) -> tuple[Version | None, str]:
        if self._said.glibc or library is None:
            return self.version, self.version_how
        banner = banner_of(self._source, library)
        if banner is None:
            return None, ""
        if self.version is None:
            self.version, self.version_how = banner
        return banner

    def _by_symbol(
        self, symbol: Symbol, library: Library | None, release: tuple[Version | None, str]
    ) -> Hit | None:
        layouts = self._layouts(release[0])
        first = Verdict(())
        broken = layouts[:1] if release[0] is not None else []  # `next` may be overwritten
        for layout, ring in [*((one, True) for one in layouts), *((one, False) for one in broken)]:
            verdict = verify_arena(self._source.memory, layout, symbol.value, ring)
            if verdict.good:
                how = symbol.how, verdict
                hit = self._hit(symbol.value, layout, library, release, how)
                return hit._replace(place=hit.place._replace(where=symbol.module))
            first = first if first.failed else verdict
        self.refused.append(f"the symbol says {symbol.value:#x}, but {first.failed}")
        return None

    def _scan(self, library: Library, version: Version | None, how: str) -> list[Hit]:
        memory, layouts = self._source.memory, self._layouts(version)
        found = scan_arenas(memory, layouts, library.writable)
        if not found and version is not None and library.likely:
            found = scan_arenas(memory, layouts[:1], library.writable, ring=False)
        return [
            self._hit(
                one.address, one.layout, library, (version, how), ("scan", Verdict(one.checks))
            )
            for one in found
        ]

    def _hit(
        self,
        address: int,
        layout: Layout,
        library: Library | None,
        release: tuple[Version | None, str],
        found: tuple[str, Verdict],
    ) -> Hit:
        arena = read_arena(Words(self._source.memory, layout), address, main=True)
        use = 2 if arena.system_mem else int(arena.initialised)
        how, verdict = found
        where = library.path if library else ""
        place = Place(address, how, where, verdict.passed)
        return Hit(place, layout, library, *release, use, arena.contiguous)

    def _layouts(self, version: Version | None) -> list[Layout]:
        """Return what an arena may look like, the likeliest first."""
        machine = self._source.machine
        if version is not None:
            own = layout_for(version, machine.word, machine.order, abi=machine.abi)
            return [own, *_other_layouts(own)]
        found: dict[tuple[object, ...], Layout] = {}
        for one in reversed(releases()):
            layout = layout_for(one, machine.word, machine.order, abi=machine.abi)
            key = (layout.state, layout.structs["heap_info"], layout.alignment)
            found.setdefault(key, layout)
        return list(found.values())


def _other_layouts(layout: Layout) -> Iterator[Layout]:
    """Yield this release with known backports, then with each other malloc_state or heap_info."""

    def follows(*as_of: tuple[str, Version]) -> Layout:
        one = layout
        return layout_for(one.version, one.word, one.order, one.alignment, one.abi, as_of)

    seen = [(layout.state, layout.structs["heap_info"])]
    others = [follows((group, v)) for group in ("malloc_state", "heap_info") for v in releases()]
    for other in (*backported(layout), *others):
        key = other.state, other.structs["heap_info"]
        if key not in seen:
            seen.append(key)
            yield other

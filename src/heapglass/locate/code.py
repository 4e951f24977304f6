"""Variables without a shape of their own, by how malloc's machine code uses them (x86 only).

malloc.c is one object, so its code lies together: where main_arena and mp_ are named most. In that
zone every instruction that names an address of the library's data is read: what it does (load,
store, compare, take the address, lock) and how wide. The patterns are those of the source:

- global_max_fast: set to a constant, DEFAULT_MXFAST's size, and compared (ptmalloc_init)
- tcache_key: its address goes to getrandom, and it is loaded to compare (tcache_key_initialize)
- perturb_byte: an int that is loaded and stored, never compared in place (alloc_perturb, mallopt)
- narenas: counted by compare-and-exchange; its value is the number of arenas in the ring (arena.c)

A find must be the only one that fits; else the variable is not known.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..errors import MemoryFault
from ..glibc.layout import Layout
from ..heap.arena import read_ring
from ..heap.target import Place, Target
from ..heap.words import Words
from .libraries import Library

MOST_TEXT = 32 << 20  # bytes of code that are read
ZONE = 0x10000  # bytes that malloc's code takes up, at most
NEAR = 0x400  # bytes between narenas and mp_: both are in malloc.o's .data
TOGETHER = 0x40  # bytes between variables of malloc.o's .bss
LEAST_VOTES = 4  # functions that must agree on the address that they count from
# An instruction's opcode and its ModRM byte: a register and an address.
_OPCODES = rb"[\x38\x39\x3a\x3b\x80\x83\x87\x88\x89\x8a\x8b\x8d\xb1\xb6\xc6\xc7\xff]"
_RIP = re.compile(rb"(?=" + _OPCODES + rb"[\x05\x0d\x15\x1d\x25\x2d\x35\x3d])", re.S)
_BASED = re.compile(
    rb"(?="
    + _OPCODES
    + rb"[\x80-\x83\x85-\x8b\x8d-\x93\x95-\x9b\x9d-\xa3\xa5-\xab\xad-\xb3\xb5-\xbb\xbd-\xbf])",
    re.S,
)
_GET_PC = re.compile(rb"\xe8....(?:\x05|\x81[\xc0-\xc3\xc5-\xc7])", re.S)  # call, add
_MOFFS = re.compile(rb"(?=[\xa1\xa3])", re.S)
_IMMEDIATES = {0x80: 1, 0x83: 1, 0xC6: 1, 0xC7: 4}
_BYTE_WIDE = {0x38, 0x3A, 0x80, 0x88, 0x8A, 0xB6, 0xC6}
_KINDS = {
    **dict.fromkeys((0x8A, 0x8B, 0xB6, 0xA1), "load"),
    **dict.fromkeys((0x88, 0x89, 0xA3), "store"),
    **dict.fromkeys((0x38, 0x39, 0x3A, 0x3B, 0x80, 0x83), "compare"),
    **dict.fromkeys((0xC6, 0xC7), "set"),
    0x8D: "address",
    0xB1: "lock",
    0x87: "swap",
    0xFF: "count",
}


class Use(NamedTuple):
    """An instruction that names an address."""

    at: int  # address of the opcode
    to: int  # the address that is named
    kind: str  # load, store, set, compare, address, lock, swap or count
    width: int  # bytes
    value: int | None  # the constant of "set" and "compare"


def find_by_code(target: Target, library: Library, known: Mapping[str, Place]) -> dict[str, Place]:
    """Return the variables that the code tells; empty where it cannot be read."""
    layout = target.layout
    if layout.abi not in ("x86_64", "i386") or target.main_arena is None or target.mp is None:
        return {}
    wanted = [name for name in _PATTERNS if name not in known and _exists(layout, name)]
    if not wanted:
        return {}
    arena, mp = target.main_arena.address, target.mp.address
    own = (
        (arena, arena + layout.state.size),
        (mp, mp + layout.structs["malloc_par"].size),
    )
    uses = malloc_uses(target, library, own)
    by_address: dict[int, list[Use]] = defaultdict(list)
    for use in uses:
        if not any(start <= use.to < end for start, end in own):
            by_address[use.to].append(use)
    words = Words(target.memory, layout)
    found: dict[str, Place] = {}
    for name in wanted:
        fits = _PATTERNS[name]
        near = [place for other, place in {**found, **known}.items() if other in _IN_BSS]
        fitting = [
            to
            for to, its in by_address.items()
            if fits(words, target, to, its)
            and (name not in _IN_BSS or all(abs(to - p.address) <= TOGETHER for p in near))
        ]
        if len(fitting) == 1:
            number = len(by_address[fitting[0]])
            checks = (f"used by {number} instructions of malloc's code as {name} is",)
            found[name] = Place(fitting[0], "scan", library.path, checks)
    return found


def _exists(layout: Layout, name: str) -> bool:
    needed = {"global_max_fast": "fastbins", "tcache_key": "tcache_key_random"}
    return name not in needed or layout.has(needed[name])


# --- the patterns ---------------------------------------------------------------------------------


def _kinds(uses: Iterable[Use], width: int) -> Counter[str]:
    return Counter(use.kind for use in uses if use.width == width or use.kind == "address")


def _is_max_fast(words: Words, _target: Target, _to: int, uses: list[Use]) -> bool:
    width = 1 if words.layout.has("max_fast_byte") else words.size
    default = words.layout.default_max_fast
    is_set = any(u.kind == "set" and u.width == width and u.value == default for u in uses)
    kinds = _kinds(uses, width)
    return is_set and kinds["compare"] + kinds["load"] > 0 and not kinds["lock"]


def _is_tcache_key(words: Words, target: Target, to: int, uses: list[Use]) -> bool:
    kinds = _kinds(uses, words.size)
    others = kinds["lock"] + kinds["swap"] + kinds["count"] + kinds["compare"]
    cleared = all(use.value == 0 for use in uses if use.kind == "set")  # 2.42: until it is good
    few = kinds["address"] == 1 and kinds["set"] <= 1
    if not few or not cleared or kinds["load"] < 2 or others:
        return False
    try:
        value = words.word(to)
        # next_to_use is used alike, and so is __curbrk
        return value not in (0, *_ring(words, target), *_ends(words))
    except MemoryFault:
        return False


def _ends(words: Words) -> list[int]:
    """Return where mappings end."""
    return [region.end for region in words.memory.regions()]


def _ring(words: Words, target: Target) -> list[int]:
    assert target.main_arena is not None
    return [arena.address for arena in read_ring(words, target.main_arena.address, [])]


def _is_perturb_byte(words: Words, _target: Target, to: int, uses: list[Use]) -> bool:
    kinds = _kinds(uses, 4)
    others = sum(kinds.values()) - kinds["load"] - kinds["store"]
    if kinds["load"] < 3 or not kinds["store"] or others or any(u.width != 4 for u in uses):
        return False
    try:
        return words.numbers(to, 4, 1)[0] <= 0xFF
    except MemoryFault:
        return False


def _is_narenas(words: Words, target: Target, to: int, uses: list[Use]) -> bool:
    kinds = _kinds(uses, words.size)
    assert target.mp is not None
    if not kinds["lock"] or kinds["swap"] or abs(to - target.mp.address) > NEAR:
        return False
    try:
        return words.word(to) == len(_ring(words, target))
    except MemoryFault:
        return False


_PATTERNS = {  # the most particular first: it tells where malloc.o's .bss is
    "global_max_fast": _is_max_fast,
    "perturb_byte": _is_perturb_byte,
    "tcache_key": _is_tcache_key,
    "narenas": _is_narenas,
}
_IN_BSS = ("global_max_fast", "perturb_byte", "tcache_key")


# --- reading code ---------------------------------------------------------------------------------


def malloc_uses(target: Target, library: Library, own: tuple[tuple[int, int], ...]) -> list[Use]:
    """Return the instructions of malloc's code that name the library's data."""
    data = (
        min((start for start, _ in library.writable), default=0),
        max((end for _, end in library.writable), default=0),
    )
    uses: list[Use] = []
    for part in library.of_kind("load"):
        if "x" not in part.perms:
            continue
        end = min(part.end, part.start + MOST_TEXT)
        try:
            text = bytes(target.memory.view(part.start, end))
        except MemoryFault:
            continue
        uses += _uses(target.layout, text, part.start, data)
    return _in_zone(uses, own)


def _in_zone(uses: list[Use], own: tuple[tuple[int, int], ...]) -> list[Use]:
    """Keep what lies among the uses of main_arena and mp_, where those are densest."""
    places = sorted(u.at for u in uses if any(start <= u.to < end for start, end in own))
    best = (0, 0, 0)
    last = 0
    for first, at in enumerate(places):
        while last < len(places) and places[last] < at + ZONE:
            last += 1
        best = max(best, (last - first, at, places[last - 1]))
    _, low, high = best
    return [use for use in uses if low <= use.at <= high]


def _uses(layout: Layout, text: bytes, start: int, data: tuple[int, int]) -> list[Use]:
    if layout.abi == "x86_64":
        return list(_relative(text, start, data))
    found = list(_absolute(text, start, data))
    got = _got(text, start)
    if got:
        found += _based(text, start, got, data)
    return found


# Most matches are no instructions, or name something else: what they would name is looked at first.


def _relative(text: bytes, start: int, data: tuple[int, int]) -> Iterator[Use]:
    """Yield instructions with an address relative to the next one (x86_64)."""
    low, high = data
    for match in _RIP.finditer(text):
        at = match.start()
        opcode, size = text[at], 6 + _IMMEDIATES.get(text[at], 0)
        to = start + at + size + int.from_bytes(text[at + 2 : at + 6], "little", signed=True)
        if not low <= to < high or at + size > len(text) or not _known(text, at):
            continue
        wide = 8 if at and text[at - 1] & 0xF8 == 0x48 and opcode not in (0xB1, 0xB6) else 4
        if opcode == 0xB1 and at > 1 and text[at - 2] & 0xF8 == 0x48:
            wide = 8
        yield _use(text, at, start, to, wide)


def _based(text: bytes, start: int, got: int, data: tuple[int, int]) -> Iterator[Use]:
    """Yield instructions with a register and a 32-bit offset (i386), which counts from *got*."""
    low, high = data
    for match in _BASED.finditer(text):
        at = match.start()
        to = (int.from_bytes(text[at + 2 : at + 6], "little") + got) & 0xFFFFFFFF
        if low <= to < high and _is_whole(text, at) and _known(text, at):
            yield _use(text, at, start, to, 4)


def _absolute(text: bytes, start: int, data: tuple[int, int]) -> Iterator[Use]:
    """Yield instructions with a plain 32-bit address (i386 code that cannot be moved)."""
    low, high = data
    for match in _RIP.finditer(text):
        at = match.start()
        to = int.from_bytes(text[at + 2 : at + 6], "little")
        if low <= to < high and _is_whole(text, at) and _known(text, at):
            yield _use(text, at, start, to, 4)
    for match in _MOFFS.finditer(text):
        at = match.start()
        to = int.from_bytes(text[at + 1 : at + 5], "little")
        if low <= to < high and at + 5 <= len(text):
            yield Use(start + at, to, _KINDS[text[at]], 4, None)


def _is_whole(text: bytes, at: int) -> bool:
    return at + 6 + _IMMEDIATES.get(text[at], 0) <= len(text)


def _known(text: bytes, at: int) -> bool:
    """Whether the opcode is one that is meant: some are only so behind 0x0f."""
    behind = at > 0 and text[at - 1] == 0x0F
    return behind if text[at] in (0xB1, 0xB6) else not behind


def _use(text: bytes, at: int, start: int, to: int, wide: int) -> Use:
    opcode = text[at]
    size = _IMMEDIATES.get(opcode, 0)
    value = int.from_bytes(text[at + 6 : at + 6 + size], "little") if size else None
    return Use(start + at, to, _KINDS[opcode], 1 if opcode in _BYTE_WIDE else wide, value)


def _got(text: bytes, start: int) -> int:
    """Return the address that i386 code counts from, 0 if it does not.

    A function that needs it calls for its own address and adds the distance; most agree.
    """
    votes: Counter[int] = Counter()
    for match in _GET_PC.finditer(text):
        at = match.end()
        if at + 4 <= len(text):
            distance = int.from_bytes(text[at : at + 4], "little")
            votes[(start + match.start() + 5 + distance) & 0xFFFFFFFF] += 1
    (best,) = votes.most_common(1) or [(0, 0)]
    return best[0] if best[1] >= LEAST_VOTES else 0

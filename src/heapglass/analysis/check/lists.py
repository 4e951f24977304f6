"""The rules of the lists: links, sizes, order, rings, counters, keys, and what they lead to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ...glibc import safelink
from ...glibc.layout import SIZE_BITS, UNSORTED
from ...heap.columns import FAST, FREE, TCACHE, USED
from ...heap.lists import FreeList
from ...heap.params import read_variables
from ...heap.tcache import Tcache
from .finding import Finding, Word
from .places import LISTED, Places

MOST = 64  # findings of a kind


def list_findings(places: Places) -> Iterator[Finding]:
    """Yield what is wrong with the lists of all arenas and threads."""
    heap = places.heap
    for arena in heap.arenas:
        for found in heap.bins.get(arena.address, ()):
            if found.kind == "fast":
                yield from _single(places, found, _fast_head(places, found))
            else:
                yield from _double(places, found)
        yield from _binmap(places, arena.address, arena.binmap)
    for cache in heap.tcaches:
        key = tcache_key(places, cache)
        for found in cache.lists:
            yield from _single(places, found, _tcache_head(places, cache, found), key)
        yield from _keys(places, cache, key)
    yield from _twice(places)
    yield from _nowhere(places)


# --- fd and bk ------------------------------------------------------------------------------------


def _double(places: Places, found: FreeList) -> Iterator[Finding]:
    """A bin: links where the reader saw a fault, order and rings of large ones always."""
    if found.fault:
        yield from _links(places, found)
    if found.kind == "large" and found.chunks:
        yield from _order(places, found)
        yield from _ring(places, found)
    wrong = (chunk for chunk in found.chunks if not _right_size(places, found, chunk))
    for _, chunk in zip(range(MOST), wrong if found.fault else ()):
        size = places.size_word(chunk) or 0
        text = f"in {found.label} with size {size & ~SIZE_BITS:#x}"
        yield _made(places, "bin-size", chunk, text, found, (chunk + places.word, size, "size"))


def _right_size(places: Places, found: FreeList, chunk: int) -> bool:
    size = places.size(chunk)
    return size is None or places.row(chunk) is None or (found.holds(size) and size > places.header)


def _made(
    places: Places, rule: str, chunk: int, text: str, found: FreeList, *words: tuple[int, int, str]
) -> Finding:
    arena = found.arena
    if arena is None and (segment := places.segment_of(chunk)) is not None:
        arena = segment.arena
    made = Finding(rule, chunk, text, arena, list_label=found.label)
    made.words = [Word(*word) for word in words]
    return made


def _links(places: Places, found: FreeList) -> Iterator[Finding]:
    """Say where fd and bk of a bin do not lead to each other: one finding for each break."""
    fd, bk = 2 * places.word, 3 * places.word
    head = places.layout.bin_at(found.arena or 0, found.index)
    said: set[int] = set()
    chunks = [chunk for chunk in found.chunks if places.row(chunk) is not None]
    known = {head, *chunks}
    for chunk in (head, *chunks):
        for at, back, name in ((fd, bk, "fd"), (bk, fd, "bk")):
            link = places.load(chunk + at)
            if link is None or places.load(link + back) == chunk:
                continue
            if _missing(places, link):
                continue
            owner, where, text = _wrong(places, known, (chunk, chunk + at, link, name))
            if where in said or len(said) >= MOST:
                continue
            said.add(where)
            if owner == head:
                text = f"{found.label}: {text}"
            finding = _made(places, "link", owner, text, found)
            finding.words = [Word(where, places.load(where) or 0, _name(places, owner, where))]
            finding.is_chunk = owner != head
            yield finding


def _name(places: Places, chunk: int, address: int) -> str:
    return {2: "fd", 3: "bk"}.get((address - chunk) // places.word, "word")


def _wrong(
    places: Places, known: set[int], link: tuple[int, int, int, str]
) -> tuple[int, int, str]:
    """Return whose word is wrong, its address, and what to say: of a link that leads not back.

    *link*: the chunk, where its link stands, the link, its name. The one it leads to is wrong if it
    is a chunk of this list and the chunk that it points back to does not know it.
    """
    chunk, at, to, name = link
    back = (3 if name == "fd" else 2) * places.word
    other = "bk" if name == "fd" else "fd"
    there = places.load(to + back)
    here = f"{name} of {chunk:#x} is {to:#x}"
    if there is None:
        return chunk, at, f"{here}, which cannot be read"
    if to not in known and places.state(to) not in LISTED:
        return chunk, at, f"{here}, which is no chunk of the list"
    forward = (2 if name == "fd" else 3) * places.word
    if places.load(there + forward) == to and there in known:
        return chunk, at, f"{here}, but {other} of that leads to {there:#x}, and back"
    if to not in known:
        return chunk, at, f"{here}, which is in another list"
    return to, to + back, f"{other} of {to:#x} is {there:#x}, not {chunk:#x}"


def _order(places: Places, found: FreeList) -> Iterator[Finding]:
    """A large bin is sorted by size, the largest first."""
    before: int | None = None
    for chunk in found.chunks:
        size = places.size(chunk)
        if size is None:
            continue
        if before is not None and size > before:
            text = f"size {size:#x} stands behind {before:#x} in {found.label}"
            word = (chunk + places.word, size, "size")
            yield _made(places, "bin-order", chunk, text, found, word)
            return
        before = size


def _ring(places: Places, found: FreeList) -> Iterator[Finding]:
    """The first chunk of each size is in the ring of fd_nextsize and bk_nextsize."""
    if found.lost:
        return
    nodes, before = [], None
    for chunk in found.chunks:
        size = places.size(chunk)
        if size != before:
            nodes.append(chunk)
        before = size
    said = 0
    for number, node in enumerate(nodes):
        expected = nodes[(number + 1) % len(nodes)], nodes[number - 1]
        for offset, name, right in (
            (4, "fd_nextsize", expected[0]),
            (5, "bk_nextsize", expected[1]),
        ):
            at = node + offset * places.word
            value = places.load(at)
            if value == right or value is None or said >= MOST:
                continue
            said += 1
            text = f"{name} is {value:#x}, the next size's first chunk is {right:#x}"
            made = _made(places, "nextsize", node, text, found)
            made.words = [Word(at, value, name, f"{right:#x}")]
            yield made


def _binmap(places: Places, arena: int, binmap: tuple[int, ...]) -> Iterator[Finding]:
    for found in places.heap.bins.get(arena, ()):
        if found.kind in ("small", "large") and found.chunks and found.index > UNSORTED:
            number, bit = found.index >> 5, found.index & 31
            if number < len(binmap) and not binmap[number] >> bit & 1:
                at = arena + places.layout.state.offset("binmap") + 4 * number
                text = f"{found.label} holds chunks, but its bit in binmap is clear"
                made = Finding("binmap", arena, text, arena, is_chunk=False)
                made.words = [Word(at, binmap[number], "binmap", f"bit {bit} set")]
                yield made


# --- single links ---------------------------------------------------------------------------------


def _fast_head(places: Places, found: FreeList) -> int:
    offset = places.layout.state.offset("fastbinsY")
    return (found.arena or 0) + offset + found.index * places.word


def _tcache_head(places: Places, cache: Tcache, found: FreeList) -> int:
    offset = places.layout.tcache.offset("entries")
    return (cache.thread.tcache or 0) + offset + found.index * places.word


def _single(
    places: Places, found: FreeList, head: int, key: int | None = None
) -> Iterator[Finding]:
    """A fastbin or a tcache bin: where its links lead, the sizes in it, its counter."""
    rule, name = ("fast-fd", "fd") if found.kind == "fast" else ("tcache-next", "next")
    broken, at = False, head
    for number, chunk in enumerate(found.chunks):
        known = places.row(chunk) is not None or places.heap.find_mmapped(chunk) is not None
        if not known or _is_live(places, found, chunk, key):
            broken = True
            yield _bad_link(places, found, rule, name, number, at, chunk)
            break
        if not _right_size(places, found, chunk) or _in_use(places, chunk):
            size = places.size_word(chunk) or 0
            text = f"in {found.label} with size {size & ~SIZE_BITS:#x}"
            word = (chunk + places.word, size, "size")
            yield _made(places, "bin-size", chunk, text, found, word)
        at = chunk + places.header
    else:
        if found.lost:
            broken = True
            link = _revealed(places, at, bool(found.chunks))
            if _missing(places, link):
                return
            yield _bad_link(places, found, rule, name, len(found.chunks), at, None)
    count = found.stored_count
    if count is not None and count != len(found.chunks) and not broken:
        text = f"the counter of {found.label} says {count}, the list holds {len(found.chunks)}"
        first = found.chunks[0] if found.chunks else head
        made = _made(places, "tcache-count", first, text, found)
        made.is_chunk = bool(found.chunks)
        stored = places.load(at)
        if found.chunks and stored is not None:
            made.address = found.chunks[-1]
            made.words = [Word(at, stored, "next")]
        yield made


def _revealed(places: Places, at: int, inside: bool) -> int:
    """Return the link that stands at an address; the head of a list is not protected."""
    stored = places.load(at) or 0
    safe = places.layout.has("safe_linking") and inside
    return safelink.reveal(at, stored) if safe else stored


def _missing(places: Places, link: int) -> bool:
    """Whether a link leads into a heap, to memory that is missing: that is no damage."""
    return places.load(link) is None and places.segment_of(link) is not None


def _is_live(places: Places, found: FreeList, chunk: int, key: int | None) -> bool:
    """Whether a tcache leads to a chunk that was not freed into it: neither size nor key fit."""
    if key is None or _right_size(places, found, chunk):
        return False
    return places.load(chunk + places.header + places.word) != key


def _in_use(places: Places, chunk: int) -> bool:
    return places.state(chunk) not in (TCACHE, FAST, FREE, None) and places.state(chunk) == USED


def _bad_link(
    places: Places, found: FreeList, rule: str, name: str, number: int, at: int, chunk: int | None
) -> Finding:
    """A link of a single list that leads to what is no chunk; *at* is where it stands."""
    stored, link = places.load(at) or 0, _revealed(places, at, number > 0)
    owner = found.chunks[number - 1] if number else at
    to = f"{link:#x}" if link == stored else f"{stored:#x}, revealed {link:#x}"
    if chunk is not None and places.row(chunk) is not None:
        reason = "a chunk of another size, without the key: it was not freed"
    elif chunk is not None:
        reason = "where no chunk begins"
    else:
        reason = (found.fault or "which makes no sense").split(": ")[-1]
    made = _made(places, rule, owner, f"{name} in {found.label} is {to}: {reason}", found)
    made.words = [Word(at, stored, name if number else "head")]
    made.is_chunk = number > 0
    return made


def _keys(places: Places, cache: Tcache, key: int | None) -> Iterator[Finding]:
    """What is cached has the key behind `next`."""
    if key is None:
        return
    said = 0
    for found in cache.lists:
        for chunk in found.chunks:
            at = chunk + places.header + places.word
            value = places.load(at)
            if value is None or value == key or said >= MOST or places.row(chunk) is None:
                continue
            if not _right_size(places, found, chunk):
                break  # the list has left its chunks
            said += 1
            text = f"cached in {found.label}, but its key is {value:#x}"
            made = _made(places, "tcache-key", chunk, text, found)
            made.words = [Word(at, value, "key", f"{key:#x}")]
            yield made


def tcache_key(places: Places, cache: Tcache) -> int | None:
    """Return the key that this thread's cached chunks have; None if it has none or is not known.

    Without its symbol it is the word that most cached chunks have there, if at least two do.
    """
    layout = places.layout
    if layout.has("tcache_key_struct"):
        return cache.thread.tcache
    if not layout.has("tcache_key_random"):
        return None
    known = read_variables(places.heap.words, places.heap.target).tcache_key
    if known is not None:
        return known
    seen: Counter[int] = Counter()
    for one in places.heap.tcaches:
        for found in one.lists:
            for chunk in found.chunks:
                value = places.load(chunk + places.header + places.word)
                if value is not None:
                    seen[value] += 1
    best = seen.most_common(1)
    return best[0][0] if best and best[0][1] > 1 else None


# --- what is listed -------------------------------------------------------------------------------


def _twice(places: Places) -> Iterator[Finding]:
    """Chunks that two lists have, or one list leads back to."""
    heap = places.heap
    if sum(len(found.chunks) for found in heap.lists) == len(heap.marks):
        for found in heap.lists:
            if found.fault and found.fault.startswith("loop") and found.kind in ("tcache", "fast"):
                yield from _looped(places, found)
        return
    said = 0
    for found in heap.lists:
        for chunk in found.chunks:
            first = heap.marks.get(chunk)
            if first is None or first is found or said >= MOST:
                continue
            said += 1
            text = f"it is in {first.label} and in {found.label}"
            yield _made(places, "twice", chunk, text, found)


def _looped(places: Places, found: FreeList) -> Iterator[Finding]:
    last = found.chunks[-1]
    at = last + places.header
    stored = places.load(at) or 0
    link = safelink.reveal(at, stored) if places.layout.has("safe_linking") else stored
    chunk = link if found.kind == "fast" else link - places.header
    name = "fd" if found.kind == "fast" else "next"
    text = f"it is in {found.label} twice: {name} of {last:#x} leads back to it"
    yield _made(places, "twice", chunk, text, found, (at, stored, name))


def _nowhere(places: Places) -> Iterator[Finding]:
    """Chunks of bins that the walk does not meet."""
    heap = places.heap
    states = sum(
        sum(segment.columns.states.count(state) for state in LISTED) for segment in heap.segments
    )
    if states >= len(heap.marks):
        return
    said = 0
    for chunk, found in heap.marks.items():
        if found.kind in ("tcache", "fast") or said >= MOST:
            continue
        if places.row(chunk) is None and _linked(places, chunk):
            said += 1
            inside = places.holding(chunk)
            text = f"it is in {found.label}, but no chunk begins there"
            if inside is not None:
                outer = inside[0].columns.addresses[inside[1]]
                text += f"; it lies in the chunk {outer:#x}"
            yield _made(places, "listed", chunk, text, found)


def _linked(places: Places, chunk: int) -> bool:
    """Whether a chunk's neighbours in a bin lead back to it, so that it was put there."""
    fd, bk = 2 * places.word, 3 * places.word
    after, before = places.load(chunk + fd), places.load(chunk + bk)
    if after is None or before is None:
        return False
    return places.load(after + bk) == chunk and places.load(before + fd) == chunk

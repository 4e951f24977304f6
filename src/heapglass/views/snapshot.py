"""`snapshot` and `diff`: a heap as it was, and what has changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from ..analysis.diff import KINDS, Diff, compare, growth, totals
from ..analysis.snapfile import is_snapshot, read_snapshot, write_snapshot
from ..analysis.snapshot import Snapshot, take
from ..errors import BadRequest
from ..glibc.layout import SIZE_BITS
from ..heap.columns import STATE_NAMES
from ..heap.heap import Heap
from ..heap.target import Target
from ..table import Absent, Address, Answer, Column, Data, Fact, Facts, Kind, Part, Table, Tag
from .cells import more_rows, row_limit, state_cell, totals_data, totals_text

NOW = "now"  # the heap as it is
TEXT_LIMIT = 50
GROWN = 12  # sizes that text shows
SHOWN = 3  # ranges of bytes of a chunk that text shows

_LIST = (
    Column("name", "snapshot"),
    Column("chunks", "chunks", Kind.COUNT),
    Column("contents", "contents"),
)
_GROWTH = (
    Column("size", "size", Kind.SIZE),
    Column("before", "before", Kind.COUNT),
    Column("after", "after", Kind.COUNT),
    Column("count", "more", Kind.COUNT),
    Column("bytes", "bytes", Kind.COUNT),
)
_CHANGES = (
    Column("kind", "what"),
    Column("address", "chunk", Kind.ADDRESS),
    Column("user", "mem", Kind.ADDRESS, in_text=False),
    Column("size", "size", Kind.SIZE),
    Column("new_size", "new size", Kind.SIZE),
    Column("state", "state"),
    Column("new_state", "new state"),
    Column("bin", "bin", in_text=False),
    Column("new_bin", "new bin", in_text=False),
    Column("ranges", "", Kind.LIST, in_text=False),
    Column("note", "bytes", in_json=False),
)


# --- snapshot -------------------------------------------------------------------------------------


def snapshot(target: Target, request: Any) -> Answer:
    """Keep the heap as it is now, under a name or in a file."""
    kept = target.kept
    if not request.name and not request.o:
        if kept is None:
            raise BadRequest("snapshot needs a file", "-o FILE")
        return Answer("snapshot", [_kept(kept)], [], target.describe())
    if request.name and kept is None:
        raise BadRequest("a snapshot with a name is kept by gdb only", "-o FILE writes one")
    if request.name == NOW:
        raise BadRequest(f"{NOW!r} is the heap as it is", "take another name")
    made = take(Heap(target), _wanted(request))
    facts = [
        Fact("chunks", "chunks", len(made), Kind.COUNT),
        Fact("contents", "contents", _contents(made)),
    ]
    if request.name and kept is not None:
        kept[request.name] = made
        facts.append(Fact("name", "kept as", request.name))
    if request.o:
        size = write_snapshot(request.o, made)
        facts.append(Fact("file", "written", request.o))
        facts.append(Fact("bytes", "size", size, Kind.BYTES))
    warnings = [*target.warnings, *made.problems]
    return Answer("snapshot", [Facts("", facts)], warnings, target.describe())


def _wanted(request: Any) -> bool | None:
    """Whether contents were asked for; None: it was not said."""
    if request.contents is None:
        return None
    return bool(request.contents == "full")


def _contents(one: Snapshot) -> str:
    return "whole" if one.memory is not None else "checksums"


def _kept(kept: dict[str, Any]) -> Table:
    rows = [(name, len(one), _contents(one)) for name, one in sorted(kept.items())]
    return Table("snapshots", _LIST, rows, empty="none was taken")


# --- diff -----------------------------------------------------------------------------------------


def diff(target: Target | None, request: Any) -> Answer:
    """Show what two snapshots, cores or processes differ in, by chunk."""
    with ExitStack() as opened:
        before = _resolved(target, request, request.a, opened)
        after = _resolved(target, request, request.b or NOW, opened)
        found = compare(before, after)
        parts = list(_parts(found, request))
    described = {"abi": after.abi, "glibc": after.glibc, "pid": after.pid}
    warnings = [*before.problems, *after.problems]
    if before.glibc != after.glibc:
        warnings.append(f"{before.name} is of glibc {before.glibc}, {after.name} of {after.glibc}")
    if found.unread:
        warnings.append(f"{found.unread:#x} bytes of contents cannot be read: not compared")
    if len(before) and len(after) and len(found) == len(before) + len(after):
        warnings.append(
            "no chunk is where one was before: these are two processes, whose addresses are random"
        )
    return Answer("diff", parts, warnings, described)


def _resolved(target: Target | None, request: Any, spec: str, opened: ExitStack) -> Snapshot:
    """Return what a word names: the heap now, a snapshot that is kept, a file, a core, a process.

    :raises BadRequest: if it is none of these.
    """
    kept = (target.kept if target is not None else None) or {}
    if spec in kept:
        found: Snapshot = kept[spec]
        return found
    if spec == NOW:
        if target is None:
            raise BadRequest("diff needs two: A and B", "cores, processes or snapshot files")
        return take(Heap(target), live=True)
    if is_snapshot(spec):
        return read_snapshot(spec)
    return take(Heap(opened.enter_context(request.open(spec))), live=True)


def _parts(found: Diff, request: Any) -> Iterator[Part]:
    sides = found.before, found.after
    counted = found.counted()
    said = [f"{count} {name} ({size:#x})" for name, (count, size) in counted.items() if count]
    yield Facts(
        "",
        [
            Fact("before", "before", request.a, note=totals_text(totals(sides[0]))),
            Fact("after", "after", request.b or NOW, note=totals_text(totals(sides[1]))),
            Fact("", "chunks", ", ".join(said) or "nothing differs"),
            Fact("contents", "contents compared", found.contents),
        ],
    )
    counts = {name: dict(zip(("count", "bytes"), pair)) for name, pair in counted.items()}
    yield Data("counts", counts)
    yield Data("totals", [totals_data(totals(one)) for one in sides])
    sizes = growth(found)
    grown = row_limit(request, GROWN)
    rows = [(g.size, g.before, g.after, g.after - g.before, g.bytes) for g in sizes[:grown]]
    yield Table("growth", _GROWTH, rows, "chunks in use, by size", "as many of each size")
    yield more_rows(len(sizes), grown)
    limit = row_limit(request, TEXT_LIMIT)
    yield Table("chunks", _CHANGES, list(_rows(found, limit)), "chunks", "none differs")
    yield more_rows(len(found), limit)


def _rows(found: Diff, limit: int | None) -> Iterator[tuple[Any, ...]]:
    header = found.after.header
    for number, (kind, before, after) in enumerate(found.entries()):
        if limit is not None and number >= limit:
            return
        chunk = found.address(number)
        old, new = _side(found.before, before, chunk), _side(found.after, after, chunk)
        ranges = found.ranges.get(chunk)
        pairs = list(zip(old, new))
        yield (
            KINDS[kind],
            Address(chunk),
            Address(chunk + header),
            *pairs[0],
            *pairs[1],
            *pairs[2],
            None if ranges is None else [[low, high] for low, high in ranges],
            _note(ranges, old[2], new[2]),
        )


def _side(one: Snapshot, row: int, chunk: int) -> tuple[Any, Any, Any]:
    """Return size, state and bin of a chunk on one side."""
    if row < 0:
        return Absent.NONE, Absent.NONE, Absent.NONE
    size, state = one.sizes[row] & ~SIZE_BITS, STATE_NAMES[one.states[row]]
    return size, state_cell(state), one.bins.get(chunk, Absent.NONE)


def _note(ranges: list[tuple[int, int]] | None, old: Any, new: Any) -> Any:
    """Return what a line of text says behind a chunk: bins, or the bytes that changed."""
    if ranges is not None:
        shown = ", ".join(f"{low:#x}-{high:#x}" for low, high in ranges[:SHOWN])
        return f"{shown}, … {len(ranges) - SHOWN} more" if len(ranges) > SHOWN else shown
    if isinstance(old, str) or isinstance(new, str):
        names = (one if isinstance(one, str) else "-" for one in (old, new))
        return Tag(" -> ".join(names))
    return ""

"""`map`: the segments drawn to scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..analysis.maps import CACHED, CLASS_NAMES, IN_TOP, IN_USE, NOT_KNOWN, SPARE, Cell, Strip, draw
from ..errors import BadRequest
from ..heap.heap import Heap
from ..heap.target import Target
from ..render import picture
from ..table import Absent, Address, Answer, Data, Lines, Part, Style, Tag
from .cells import finish, write_file

WIDTH, LINES = 64, 16  # cells in a line of text, and lines of a segment
MOST_IN_TEXT = 32  # segments
TRIMMED = 5  # a kind of a cell: what malloc_trim would give back

# character, style, colour and meaning of each kind of a cell
KINDS = {
    IN_USE: ("#", Style.PLAIN, "#4c72b0", "in use"),
    6: ("+", Style.WARN, "#9db5d8", "in use by less than half"),
    CACHED: ("c", Style.ONE, "#dd8452", "in a tcache or fast bin"),
    SPARE: ("-", Style.GOOD, "#55a868", "free"),
    TRIMMED: ("~", Style.GOOD, "#a6d8b0", "malloc_trim gives it back"),
    IN_TOP: (".", Style.DIM, "#d9d9d9", "top"),
    NOT_KNOWN: ("?", Style.BAD, "#c44e52", "not known"),
    7: (" ", Style.DIM, "#f4f4f4", "no chunk"),
}
PARTLY, NOTHING = 6, 7


def map_(target: Target, request: Any) -> Answer:
    """Draw every segment to scale, in text, and into files if asked for."""
    heap = Heap(target)
    heap.target.require_main_arena()
    width = request.columns or WIDTH
    if not 8 <= width <= 4096:
        raise BadRequest(f"--columns {width}: expected 8 to 4096")
    strips = list(draw(heap, width * LINES, request.arena))
    parts: list[Part] = [
        Lines([_legend(strips)]),
        Lines(_text(heap, strips, width, None if request.all else MOST_IN_TEXT)),
        Data("segments", [_data(strip) for strip in strips]),
        Data("trim_bytes", sum(strip.trim_bytes for strip in strips)),
        Lines(_written(request, _picture(heap, strips))),
    ]
    return finish(heap, "map", parts)


def kind_of(cell: Cell) -> int:
    """Return how a cell is drawn: by what fills most of it; anything in use shows."""
    used, total = cell.bytes[IN_USE], sum(cell.bytes)
    if not total:
        return NOTHING
    if used:
        return IN_USE if 2 * used >= total else PARTLY
    if 2 * cell.trim > total:
        return TRIMMED
    return max(range(len(cell.bytes)), key=lambda kind: cell.bytes[kind])


def _legend(strips: list[Strip]) -> list[Tag]:
    """Return the kinds that are in the picture, with what they mean."""
    there = {kind_of(cell) for strip in strips for cell in strip.cells}
    tags: list[Tag] = []
    for kind, (letter, style, _, meaning) in KINDS.items():
        if kind in there and kind != NOTHING:
            tags += [Tag(letter, style), Tag(f" {meaning}   ")]
    return tags


def _text(heap: Heap, strips: list[Strip], width: int, most: int | None) -> Iterator[list[Tag]]:
    for strip in strips[:most]:
        yield [Tag("")]
        yield [Tag(_title(strip), Style.STRONG)]
        for low in range(0, len(strip.cells), width):
            cells = strip.cells[low : low + width]
            yield [Tag(f"{cells[0].start:#x}  "), *_letters(cells)]
    if most is not None and len(strips) > most:
        yield [Tag(f"… {len(strips) - most} more segments (--all)")]
    total = sum(strip.trim_bytes for strip in strips)
    pinned = sum(strip.pinned_pages for strip in strips) * heap.page_size
    yield [Tag("")]
    yield [
        Tag(f"malloc_trim (0) would give back {total:#x} bytes; {pinned:#x} bytes are in pages ")
    ]
    yield [Tag("of which less than a quarter is in use, and more than half is free or cached")]


def _title(strip: Strip) -> str:
    segment = strip.segment
    what = {"heap": "heap of a thread's arena", "brk": "main heap", "mmap": "main heap, by mmap"}
    return (
        f"{what[segment.kind]} {segment.start:#x}…{segment.end:#x}, arena {segment.arena:#x}, "
        f"{strip.unit:#x} bytes a cell"
    )


def _letters(cells: tuple[Cell, ...]) -> Iterator[Tag]:
    """Yield neighbours of one kind as one piece."""
    kinds = [kind_of(cell) for cell in cells]
    start = 0
    for at in range(1, len(kinds) + 1):
        if at == len(kinds) or kinds[at] != kinds[start]:
            letter, style, _, _ = KINDS[kinds[start]]
            yield Tag(letter * (at - start), style)
            start = at


def _data(strip: Strip) -> dict[str, Any]:
    """Return a segment as an object: cells as one list for each class."""
    segment = strip.segment
    sums = {name: [c.bytes[n] for c in strip.cells] for n, name in enumerate(CLASS_NAMES)}
    return {
        "start": Address(segment.start),
        "end": Address(segment.end),
        "arena": Address(segment.arena),
        "kind": segment.kind,
        "cell_bytes": strip.unit,
        "first_cell": Address(strip.cells[0].start) if strip.cells else Absent.NONE,
        "cells": {**sums, "trim": [cell.trim for cell in strip.cells]},
        "trim": [{"start": Address(s.start), "end": Address(s.end)} for s in strip.trim],
        "trim_bytes": strip.trim_bytes,
        "pinned_pages": strip.pinned_pages,
    }


# --- pictures -------------------------------------------------------------------------------------


def _picture(heap: Heap, strips: list[Strip]) -> picture.Picture:
    kinds = list(KINDS)
    numbers = {kind: number for number, kind in enumerate(kinds)}
    drawn = [
        picture.Strip(_title(strip), [numbers[kind_of(cell)] for cell in strip.cells])
        for strip in strips
    ]
    colours = [(KINDS[kind][2], KINDS[kind][3]) for kind in kinds]
    title = f"the heap of {heap.target.kind or 'a target'}, glibc {heap.target.release_text}"
    return picture.Picture(title, drawn, colours)


def _written(request: Any, made: picture.Picture) -> Iterator[list[Tag]]:
    if request.svg:
        yield [_said(request.svg, picture.svg(made).encode())]
    if request.png:
        yield [_said(request.png, picture.png(made))]


def _said(path: str, data: bytes) -> Tag:
    return Tag(f"{write_file(path, data)} bytes in {path}")

"""Pictures of strips of cells to scale: SVG and PNG, made of what Python has. Reads no memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

CELL, GAP, LINE = 8, 1, 16  # pixels: of a cell, between strips, and of a line of text
WIDTH = 128  # cells in a row
MOST_CELLS = 1 << 20
BACKGROUND = "#ffffff"


class Strip(NamedTuple):
    """A row of cells, broken where it is longer than a line; *title* stands above."""

    title: str
    cells: Sequence[int]  # each a number of a colour


class Picture(NamedTuple):
    """Strips under each other, and what the colours mean."""

    title: str
    strips: Sequence[Strip]
    colours: Sequence[tuple[str, str]]  # "#rrggbb" and its meaning


def svg(picture: Picture) -> str:
    """Return the picture as SVG; neighbours of one colour are one rectangle, text is escaped."""
    body: list[str] = []
    y = 2 * LINE
    x = GAP
    for colour, meaning in picture.colours:
        body.append(
            f'<rect x="{x}" y="{LINE + 4}" width="{CELL}" height="{CELL}" fill="{colour}"/>'
        )
        body.append(f'<text x="{x + CELL + 3}" y="{LINE + 12}">{escape(meaning)}</text>')
        x += CELL + 16 + 7 * len(meaning)
    for strip in picture.strips:
        y += LINE
        body.append(f'<text x="{GAP}" y="{y - 4}">{escape(strip.title)}</text>')
        for low in range(0, len(strip.cells), WIDTH):
            body += _runs(strip.cells[low : low + WIDTH], y, picture.colours)
            y += CELL
    width, height = max(WIDTH * CELL + 2 * GAP, x), y + GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="monospace" font-size="11">'
    )
    return "\n".join(
        [
            head,
            f"<title>{escape(picture.title)}</title>",
            f'<rect width="{width}" height="{height}" fill="{BACKGROUND}"/>',
            f'<text x="{GAP}" y="{LINE - 4}">{escape(picture.title)}</text>',
            *body,
            "</svg>\n",
        ]
    )


def _runs(
    cells: Sequence[int], y: int, colours: Sequence[tuple[str, str]], left: int = GAP
) -> list[str]:
    made, start = [], 0
    for at in range(1, len(cells) + 1):
        if at == len(cells) or cells[at] != cells[start]:
            x, width = left + start * CELL, (at - start) * CELL
            fill = colours[cells[start]][0]
            made.append(f'<rect x="{x}" y="{y}" width="{width}" height="{CELL}" fill="{fill}"/>')
            start = at
    return made


def png(picture: Picture) -> bytes:
    """Return the picture as PNG without text: a palette, a line between strips (RFC 2083)."""
    palette = [BACKGROUND, *(colour for colour, _ in picture.colours)]
    rows: list[bytes] = []
    width = WIDTH * CELL
    for strip in picture.strips:
        rows += [bytes(width)] * GAP
        for low in range(0, len(strip.cells), WIDTH):
            part = strip.cells[low : low + WIDTH]
            row = b"".join(bytes([cell + 1]) * CELL for cell in part)
            rows += [row.ljust(width, b"\0")] * CELL
    rows += [bytes(width)] * GAP
    colours = b"".join(bytes.fromhex(colour[1:]) for colour in palette)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    header = struct.pack(">IIBBBBB", width, len(rows), 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", colours), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

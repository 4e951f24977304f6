"""Pictures: SVG that a parser reads, PNG whose pixels are counted."""

from __future__ import annotations

import struct
import zlib
from xml.etree import ElementTree

from heapglass.render.picture import CELL, GAP, WIDTH, Picture, Strip, png, svg

COLOURS = (("#000000", "used"), ("#ff0000", 'free <&> "quoted"'))
NAMESPACE = "{http://www.w3.org/2000/svg}"


def picture() -> Picture:
    long = [0] * WIDTH + [1, 1, 0]
    return Picture("a <title>", [Strip("one & two", [0, 1, 1]), Strip("long", long)], COLOURS)


def test_svg_is_to_scale_and_escaped():
    root = ElementTree.fromstring(svg(picture()))
    assert root.find(f"{NAMESPACE}title").text == "a <title>"  # type: ignore[union-attr]
    texts = [text.text for text in root.iter(f"{NAMESPACE}text")]
    assert texts == ["a <title>", "used", 'free <&> "quoted"', "one & two", "long"]
    rows: dict[int, list[tuple[int, int, str]]] = {}
    for rect in list(root.iter(f"{NAMESPACE}rect"))[3:]:
        place = int(rect.get("x", "")), int(rect.get("width", "")), rect.get("fill", "")
        rows.setdefault(int(rect.get("y", "")), []).append(place)
    assert list(rows.values()) == [
        [(GAP, CELL, "#000000"), (GAP + CELL, 2 * CELL, "#ff0000")],
        [(GAP, WIDTH * CELL, "#000000")],
        [(GAP, 2 * CELL, "#ff0000"), (GAP + 2 * CELL, CELL, "#000000")],
    ]
    assert svg(picture()) == svg(picture())


def chunks_of(data: bytes) -> dict[bytes, bytes]:
    found, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", data, at + 8 + size)[0] == zlib.crc32(kind + body)
        found[kind] = body
        at += size + 12
    return found


def test_png_has_the_pixels():
    data = png(picture())
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks = chunks_of(data)
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, depth, kind = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert (width, height, depth, kind) == (WIDTH * CELL, 3 * CELL + 3 * GAP, 8, 3)
    assert chunks[b"PLTE"] == bytes.fromhex("ffffff000000ff0000")
    raw = zlib.decompress(chunks[b"IDAT"])
    lines = [raw[at : at + width + 1] for at in range(0, len(raw), width + 1)]
    assert len(lines) == height
    assert all(line[0] == 0 for line in lines)
    assert lines[0][1:] == bytes(width)
    first = b"\1" * CELL + b"\2" * 2 * CELL
    assert [line[1:] for line in lines[1 : 1 + CELL]] == [first.ljust(width, b"\0")] * CELL
    assert lines[2 * GAP + CELL][1:] == b"\1" * width
    assert lines[2 * GAP + 2 * CELL][1:] == (b"\2" * 2 * CELL + b"\1" * CELL).ljust(width, b"\0")


def test_nothing_makes_a_picture_all_the_same():
    empty = Picture("", [], ())
    assert chunks_of(png(empty))[b"PLTE"] == b"\xff\xff\xff"
    assert ElementTree.fromstring(svg(empty)).tag == f"{NAMESPACE}svg"

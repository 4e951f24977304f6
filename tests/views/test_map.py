"""`map`: what a cell is drawn as, what is said, and the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from heapglass.analysis.maps import Cell
from heapglass.errors import BadRequest
from heapglass.views.map import KINDS, NOTHING, PARTLY, TRIMMED, kind_of

from ..heap.made import MadeHeap
from .asked import document, lines


@pytest.mark.parametrize(
    ("filled", "trim", "kind"),
    [
        ((100, 0, 0, 0, 0), 0, 0),
        ((50, 25, 25, 0, 0), 0, 0),
        ((49, 51, 0, 0, 0), 0, PARTLY),
        ((0, 60, 40, 0, 0), 0, 1),
        ((0, 40, 60, 0, 0), 0, 2),
        ((0, 0, 100, 0, 0), 51, TRIMMED),
        ((0, 0, 100, 0, 0), 50, 2),
        ((0, 0, 0, 100, 0), 0, 3),
        ((0, 0, 0, 0, 1), 0, 4),
        ((0, 0, 0, 0, 0), 0, NOTHING),
    ],
)
def test_what_a_cell_is_drawn_as(filled: tuple[int, ...], trim: int, kind: int):
    assert kind_of(Cell(0x1000, filled, trim)) == kind
    assert kind in KINDS


def made() -> MadeHeap:
    heap = MadeHeap([0x101, 0x3001, 0x100, 0x1001])
    heap.link(1, [heap.chunks[1]])
    heap.set_word(heap.chunks[2], 0x3000)
    return heap


def test_text_and_json_say_the_same():
    heap = made()
    found = document(heap.target, "map")
    (segment,) = found["segments"]
    assert segment["cell_bytes"] * len(segment["cells"]["used"]) >= 0x4200
    assert sum(segment["cells"]["free"]) == 0x3000
    assert sum(segment["cells"]["used"]) == 0x1200
    assert segment["trim_bytes"] == found["trim_bytes"] == sum(segment["cells"]["trim"])
    assert segment["trim_bytes"] % 0x1000 == 0
    assert segment["trim_bytes"] >= 0x1000
    text = lines(heap.target, "map --columns 32")
    assert text[0].startswith("# in use")
    drawn = "".join(line.split("  ", 1)[1] for line in text if line.startswith("0x"))
    assert len(drawn) == len(
        document(heap.target, "map --columns 32")["segments"][0]["cells"]["top"]
    )
    assert "#" in drawn
    assert "~" in drawn
    assert "-" in drawn
    assert any(f"would give back {found['trim_bytes']:#x} bytes" in line for line in text)


def test_pictures_are_written(tmp_path: Path):
    heap = made()
    svg, png = tmp_path / "heap.svg", tmp_path / "heap.png"
    text = lines(heap.target, f"map --svg {svg} --png {png}")
    assert svg.read_text().startswith("<svg ")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert text[-2:] == [
        f"{svg.stat().st_size} bytes in {svg}",
        f"{png.stat().st_size} bytes in {png}",
    ]


def test_what_cannot_be_is_said(tmp_path: Path):
    with pytest.raises(BadRequest, match="--columns 5: expected 8 to 4096"):
        document(made().target, "map --columns 5")
    with pytest.raises(BadRequest, match="cannot write"):
        lines(made().target, f"map --svg {tmp_path}")


def test_only_one_arena():
    assert document(made().target, "map --arena 0x1234")["segments"] == []

"""`chunks` and `chunk`: filters, ranges, order, totals; a chunk by any address in it."""

from __future__ import annotations

import pytest

from heapglass.errors import BadRequest, HeapglassError, NotFound

from ..heap.made import ARENA, BASE, MadeHeap
from .asked import document, lines

SIZES = [0x21, 0x411, 0x31, 0x511, 0x41, 0x21]


@pytest.fixture
def made() -> MadeHeap:
    """Used 0x20, free 0x410, used 0x30, free 0x510, used 0x40, used 0x20, top."""
    heap = MadeHeap(SIZES)
    heap.link(1, [heap.chunks[1], heap.chunks[3]])
    return heap


def sizes(made: MadeHeap, line: str) -> list[int]:
    return [row["size"] for row in document(made.target, line)["chunks"]]


def test_every_chunk_in_the_order_of_addresses(made):
    rows = document(made.target, "chunks")["chunks"]

    assert [int(row["address"], 16) for row in rows] == [*made.chunks, made.top]
    assert [row["state"] for row in rows] == [
        *["used", "free", "used", "free", "used", "used", "top"]
    ]
    assert rows[1] == {
        "address": hex(made.chunks[1]),
        "user": hex(made.chunks[1] + 16),
        "size": 0x410,
        "flags": "P",
        "state": "free",
        "arena": hex(ARENA),
        "bin": "unsorted",
        "thread": None,
        "usable": None,
        "owner": None,
    }
    assert rows[0]["usable"] == 0x18
    assert rows[2]["flags"] == ""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("chunks --state free", [0x410, 0x510]),
        ("chunks --state free,top --max 0x500", [0x410]),
        ("chunks --min 0x30 --max 0x40", [0x30, 0x40]),
        ("chunks --bin unsorted", [0x410, 0x510]),
        ("chunks --bin tcache", []),
        ("chunks --state used --where size==0x20", [0x20, 0x20]),
        ("chunks --where bin=='unsorted'", [0x410, 0x510]),
        ("chunks --state used --sort size", [0x20, 0x20, 0x30, 0x40]),
        ("chunks --state used --sort -size", [0x40, 0x30, 0x20, 0x20]),
        ("chunks --state used --sort -address", [0x20, 0x40, 0x30, 0x20]),
        ("chunks --state used,free --top 2", [0x510, 0x410]),
        ("chunks --state used,free --top 3 --sort size", [0x20, 0x20, 0x30]),
        ("chunks --state used --top 2 --sort address", [0x20, 0x30]),
        ("chunks --bin unsorted --sort -size", [0x510, 0x410]),
        ("chunks --bin unsorted --max 0x500", [0x410]),
        (
            "chunks --where (size>0x30)and(state!='top')and(user>0) --sort size",
            [0x40, 0x410, 0x510],
        ),
        ("chunks --where (bin=='unsorted')or(size==0x40) --top 2", [0x510, 0x410]),
        ("chunks --state used --where usable==0x38", [0x40]),
        (f"chunks --arena {ARENA:#x} --state used --limit 1", [0x20]),
        ("chunks --arena 0x1234", []),
    ],
)
def test_filters_and_order(made, line, expected):
    assert sizes(made, line) == expected


def test_a_range_begins_with_the_chunk_that_its_start_lies_in(made):
    start, end = made.chunks[1] + 0x100, made.chunks[3]

    assert sizes(made, f"chunks {start:#x} {end:#x}") == [0x410, 0x30]
    assert sizes(made, f"chunks --from {start:#x} --to {end:#x}") == [0x410, 0x30]


def test_a_range_that_begins_between_pieces_has_no_chunk_before_it(made):
    """Two fenceposts close a piece; what follows is somebody else's until the next piece."""
    made.set_size(made.top, 0x11)
    made.set_size(made.top + 0x10, 0x11)
    second = made.top + 0x200
    made.memory.write(made.top + 0x20, b"\xaa" * 0x1E0)
    made.set_word(second, 0)
    made.set_size(second, BASE + 0x8000 - second | 1)
    made.set_word(ARENA + made.layout.state.offset("top"), second)

    found = document(made.target, f"chunks {made.top + 0x100:#x}")["chunks"]

    assert [row["state"] for row in found] == ["top"]


def test_counting_on_and_walking_back(made):
    third = made.chunks[2]

    assert sizes(made, f"chunks {third:#x} --count 2") == [0x30, 0x510]
    assert sizes(made, f"chunks {third:#x} --count 1 --back 2") == [0x20, 0x410, 0x30]
    assert sizes(made, f"chunks {third:#x} --count 1 --back 99") == [0x20, 0x410, 0x30]


def test_counting_needs_an_address_that_is_in_a_chunk(made):
    with pytest.raises(BadRequest, match="need an address"):
        document(made.target, "chunks --count 3")
    with pytest.raises(NotFound, match="0x10 is in no chunk") as caught:
        document(made.target, "chunks 0x10 --count 3")
    assert "--as-chunk" in caught.value.hint


def test_totals_are_of_all_that_matched_whatever_is_shown(made):
    found = document(made.target, "chunks --state used --limit 1")

    assert len(found["chunks"]) == 1
    assert found["matching"] == 4
    assert found["totals"]["used"] == {"count": 4, "bytes": 0x20 + 0x30 + 0x40 + 0x20}
    assert found["totals"]["free"] == {"count": 0, "bytes": 0}


def test_text_says_what_the_limit_left_out(made):
    said = lines(made.target, "chunks --limit 2")

    assert said[-2] == "… 5 more (--all, or --limit N)"
    assert said[-1].startswith("7 chunks, ")
    assert len(said) == 1 + 2 + 2


def test_an_unknown_state_is_refused_with_the_ones_there_are(made):
    with pytest.raises(BadRequest, match="--state allocated") as caught:
        document(made.target, "chunks --state allocated")
    assert "used, free" in caught.value.hint


def test_a_wrong_address_is_read_as_a_chunk_on_request(made):
    wrong = made.chunks[0] + 0x10
    made.set_word(wrong + 8, 0x31)

    found = document(made.target, f"chunks {wrong:#x} --as-chunk --count 3")

    assert found["chunks"][0]["size"] == 0x30
    assert found["chunks"][0]["state"] is None
    assert "nothing proves" in found["warnings"][-1]


# --- one chunk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 0x10, 0x18, 0x3FF], ids=["header", "mem", "bk", "inside"])
def test_a_chunk_by_any_address_in_it(made, offset):
    found = document(made.target, f"chunk {made.chunks[1] + offset:#x}")

    assert found["chunk"]["address"] == hex(made.chunks[1])
    assert found["previous"]["address"] == hex(made.chunks[0])
    assert found["next"]["address"] == hex(made.chunks[2])
    assert found["detail"]["bin"] == "unsorted"
    assert found["detail"]["fd"] == hex(made.chunks[3])
    assert found["detail"]["position"] == 0


def test_what_is_in_no_chunk_is_said_with_what_to_do(made):
    with pytest.raises(NotFound, match="is in no chunk") as caught:
        document(made.target, "chunk 0x1234")
    assert "whatis" in caught.value.hint


def test_any_address_as_a_chunk(made):
    wrong = made.chunks[1] + 0x20
    made.set_word(wrong + 8, 0x41)

    found = document(made.target, f"chunk {wrong:#x} --as-chunk")

    assert found["chunk"]["size"] == 0x40
    assert found["chunk"]["state"] is None


def test_what_cannot_be_read_as_a_chunk_is_one_line(made):
    with pytest.raises(HeapglassError) as caught:
        document(made.target, "chunk 0x10 --as-chunk")
    assert "\n" not in str(caught.value)

"""References between blocks: the compiled loops and the Python ones agree, and are right."""

from __future__ import annotations

import struct
import subprocess
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapglass.native import BY_INTERIOR, BY_START, NOT_REACHED, Buffer, Rows, compiled, loops

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "heapglass" / "native" / "heapglass.c"
BASE = 0x10000
NATIVE = compiled.load()
MACHINES = st.tuples(st.sampled_from([8, 4]), st.sampled_from(["little", "big"]))
USED, FREE, MMAPPED, CORRUPT, UNKNOWN = 0, 1, 5, 7, 8


def graphs(parts: list[Rows], word: int, swap: bool, mask: int = (1 << 64) - 1) -> list[Any]:
    assert NATIVE is not None, "the compiled loops are missing: pip install -e . with a C compiler"
    return [these.make_graph(parts, word, swap, mask) for these in (loops, NATIVE)]


def pack(values: list[int], word: int, order: str) -> bytes:
    code = f"{'<' if order == 'little' else '>'}{len(values)}{'Q' if word == 8 else 'I'}"
    return struct.pack(code, *(value % (1 << 8 * word) for value in values))


@st.composite
def heaps(draw: st.DrawFn) -> tuple[list[Rows], int, str]:
    """A few parts with gaps between; sizes, states and bytes may be anything."""
    word, order = draw(MACHINES)
    parts, low = [], BASE
    for _ in range(draw(st.integers(0, 3))):
        steps = draw(st.lists(st.integers(1, 6), min_size=1, max_size=12))
        chunks = array("Q")
        at = low
        for step in steps:
            chunks.append(at)
            at += step * 2 * word
        sizes = array("Q", [step * 2 * word | draw(st.integers(0, 7)) for step in steps])
        if draw(st.booleans()):
            sizes[draw(st.integers(0, len(sizes) - 1))] = draw(st.integers(0, (1 << 64) - 1))
        states = bytearray(
            draw(st.sampled_from([USED, USED, USED, FREE, MMAPPED, CORRUPT, UNKNOWN]))
            for _ in steps
        )
        places = st.integers(BASE - 2 * word, at + 4 * word)
        count = (at - low) // word
        words = draw(st.lists(places, min_size=count, max_size=count))
        data = pack(words, word, order)
        cut = draw(st.integers(0, len(data))) if draw(st.booleans()) else 0
        buffer = Buffer(memoryview(data[: len(data) - cut]), low, word, order)
        first = draw(st.integers(0, len(steps) - 1)) if draw(st.booleans()) else 0
        less = draw(st.sampled_from([word, 2 * word]))
        start = chunks[first]
        parts.append(
            Rows(buffer, chunks, sizes, states, first, len(steps) - first, start, at, less)
        )
        low = at + draw(st.integers(0, 3)) * 2 * word
    return parts, word, order


@settings(max_examples=500, deadline=None)
@given(heaps(), st.lists(st.integers(BASE - 32, BASE + 2048), max_size=6), st.integers(0, 9))
def test_marks_rows_and_edges_agree(
    made: tuple[list[Rows], int, str], values: list[int], base: int
):
    parts, word, order = made
    root = Buffer(memoryview(pack(values, word, order)), base, word, order)
    for interior in (False, True):
        answers = []
        for graph in graphs(parts, word, root.swap):
            reached = graph.mark([root, root], interior)
            rows = {
                (state, way): graph.select(reached, state, way).tolist()
                for state in (USED, MMAPPED)
                for way in (NOT_REACHED, BY_START, BY_INTERIOR)
            }
            wanted = bytearray(way != BY_START for way in reached)
            every = array("I", range(graph.count))
            found = graph.edges(every, wanted)
            answers.append((bytes(reached), rows, *(list(column) for column in found)))
        assert answers[0] == answers[1]


@settings(max_examples=300, deadline=None)
@given(heaps(), st.lists(st.integers(BASE - 32, BASE + 2048), max_size=6), st.data())
def test_shortest_ways_agree(
    made: tuple[list[Rows], int, str], values: list[int], data: st.DataObject
):
    parts, word, order = made
    root = Buffer(memoryview(pack(values, word, order)), 0, word, order)
    both = graphs(parts, word, root.swap)
    if not both[0].count:
        return
    target = data.draw(st.integers(0, both[0].count - 1))
    ways = [graph.ways_to([root], target).tolist() for graph in both]
    assert ways[0] == ways[1]
    assert bool(ways[0][target]) == bool(both[0].mark([root], True)[target])
    left = [bytes(graph.mark([root], True, target)) for graph in both]
    assert left[0] == left[1]


@pytest.fixture(scope="module")
def in_pieces(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The compiled loops, which look at three blocks a call."""
    folder = tmp_path_factory.mktemp("pieces")
    text = SOURCE.read_text()
    assert "AT_ONCE = 1 << 20" in text
    (folder / "loops.c").write_text(text.replace("AT_ONCE = 1 << 20", "AT_ONCE = 3"))
    words = ["gcc", "-std=gnu11", "-shared", "-fPIC", "-o", folder / "loops.so", folder / "loops.c"]
    subprocess.run(words, check=True)
    return compiled.load(folder / "loops.so")


@settings(max_examples=200, deadline=None)
@given(made=heaps(), values=st.lists(st.integers(BASE - 32, BASE + 2048), max_size=6))
def test_marking_in_pieces_comes_to_the_same(
    in_pieces: Any, made: tuple[list[Rows], int, str], values: list[int]
):
    parts, word, order = made
    root = Buffer(memoryview(pack(values, word, order)), 0, word, order)
    for interior in (False, True):
        want = loops.make_graph(parts, word, root.swap, (1 << 64) - 1).mark([root, root], interior)
        graph = in_pieces.make_graph(parts, word, root.swap, (1 << 64) - 1)
        assert graph.mark([root, root], interior) == want


def three_blocks(
    word: int, order: str, to_second: int, less: int | None = None
) -> tuple[list[Rows], bool]:
    """Blocks of four words usable less one; the first points *to_second* bytes into the second."""
    size = 4 * word
    chunks = array("Q", [BASE, BASE + size, BASE + 2 * size])
    mem = [chunk + 2 * word for chunk in chunks]
    words = [0, size, mem[1] + to_second, 0, 0, size, mem[2], 0, 0, size, 0, 0]
    buffer = Buffer(memoryview(pack(words, word, order)), BASE, word, order)
    sizes, states = array("Q", [size | 1] * 3), bytearray(3)
    end = BASE + 3 * size
    return [
        Rows(buffer, chunks, sizes, states, 0, 3, BASE, end, word if less is None else less)
    ], buffer.swap


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("word", [8, 4])
def test_a_reference_is_from_mem_to_the_last_usable_byte(word: int, order: str):
    usable = 3 * word
    for offset, ways in (
        (-1, [1, 0, 0]),
        (0, [1, 1, 1]),
        (1, [1, 2, 2]),
        (usable - 1, [1, 2, 2]),
        (usable, [1, 0, 0]),  # the next chunk's size word
    ):
        parts, swap = three_blocks(word, order, offset)
        root = Buffer(memoryview(pack([BASE + 2 * word], word, order)), 0, word, order)
        for graph in graphs(parts, word, swap):
            assert list(graph.mark([root], True)) == ways
            assert list(graph.mark([root], False)) == [way % 2 for way in ways]


def test_an_mmapped_block_may_end_before_its_chunk():
    parts, swap = three_blocks(8, "little", 16, less=16)
    root = Buffer(memoryview(pack([BASE + 16], 8, "little")), 0, 8, "little")
    for graph in graphs(parts, 8, swap):
        assert list(graph.mark([root], True)) == [1, 0, 0]


def test_a_tag_is_no_part_of_the_address():
    parts, swap = three_blocks(8, "little", 0)
    tagged = pack([0xAB << 56 | BASE + 16], 8, "little")
    root = Buffer(memoryview(tagged), 0, 8, "little")
    for graph in graphs(parts, 8, swap, (1 << 56) - 1):
        assert list(graph.mark([root], True)) == [1, 1, 1]
    for graph in graphs(parts, 8, swap):
        assert list(graph.mark([root], True)) == [0, 0, 0]


def test_roots_are_scanned_at_multiples_of_the_word():
    parts, swap = three_blocks(8, "little", 0)
    words = pack([BASE + 16], 8, "little")
    for data, base, ways in ((b"12345" + words, 3, 1), (words, 4, 0), (words[:7], 0, 0)):
        root = Buffer(memoryview(data), base, 8, "little")
        for graph in graphs(parts, 8, swap):
            assert graph.mark([root], True)[0] == ways


def test_more_rows_and_edges_than_a_piece():
    count = 70000
    size, mem = 32, BASE + 16
    chunks = array("Q", range(BASE, BASE + count * size, size))
    row = [0, size | 1, mem, mem + 32]  # all point to the first two
    buffer = Buffer(memoryview(pack(row * count, 8, "little")), BASE, 8, "little")
    sizes, states = array("Q", [size | 1]) * count, bytearray(count)
    part = Rows(buffer, chunks, sizes, states, 0, count, BASE, BASE + count * size, 8)
    answers = []
    for graph in graphs([part], 8, buffer.swap):
        reached = bytearray(count)
        rows = graph.select(reached, USED, NOT_REACHED)
        answers.append((rows, *graph.edges(rows, bytearray(b"\1" * count))))
    assert answers[0] == answers[1]
    assert len(answers[0][0]) == count
    assert len(answers[0][1]) == 2 * count

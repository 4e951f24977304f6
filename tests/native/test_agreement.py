"""The compiled loops and the Python ones give the same answers, on hostile bytes too."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapglass.native import IN_USE, Buffer, Cells, Chain, Hidden, Keep, compiled, loops

BASE = 0x7F0000001000
MOST = (1 << 64) - 1
NATIVE = compiled.load()
STATES = range(9)
MACHINES = st.tuples(st.sampled_from([8, 4]), st.sampled_from(["little", "big"]))
# Sizes as a heap has them, links into the buffer, and anything else.
SIZES = st.sampled_from([0, 1, 0x10, 0x11, 0x20, 0x21, 0x25, 0x31, 0x90, 0x91, 0x411, 0x1008])
WORDS = st.one_of(
    SIZES,
    st.integers(0, 64).map(lambda n: BASE + 16 * n),
    st.integers(0, 64).map(lambda n: (BASE + 16 * n) & 0xFFFFFFFF),
    st.integers(0, (1 << 64) - 1),
)


@st.composite
def buffers(draw: st.DrawFn) -> Buffer:
    """A few words, maybe cut in the middle of one, on any machine."""
    word, order = draw(MACHINES)
    values = draw(st.lists(WORDS, max_size=120))
    mark = "<" if order == "little" else ">"
    code = f"{mark}{len(values)}{'Q' if word == 8 else 'I'}"
    data = struct.pack(code, *(value % (1 << 8 * word) for value in values))
    cut = draw(st.integers(0, min(word, len(data))))
    base = BASE if word == 8 else BASE & 0xFFFFFFFF
    return Buffer(memoryview(data[: len(data) - cut]), base, word, order)


@st.composite
def chunks(draw: st.DrawFn) -> Buffer:
    """Chunks that lie behind each other, on any machine; what follows them may be anything."""
    word, order = draw(MACHINES)
    sizes = draw(st.lists(st.sampled_from([0x20, 0x21, 0x21, 0x21, 0x31, 0x40, 0x61]), max_size=40))
    mark = ("<" if order == "little" else ">") + ("2Q" if word == 8 else "2I")
    rows = (struct.pack(mark, 0, size).ljust(size & ~7, b"\0") for size in sizes)
    data = b"".join(rows) + struct.pack(mark, 0, draw(SIZES))
    return Buffer(memoryview(data), BASE if word == 8 else BASE & 0xFFFFFFFF, word, order)


def native() -> compiled.Loops:
    assert NATIVE is not None, "the compiled loops are missing: pip install -e . with a C compiler"
    return NATIVE


def test_the_compiled_loops_are_in_use_where_there_is_a_compiler():
    native()
    off = os.environ.get("HEAPGLASS_NATIVE") == "0"
    assert ("python" if off else "native") == IN_USE


@settings(max_examples=400, deadline=None)
@given(
    buffers(),
    st.integers(-2, 130),
    st.integers(-20, 1100),
    st.sampled_from([8, 16]),
    st.sampled_from([16, 32]),
)
def test_walks_agree(buffer: Buffer, first: int, length: int, alignment: int, least: int):
    start = buffer.base + first * buffer.word
    answers = []
    for these in (loops, native()):
        columns = array("Q", [7]), array("Q", [8])
        stop = these.walk_sizes(buffer, start, start + length, alignment, least, *columns)
        answers.append((stop, *(column.tolist() for column in columns)))
    assert answers[0] == answers[1]


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(buffers(), chunks()),
    st.tuples(st.sampled_from([0, 0, 0, 8, -2, 3]), st.integers(-20, 2000)),
    st.sampled_from([8, 16]),
    st.sampled_from([16, 32]),
    st.lists(st.integers(0, 128), max_size=6),
    st.sampled_from([1, 0x40, 0x100, MOST]),
)
def test_walks_that_keep_few_rows_agree(
    buffer: Buffer,
    at: tuple[int, int],
    alignment: int,
    least: int,
    marked: list[int],
    stretch: int,
):
    start = buffer.base + at[0] * buffer.word
    keep = Keep(array("Q", sorted({buffer.base + 8 * mark for mark in marked})), stretch)
    answers = []
    for these in (loops, native()):
        columns = array("Q", [7]), array("Q", [8])
        asked = buffer, start, start + at[1], alignment, least
        stop = these.walk_landmarks(*asked, keep, *columns)
        answers.append((stop, *(column.tolist() for column in columns)))
    assert answers[0] == answers[1]

    whole = array("Q"), array("Q")
    assert answers[0][0] == loops.walk_sizes(*asked, *whole)
    rows = list(zip(*whole))
    wanted = {*rows[:1], *rows[-2:]}
    for number, (row, _) in enumerate(rows):
        if row in keep.marks or not rows[min(number + 1, len(rows) - 1)][1] & 1:  # P behind it
            wanted |= {*rows[number : number + 2]}
    kept = list(zip(*(column[1:] for column in answers[0][1:])))
    assert kept == sorted({*kept})
    assert wanted <= {*kept} <= {*rows}


def test_a_walk_that_keeps_few_rows_goes_on_where_its_room_ended(monkeypatch: pytest.MonkeyPatch):
    sizes = [0x21, 0x20, 0x31, 0x40, 0x21, 0x21, 0x21, 0x30] * 40
    data = b"".join(struct.pack("<QQ", 0, size) + bytes((size & ~7) - 16) for size in sizes)
    buffer = Buffer(memoryview(data), BASE, 8, "little")
    keep = Keep(array("Q", range(BASE, BASE + len(data), 0x150)), 0x400)
    answers = []
    for room in (1 << 14, 7, 5):
        monkeypatch.setattr(compiled, "KEPT", room)
        columns = array("Q"), array("Q")
        asked = buffer, BASE, BASE + len(data), 16, 32
        stop = native().walk_landmarks(*asked, keep, *columns)
        answers.append((stop, *(column.tolist() for column in columns)))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] == BASE + len(data)


@settings(max_examples=600, deadline=None)
@given(
    buffers(),
    st.tuples(st.integers(-2, 60), st.integers(0, 130), st.integers(-4, 80), st.integers(0, 130)),
    st.integers(1, 4),
    st.sampled_from([8, 16]),
    st.sampled_from([2, 6]),
)
def test_chains_agree(
    buffer: Buffer, at: tuple[int, int, int, int], need: int, alignment: int, wrong: int
):
    first, length, past, behind = at
    start = buffer.base + first * alignment
    last = start + length * buffer.word
    chain = Chain(
        last + behind * alignment,
        start + past * buffer.word,
        *(need, alignment, 2 * buffer.word, wrong),
    )
    answers = [these.find_chain(buffer, (start, last), chain) for these in (loops, native())]
    assert answers[0] == answers[1]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(SIZES, st.integers(0, (1 << 64) - 1)), st.sampled_from(STATES)))
)
def test_flags_and_counts_agree(rows: list[tuple[int, int]]):
    sizes = array("Q", [size for size, _ in rows])
    answers = []
    for these in (loops, native()):
        states = bytearray(state for _, state in rows)
        counted = these.count_pairs(sizes, states)
        answers.append((these.judge_flags(sizes, states), bytes(states), counted))
    assert answers[0] == answers[1]


@settings(max_examples=400, deadline=None)
@given(buffers(), st.integers(-2, 66), st.integers(-2, 66), st.sampled_from([0, 0x20, 0x400]))
def test_rings_agree(buffer: Buffer, bin_: int, link: int, most: int):
    answers = []
    for these in (loops, native()):
        chunks = array("Q")
        places = buffer.base + 16 * bin_, buffer.base + 16 * link
        end = these.follow_ring(buffer, *places, 2 * buffer.word, 0, most, chunks)
        answers.append((end, chunks.tolist()))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("word", [8, 4])
def test_a_sound_ring_is_followed_to_its_end(word: int, order: str):
    code = ("<" if order == "little" else ">") + ("4Q" if word == 8 else "4I")
    base, bin_, count = 0x10000, 0x900, 70000
    size = 4 * word
    rows = []
    for number in range(count):
        here = base + number * size
        after = here + size if number < count - 1 else bin_
        rows.append(struct.pack(code, 0, size | 1, after, here - size if number else bin_))
    buffer = Buffer(memoryview(b"".join(rows)), base, word, order)

    for these in (loops, native()):
        chunks = array("Q")
        assert these.follow_ring(buffer, bin_, base, 2 * word, size, size, chunks) == bin_
        assert chunks.tolist() == list(range(base, base + count * size, size))


def test_a_ring_that_never_comes_back_ends_all_the_same():
    loop = struct.pack("<4Q", 0, 0x21, 0x1000, 0x1000)
    for these in (loops, native()):
        chunks = array("Q")
        end = these.follow_ring(
            Buffer(memoryview(loop), 0x1000, 8, "little"), 0x1000 - 32, 0x1000, 16, 0, 0, chunks
        )
        assert end == 0x1000
        assert chunks.tolist() == []


@settings(max_examples=400, deadline=None)
@given(buffers(), st.integers(-5, 70), st.integers(0, 70))
def test_words_agree(buffer: Buffer, low: int, length: int):
    low = buffer.base + 16 * low if low >= 0 else 0
    high = low + 16 * length
    want = loops.words_between(buffer, low, high, MOST)

    assert native().words_between(buffer, low, high, MOST) == want


@settings(max_examples=100, deadline=None)
@given(
    buffers(),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 1 << 65),
    st.sampled_from([MOST, MOST >> 8, 0xFFFFFFFF, 0xFF]),
)
def test_words_agree_at_the_ends_of_the_address_space(
    buffer: Buffer, low: int, high: int, mask: int
):
    want = loops.words_between(buffer, low, high, mask)

    assert native().words_between(buffer, low, high, mask) == want


@settings(max_examples=400, deadline=None)
@given(buffers(), st.data())
def test_hidden_words_are_found_alike(buffer: Buffer, data: st.DataObject):
    bits = 8 * buffer.word
    key, rotate = data.draw(st.integers(0, (1 << bits) - 1)), data.draw(st.sampled_from([0, 9, 17]))
    low = data.draw(st.sampled_from([BASE & ((1 << bits) - 1), 0, 0x11]))
    high = low + data.draw(st.sampled_from([0, 1, 0x400, 1 << 20, 1 << 30]))
    behind = data.draw(st.sampled_from([(0, 0), (0, 1 << 31), (low, low + 0x400)]))
    hidden = Hidden(low, high, key, rotate, behind)
    words = buffer.words.tolist()  # some are made what is looked for
    for at in data.draw(st.sets(st.integers(0, max(len(words) - 1, 0)))) if words else ():
        value = (low + 8 * at) ^ key
        words[at] = (value << rotate | value >> (bits - rotate)) & ((1 << bits) - 1)
    mark = "<" if buffer.order == "little" else ">"
    packed = struct.pack(f"{mark}{len(words)}{'Q' if buffer.word == 8 else 'I'}", *words)
    base = buffer.base + data.draw(st.sampled_from([0, 1, 5]))
    made = Buffer(memoryview(packed), base, buffer.word, buffer.order)
    skip = -base % buffer.word
    seen = Buffer(memoryview(packed)[skip:], base + skip, buffer.word, buffer.order)
    values = [loops.plain(word, hidden, buffer.word) for word in seen.words]
    first, last = behind
    want = [
        seen.base + number * buffer.word
        for number, value in enumerate(values)
        if low <= value < high
        and (first == last or (number + 1 < len(values) and first <= values[number + 1] < last))
    ]
    assert loops.hidden_words(made, hidden) == want
    assert native().hidden_words(made, hidden) == want


def test_more_than_one_piece_of_answers():
    count = compiled.PIECE + 17
    sizes = array("Q", [0x20] * count)
    answers = []
    for these in (loops, native()):
        states = bytearray(count)
        buffer = Buffer(memoryview(sizes.tobytes()), 0x1000, 8, sys.byteorder)
        answers.append((these.judge_flags(sizes, states), bytes(states)))
        assert len(these.words_between(buffer, 0x20, 0x21, MOST)) == count
    assert answers[0] == answers[1]
    assert len(answers[0][0]) == count - 1


def test_the_table_of_counts_grows():
    sizes = array("Q", [16 * number for number in range(9000)])
    states = bytearray(len(sizes))

    assert native().count_pairs(sizes, states) == loops.count_pairs(sizes, states)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(SIZES, st.sampled_from(STATES)), max_size=80),
    st.integers(0, 90),
    st.one_of(st.none(), st.integers(0, 90)),
    st.dictionaries(st.tuples(st.sampled_from(STATES), SIZES), st.integers(0, 2), max_size=20),
    st.lists(st.integers(0, 40), min_size=3, max_size=3),
)
def test_selections_agree(
    rows: list[tuple[int, int]],
    first: int,
    last: int | None,
    groups: dict[tuple[int, int], int],
    counts: list[int],
):
    sizes, states = array("Q", [size for size, _ in rows]), bytearray(state for _, state in rows)
    assert native().count_pairs(sizes, states, first, last) == loops.count_pairs(
        sizes, states, first, last
    )
    answers = [
        these.select_rows(sizes, states, groups, counts, first, last) for these in (loops, native())
    ]
    assert answers[0] == answers[1]
    assert len(answers[0]) == sum(counts)


def test_rows_are_selected_by_group_and_in_order():
    sizes, states = array("Q", [0x21, 0x31, 0x21, 0x41]), bytearray([0, 0, 1, 0])
    groups, counts = {(0, 0x31): 0, (0, 0x21): 1, (1, 0x21): 1}, [1, 2]
    for these in (loops, native()):
        assert these.select_rows(sizes, states, groups, counts).tolist() == [1, 0, 2]
        assert these.select_rows(sizes, states, groups, [0, 1], 1, 3).tolist() == [2]


@pytest.mark.parametrize(("setting", "said"), [("0", "python"), ("1", "native")])
def test_the_environment_turns_them_off(setting: str, said: str):
    code = "from heapglass import native; print(native.IN_USE)"
    source = str(Path(loops.__file__).parents[2])
    environment = {**os.environ, "HEAPGLASS_NATIVE": setting, "PYTHONPATH": source}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == said


def test_a_library_that_is_none_is_not_used(tmp_path: Path):
    for name, data in (("missing", None), ("text", b"no library")):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        assert compiled.load(tmp_path / name) is None


def test_a_library_of_another_version_is_not_used(tmp_path: Path):
    source, library = tmp_path / "other.c", tmp_path / "other.so"
    source.write_text("int hg_version (void) { return 0; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)

    assert compiled.load(library) is None


@st.composite
def stretches(draw: st.DrawFn) -> tuple[array[int], array[int], bytearray]:
    """Chunks behind each other, with gaps here and there."""
    addresses, sizes, states = array("Q"), array("Q"), bytearray()
    at = BASE
    for _ in range(draw(st.integers(0, 40))):
        size = 16 * draw(st.integers(1, 30))
        addresses.append(at)
        sizes.append(size | draw(st.integers(0, 7)))
        states.append(draw(st.sampled_from([0, 0, 1, 1, 2, 3, 4, 7, 8])))
        at += size + 16 * draw(st.sampled_from([0, 0, 0, 0, 2]))
    return addresses, sizes, states


@given(stretches(), st.lists(st.integers(0, 8), min_size=1, max_size=4), st.integers(0, 900))
def test_runs_agree(
    chunks: tuple[array[int], array[int], bytearray], wanted: list[int], least: int
):
    _, sizes, states = chunks
    runs, best = loops.find_runs(*chunks, wanted, least)
    assert native().find_runs(*chunks, wanted, least) == (runs, best)
    for first, last in runs:
        rows = range(first, last + 1)
        assert all(states[row] in wanted for row in rows)
        assert sum(sizes[row] & ~7 for row in rows) >= least
    assert best[0] == 0 or states[best[1]] in wanted


@given(stretches(), st.integers(-200, 200), st.integers(1, 700), st.integers(0, 12))
def test_cells_agree(
    chunks: tuple[array[int], array[int], bytearray], shift: int, unit: int, count: int
):
    cells, classes = Cells(BASE + shift, unit, count), [0, 1, 2, 2, 0, 3, 3, 1, 0]
    found = loops.add_cells(*chunks, cells, classes)
    assert native().add_cells(*chunks, cells, classes) == found
    assert all(sum(found[at : at + 4]) <= unit for at in range(0, len(found), 4))
    if shift <= 0 and count * unit > 30000:
        assert sum(found) == sum(size & ~7 for size in chunks[1])


def test_a_size_that_runs_over_the_end_of_all_addresses_fills_the_cells():
    chunks = array("Q", [BASE]), array("Q", [MOST & ~7]), bytearray(1)
    cells = Cells(BASE, 16, 3)
    for these in (loops, native()):
        assert these.add_cells(*chunks, cells, [0] * 9).tolist() == [16, 16, 16]


def test_more_runs_than_are_asked_for_at_once():
    count = 2 * compiled.PIECE + 5
    sizes = array("Q", [32]) * (2 * count)
    addresses = array("Q", range(BASE, BASE + 64 * count, 32))
    states = bytearray(b"\0\1") * count
    runs, best = native().find_runs(addresses, sizes, states, [1], 0)
    assert len(runs) == count
    assert best == (32, 1)

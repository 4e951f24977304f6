"""What blocks are: the compiled loops and the Python ones agree, and are right."""

from __future__ import annotations

import struct
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapglass.native import Buffer, Requests, Rows, loops
from heapglass.native.kinds import (
    BUCKETS,
    DEQUE_MAP,
    DEQUE_PART,
    HASH_NODE,
    KEYED,
    LIST,
    NO_KIND,
    POINTERS,
    STRING,
    TABLE,
    TEXT,
    TREE,
    VECTOR,
    ZEROS,
    Kinds,
)

from .test_graph import BASE, MACHINES, NATIVE, heaps, pack

USED, MMAPPED = 0, 5
TABLES = [(0x400000, 0x401000)]
KEYS = array("Q", [0x500000, 0x500040])
WAYS = [(8, "little"), (8, "big"), (4, "little"), (4, "big")]


def kinds_of(parts: list[Rows], word: int, swap: bool) -> list[Kinds]:
    requests = Requests(2 * word, 4 * word, 4096)
    assert NATIVE is not None
    return [
        these.make_kinds(these.make_graph(parts, word, swap, (1 << 64) - 1), requests)
        for these in (loops, NATIVE)
    ]


def told(kinds: Kinds, roots: list[Buffer]) -> tuple[Any, ...]:
    """Ask in every way; return all that is known."""
    kinds.held_by(roots)
    kinds.held_by_blocks()
    kinds.by_words(TABLES)
    kinds.by_key(kinds.graph.word, KEYS)
    kinds.by_contents()
    return bytes(kinds.kind), kinds.key.tolist(), kinds.tally()


class Blocks:
    """Blocks of given sizes in a row; what is written into them by number."""

    def __init__(self, requests: list[int], word: int, order: str) -> None:
        self.word, self.order = word, order
        self.addresses, self.sizes = array("Q"), array("Q")
        at = BASE
        for request in requests:
            size = max((request + word + 2 * word - 1) & -2 * word, 4 * word)
            self.addresses.append(at)
            self.sizes.append(size | 1)
            at += size
        self.end = at
        self.bytes = bytearray(at - BASE)
        self.states = bytearray(len(requests))

    def mem(self, number: int, offset: int = 0) -> int:
        return self.addresses[number] + 2 * self.word + offset

    def write(self, number: int, data: bytes, offset: int = 0) -> None:
        at = self.mem(number, offset) - BASE
        self.bytes[at : at + len(data)] = data

    def words(self, number: int, *values: int) -> None:
        self.write(number, pack(list(values), self.word, self.order))

    def rows(self) -> tuple[list[Rows], Buffer]:
        buffer = Buffer(memoryview(bytes(self.bytes)), BASE, self.word, self.order)
        columns = self.addresses, self.sizes, self.states
        count = len(self.addresses)
        return [Rows(buffer, *columns, 0, count, BASE, self.end, self.word)], buffer

    def told(self, *root: int) -> list[list[int]]:
        parts, buffer = self.rows()
        held = Buffer(memoryview(pack(list(root), self.word, self.order)), 0, self.word, self.order)
        return [list(told(k, [held])[0]) for k in kinds_of(parts, self.word, buffer.swap)]


@settings(max_examples=500, deadline=None)
@given(heaps(), st.lists(st.integers(BASE - 32, BASE + 2048), max_size=12), st.integers(0, 9))
def test_any_bytes_are_told_alike(made: tuple[list[Rows], int, str], values: list[int], base: int):
    parts, word, order = made
    root = Buffer(memoryview(pack(values, word, order)), base, word, order)
    answers = [told(kinds, [root, root]) for kinds in kinds_of(parts, word, root.swap)]
    assert answers[0] == answers[1]


@st.composite
def linked(draw: st.DrawFn) -> tuple[Blocks, list[int]]:
    """Blocks whose words are mostly pointers to starts, small numbers and keys."""
    word, order = draw(MACHINES)
    requests = draw(st.lists(st.sampled_from([8, 24, 32, 64, 100]), min_size=1, max_size=10))
    blocks = Blocks(requests, word, order)
    starts = st.sampled_from([blocks.mem(number) for number in range(len(requests))])
    offsets = st.sampled_from([0, 0, 0, word, 16, 64])
    pointer = st.builds(lambda start, offset: start + offset, starts, offsets)
    small = st.sampled_from([0, 0, 1, 2, 3, 8, 15, 16, 17, 31, 0x400008, 0x500000, 0x41414141])
    value = st.one_of(pointer, pointer, small)
    for number, request in enumerate(requests):
        blocks.words(number, *draw(st.lists(value, max_size=request // word)))
    states = st.sampled_from([0, 0, 0, 0, 1, 5, 8])
    blocks.states[:] = bytes(draw(states) for _ in requests)
    return blocks, draw(st.lists(value, max_size=14))


@settings(max_examples=800, deadline=None)
@given(linked())
def test_linked_blocks_are_told_alike(made: tuple[Blocks, list[int]]):
    blocks, root = made
    python, native = blocks.told(*root)
    assert python == native


@pytest.mark.parametrize(("word", "order"), WAYS)
def test_vectors_and_strings_by_their_holders(word: int, order: str):
    blocks = Blocks([104, 40, 40, 200], word, order)
    blocks.write(1, b"hello, held string\0")
    start = blocks.mem(0)
    blocks.words(3, 7, start, start + 8, start + 104, blocks.mem(1), 18, 39)
    assert blocks.told() == [[VECTOR, STRING, ZEROS, NO_KIND]] * 2
    blocks.words(3, 7, start, start + 8, start + 40, blocks.mem(1), 19, 39)
    smaller = "malloc would have made a smaller chunk for 40 bytes"
    assert blocks.told() == [[ZEROS, STRING, ZEROS, NO_KIND]] * 2, smaller


@pytest.mark.parametrize(("word", "order"), WAYS)
def test_a_string_ends_where_its_length_says(word: int, order: str):
    blocks = Blocks([40, 200], word, order)
    blocks.write(0, b"\x80" * 20)
    blocks.words(1, 7, blocks.mem(0), 19, 39)
    assert [kinds[0] for kinds in blocks.told()] == [NO_KIND] * 2
    blocks.words(1, 7, blocks.mem(0), 20, 39)
    assert [kinds[0] for kinds in blocks.told()] == [STRING] * 2


@pytest.mark.parametrize(("word", "order"), WAYS)
def test_nodes_of_maps_and_lists(word: int, order: str):
    blocks = Blocks([6 * word] * 6, word, order)
    a, b, c, x, y, _ = (blocks.mem(number) for number in range(6))
    outside = 0x7000
    blocks.words(0, 1, outside, b, c, 5)
    blocks.words(1, 0, a, 0, 0, 6)
    blocks.words(2, 0, a, 0, 0, 7)
    blocks.words(3, y, outside, 1)
    blocks.words(4, outside, x, 2)
    assert blocks.told() == [[TREE, TREE, TREE, LIST, LIST, ZEROS]] * 2
    blocks.words(2, 0, x, 0, 0, 7)  # a child that does not lead back
    assert [kinds[0] for kinds in blocks.told()] == [NO_KIND] * 2


@pytest.mark.parametrize(("word", "order"), WAYS)
def test_hash_tables_and_deques(word: int, order: str):
    blocks = Blocks([13 * word, 3 * word, 3 * word, 8 * word, 512, 20 * word], word, order)
    blocks.words(1, blocks.mem(2), 1)
    blocks.words(2, 0, 2)
    blocks.words(3, 0, 0, 0, blocks.mem(4))
    part, node = blocks.mem(4), blocks.mem(3, 3 * word)
    iterators = [part, part, part + 512, node, part + 8, part, part + 512, node]
    table = [blocks.mem(0), 13, blocks.mem(1), 2]
    blocks.words(5, *table, blocks.mem(3), 8, *iterators)
    expected = [BUCKETS, HASH_NODE, HASH_NODE, DEQUE_MAP, DEQUE_PART, NO_KIND]
    assert blocks.told() == [expected] * 2
    blocks.words(2, blocks.mem(1), 2)  # a ring of nodes: there are more than two
    found = blocks.told()
    assert [kinds[0] for kinds in found] == [ZEROS] * 2


@pytest.mark.parametrize(("word", "order"), WAYS)
def test_tables_keys_and_bytes(word: int, order: str):
    blocks = Blocks([24, 24, 24, 4 * word, 24, 24], word, order)
    blocks.words(0, 0x400010, 1)
    blocks.words(1, 3, 0x500040)
    blocks.write(2, b"some text\0")
    blocks.words(3, blocks.mem(0), 0, blocks.mem(1))
    blocks.write(4, b"no\0")
    blocks.words(5, 0x401000)
    parts, buffer = blocks.rows()
    for kinds in kinds_of(parts, word, buffer.swap):
        kind, key, (groups, rest) = told(kinds, [])
        assert list(kind) == [TABLE, KEYED, TEXT, POINTERS, NO_KIND, NO_KIND]
        assert key[:2] == [0x400010, 0x500040]
        assert sum(group.blocks for group in groups) == 6
        assert not rest
        assert [group.row for group in groups if group.kind == NO_KIND] == [4]


def test_a_chunk_that_is_mapped_has_room_to_its_page():
    blocks = Blocks([8000, 200], 8, "little")
    blocks.states[0] = MMAPPED
    start = blocks.mem(0)
    blocks.words(1, 7, start, start + 5000, start + 5000)
    assert [kinds[0] for kinds in blocks.told()] == [VECTOR] * 2
    blocks.words(1, 7, start, start + 3000, start + 3000)
    assert [kinds[0] for kinds in blocks.told()] == [ZEROS] * 2


def test_hash_tables_that_lie_cost_no_more_than_the_heap_is_large():
    """Each of many holders claims the same long chain, which does not end."""
    blocks = Blocks([24] * 400 + [40 * 8], 8, "little")
    for number in range(399):
        blocks.words(number, blocks.mem(number + 1))
    blocks.words(399, blocks.mem(0))
    holder = [blocks.mem(400), 40, blocks.mem(0), 399]
    parts, buffer = blocks.rows()
    data = struct.pack(f"<{4 * 300}Q", *(holder * 300))
    for kinds in kinds_of(parts, 8, buffer.swap):
        told(kinds, [Buffer(memoryview(data), 0, 8, "little")])
        assert bytes(kinds.kind[:399]).count(HASH_NODE) == 0


def test_groups_without_room_are_counted(monkeypatch: pytest.MonkeyPatch):
    from heapglass.native import compiled_kinds, loops_kinds

    blocks = Blocks([24 + 16 * number for number in range(40)], 8, "little")
    parts, buffer = blocks.rows()
    monkeypatch.setattr(loops_kinds, "MOST_GROUPS", 8)
    monkeypatch.setattr(compiled_kinds, "MOST_GROUPS", 8)
    monkeypatch.setattr(compiled_kinds, "FEWEST_GROUPS", 16)
    for kinds in kinds_of(parts, 8, buffer.swap):
        groups, rest = kinds.tally()
        assert (len(groups), rest) == (8, 32)

"""Pointers with a tag in the byte that aarch64 ignores (HWASan, memory tagging)."""

from __future__ import annotations

import pytest

from heapglass.heap.target import HeapThread, Place, Target
from heapglass.model import Allocator

from .asked import document

TAG = 0xB4 << 56


def process(abi: str) -> tuple[Target, list[int]]:
    """A heap in which a block holds a tagged pointer to another."""
    made = Allocator("2.36", abi)
    blocks = [made.malloc(64) for _ in range(3)]
    made.write(blocks[0] + 8, (blocks[1] + 5 | TAG).to_bytes(8, "little"))
    made.write(blocks[0] + 16, (blocks[1]).to_bytes(8, "little"))
    where = made.places
    thread = HeapThread(1, tcache_state="none", arena=where.main_arena, arena_known=True)
    places = Place(where.main_arena, "user"), Place(where.mp, "user")
    return Target(made.memory, made.layout, *places, [thread]), blocks


@pytest.mark.parametrize("line", ["chunk", "whatis", "vis", "chunks"])
def test_an_address_may_be_given_with_its_tag(line: str):
    target, blocks = process("aarch64")

    tagged = document(target, f"{line} {blocks[1] | TAG:#x}")
    plain = document(target, f"{line} {blocks[1]:#x}")

    assert tagged == plain
    assert f"{blocks[1]:#x}" in str(plain) or f"{blocks[1] - 16:#x}" in str(plain)


def test_a_tagged_pointer_is_found_with_its_tag_shown():
    target, blocks = process("aarch64")

    found = document(target, f"find --into {blocks[1]:#x}")["hits"]

    assert [(row["address"], row["value"]) for row in found] == [
        (hex(blocks[0] + 8), hex(blocks[1] + 5 | TAG)),
        (hex(blocks[0] + 16), hex(blocks[1])),
    ]


def test_elsewhere_the_top_byte_is_a_part_of_the_address():
    target, blocks = process("x86_64")

    found = document(target, f"find --into {blocks[1]:#x}")["hits"]
    tagged = document(target, f"whatis {blocks[1] | TAG:#x}")

    assert [row["address"] for row in found] == [hex(blocks[0] + 16)]
    assert tagged != document(target, f"whatis {blocks[1]:#x}")

"""`verify` as it is shown."""

from __future__ import annotations

from ..analysis.test_verify import recording
from ..analysis.test_whatif import target_of
from ..locate.modelled import play
from .asked import document, lines
from .test_try import answer_of


def test_nothing_differs() -> None:
    path, heap = recording("2.36")
    answer = answer_of("verify", heap.target, path)
    said = lines(heap.target, f"verify {path}")

    assert answer.status == 0
    assert said[0].startswith("compared  1500 calls, 1 arenas, 407 chunks")
    assert "the model has the same" in said


def test_the_first_difference_is_shown_from_both_sides() -> None:
    path, heap = recording("2.36")
    used = next(c for c in heap.every_chunk() if c.state == "used" and c.size > 0x100)
    heap.target.memory.write(used.address + 8, b"AAAAAAAA")
    found = document(heap.target, f"verify {path}")
    said = "\n".join(lines(heap.target, f"verify {path}"))

    assert answer_of("verify", heap.target, path).status == 1
    first = found["differences"][0]
    assert first["what"] == "chunk"
    assert first["address"] == hex(used.address)
    assert first["model_words"][1] == hex(used.size_field)
    assert first["memory_words"][1] == "0x4141414141414141"
    assert found["compared"]["calls"] == 1500
    assert f"words at {used.address:#x}" in said
    assert "0x4141414141414141" in said.split("  memory ")[1].splitlines()[0]


def test_without_a_trace_two_readings_are_compared() -> None:
    target = target_of(play("2.41"))
    found = document(target, "verify")

    assert found["differences"] == []
    assert found["compared"]["lines of malloc_info"] > 20


def test_a_list_that_never_ends_is_said() -> None:
    target = target_of(play("2.36", threads=1))
    memory = target.memory
    top = target.layout.bin_at(target.main_arena.address, 1)
    first = int.from_bytes(memory.read(top + 16, 8), "little")
    memory.write(first + 16, first.to_bytes(8, "little"))
    found = document(target, "verify")

    assert any("would hang" in text for text in found["warnings"])
    assert found["differences"][0]["what"] == "walk"

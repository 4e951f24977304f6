"""`try` as it is shown: text and the JSON document."""

from __future__ import annotations

import json
from typing import Any

import pytest

from heapglass.arguments import find_command, parse
from heapglass.commands import ask
from heapglass.errors import BadRequest
from heapglass.heap.target import Target
from heapglass.model import Allocator
from heapglass.render import json_pieces, text_lines
from heapglass.table import Answer

from ..analysis.test_whatif import target_of
from ..locate.modelled import Played, play
from .asked import document


@pytest.fixture
def target() -> Target:
    return target_of(play("2.36", threads=2))


def answer_of(name: str, target: Target, *words: str) -> Answer:
    command = find_command(name)
    return ask(command, target, parse(command, words))


def asked(target: Target, *words: str) -> Answer:
    return answer_of("try", target, *words)


def text(target: Target, *words: str) -> list[str]:
    return list(text_lines(asked(target, *words)))


def told(target: Target, ops: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads("".join(json_pieces(asked(target, ops))))
    return made


def test_each_call_has_its_result_and_what_it_changed(target: Target) -> None:
    said = text(target, "a = malloc 24; free a", "--then", "malloc 20")
    block = target_of(play("2.36", threads=2))
    (pointer,) = {call["pointer"] for call in told(block, "malloc 24")["calls"]}
    chunk = hex(int(pointer, 16) - 16)

    assert said[0] == f"  1  a = malloc 24  = {pointer}  $1"
    assert said[1] == f"     {chunk}  0x20 tcache[0x20] -> used"
    assert said[2] == "  2  free a"
    assert said[3] == f"     {chunk}  0x20 used -> tcache[0x20]"
    assert "then" in said[4:7]
    assert f"  3  malloc 20  = {pointer}  $3" in said


def test_an_abort_names_the_check(target: Target) -> None:
    said = text(target, "a = malloc 24; free a; free a; malloc 3; malloc 4")

    assert (
        "  3  free a  aborts: free(): double free detected in tcache 2 "
        "(checked in free, tcache)" in said
    )
    assert "2 left: the program has ended" in said


def test_chunks_that_move_alike_are_one_line() -> None:
    played = play("2.36", threads=1, tunables={"tcache_count": 0})
    blocks = [played.allocator.malloc(24) for _ in range(24)]
    for block in blocks[::2]:
        played.allocator.free(block)
    said = text(target_of(played), "malloc_trim 1000000")

    assert any("more  0x20 fast[0x20] -> unsorted" in line for line in said)


def test_a_chunk_that_another_thread_has_cached() -> None:
    played = play("2.36")
    block = played.threads[1].malloc(24)
    played.threads[1].free(block)
    said = text(target_of(played), f"malloc 24; free {block:#x}")

    assert (
        f"     {block - 16:#x}  0x20 tcache[0x20] of thread 2 -> tcache[0x20] of thread 1" in said
    )


def test_a_long_list_of_changes_is_cut(target: Target) -> None:
    short = text(target, "malloc 300000; thread new: malloc 24", "--limit", "1")
    whole = text(target, "malloc 300000; thread new: malloc 24", "--all")

    assert any("more (--all, or --limit N)" in line for line in short)
    assert len(whole) > len(short)
    assert any(line.strip().startswith("mapped 0x") for line in whole)


def test_the_document(target: Target) -> None:
    made = told(target, "a = malloc 24; free a; malloc_trim; free $1+8")
    first, second, third, last = made["calls"]

    assert (first["number"], first["call"], first["name"]) == (1, "a = malloc 24", "a")
    assert first["thread"] == 1
    assert first["chunks"] == [
        {
            "address": hex(int(first["pointer"], 16) - 16),
            "before": {"size": 32, "state": "tcache", "bin": "tcache[0x20]", "thread": 1},
            "after": {"size": 32, "state": "used", "bin": None, "thread": None},
            "other": None,
        }
    ]
    assert (second["pointer"], second["returned"]) == (None, None)
    assert third["returned"] in (0, 1)
    assert last["abort"] == "munmap_chunk(): invalid pointer"
    assert last["check"] == "free, mmapped"
    assert made["ended"] is True
    assert "tcache_key was not found" in " ".join(made["warnings"])


def test_the_thread_that_the_debugger_has_selected_calls(target: Target) -> None:
    target.current = 2
    assert told(target, "malloc 24")["calls"][0]["thread"] == 2
    target.current = 99  # a thread that is not known
    assert told(target, "malloc 24")["calls"][0]["thread"] == 1


def test_what_makes_no_sense_is_refused(target: Target) -> None:
    with pytest.raises(BadRequest, match="is no call"):
        asked(target, "mallok 3")
    target.mp = None
    with pytest.raises(BadRequest, match="mp_ was not found"):
        asked(target, "malloc 3")


def test_an_empty_heap_can_be_played_on() -> None:
    allocator = Allocator("2.36")
    found = target_of(Played(allocator, [allocator]))
    made = document(found, "try malloc(24)")

    assert made["calls"][0]["abort"] is None
    assert "malloc has not been called yet" in " ".join(made["warnings"])

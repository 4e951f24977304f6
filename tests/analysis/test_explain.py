"""Why a program ended: the text in its forms; the scripts of 21 releases after their end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heapglass.analysis.explain import CHECKS, check_of, explain_end
from heapglass.analysis.explain.message import find_message
from heapglass.glibc.messages import ASSERTIONS, MESSAGES, assertion
from heapglass.heap.heap import Heap
from heapglass.heap.target import HeapThread, Target
from heapglass.locate import Overrides, locate
from heapglass.memory import ByteMemory, Region
from heapglass.source import Stop
from heapglass.targets.trace import open_trace

from .test_check import crowd, target_of
from .test_check_scripts import RELEASES, damage, named, scripts

# The fastbin's head went over to what is no chunk: nothing is left of the block that led there.
TAKEN_APART = {"tcache_fd_raw"}
NOT_OF_A_CHUNK = {"max tcache size too large"}  # nothing that a program does


# --- the text -------------------------------------------------------------------------------------


def test_every_text_of_mallocs_is_a_check() -> None:
    assert {row.text for row in MESSAGES} - NOT_OF_A_CHUNK == set(CHECKS)


def test_every_assertion_is_a_check_of_its_function() -> None:
    for row in ASSERTIONS:
        version = (row.since[0], row.since[1])
        check = check_of(assertion(row.key, version))
        assert check is not None
        assert check.function == row.function


def test_a_text_of_somebody_elses_is_no_check() -> None:
    assert check_of("*** stack smashing detected ***: terminated") is None


@pytest.mark.parametrize(
    ("said", "text", "pointer"),
    [
        ("free(): invalid pointer\n", "free(): invalid pointer", None),
        (
            "*** Error in `./a: b': double free or corruption (out): 0x00000000025c1010 ***",
            "double free or corruption (out)",
            0x25C1010,
        ),
        (
            "prog: malloc.c:2379: sysmalloc: Assertion `x' failed.",
            "malloc.c:2379: sysmalloc: Assertion `x' failed.",
            None,
        ),
    ],
)
def test_a_text_that_somebody_saw_loses_its_frame(
    said: str, text: str, pointer: int | None
) -> None:
    c = crowd()
    found = find_message(Heap(target_of(c.model, c.threads)), said, None)
    assert found is not None
    assert (found.text, found.how, found.pointer) == (text, "--message", pointer)


def with_message(target: Target, text: bytes, size: int = 0x1000) -> Target:
    """The target with a mapping as glibc makes one for its last words."""
    return with_page(target, 0x7FFFF7F00000, size.to_bytes(4, "little") + text + b"\n")


def with_page(target: Target, at: int, data: bytes) -> Target:
    """The target with one more page of memory."""
    page = data.ljust(0x1000, b"\0")
    regions = [one for one in target.memory.regions() if one.perms[0] == "r"]
    pieces = {one.start: bytes(target.memory.view(one.start, one.end)) for one in regions}
    pieces[at] = page
    regions = sorted([*regions, Region(at, at + 0x1000, "rw-", "")])
    target.memory = ByteMemory(pieces, regions)
    return target


def test_the_mapping_of_the_text_is_told_by_its_shape() -> None:
    c = crowd()
    text = b"corrupted double-linked list"
    found = find_message(Heap(with_message(target_of(c.model, c.threads), text)), None, None)
    assert found is not None
    assert (found.text, found.how) == (text.decode(), "__abort_msg")
    no_page = with_message(target_of(c.model, c.threads), text, size=0x1001)
    assert find_message(Heap(no_page), None, None) is None
    not_mallocs = with_message(target_of(c.model, c.threads), b"stack smashing detected")
    assert find_message(Heap(not_mallocs), None, None) is None


# --- what the thread has in hand ------------------------------------------------------------------


def test_the_block_in_hand_is_chosen_among_those_for_which_the_check_fails() -> None:
    c = crowd()
    target = target_of(c.model, c.threads)
    twice = [c.cached[1], c.cached[0]]
    for mem in twice:
        thread = HeapThread(1, registers=(("rbx", mem), ("rbp", mem - 16)), stop=Stop(6))
        target.threads = [thread._replace(**_kept(target))]
        found = explain_end(Heap(target), "free(): double free detected in tcache 2")
        assert found.chunk == mem - 16
        assert found.cause is not None
        assert (found.cause.kind, found.cause.culprit) == ("double free", mem - 16)


def test_a_block_whose_free_is_foretold_comes_before_what_malloc_never_gave() -> None:
    c = crowd()
    mem, behind = c.model.malloc(0x1508), c.model.malloc(0x1508)
    assert behind == mem + 0x1510
    c.poke(behind - 8, 0x1510)  # P is cleared
    fake = 0x7FFFF7E00100
    sizes = b"".join(word.to_bytes(8, "little") for word in (0x21, 0, 0, 0, 0x20))
    target = with_page(target_of(c.model, c.threads), fake & -0x1000, bytes(0x108) + sizes)
    said = "double free or corruption (!prev)"
    for hand in (fake + 16, mem):
        thread = HeapThread(1, registers=(("rbx", hand),), stop=Stop(6))
        target.threads = [thread._replace(**_kept(target))]
        found = explain_end(Heap(target), said)
        assert found.chunk == mem - 16
        assert (fake in found.others) == (hand != mem)
    c.poke(behind - 8, 0x1511)
    target = with_page(target_of(c.model, c.threads), fake & -0x1000, bytes(0x108) + sizes)
    thread = HeapThread(1, registers=(("rbx", fake + 16),), stop=Stop(6))
    target.threads = [thread._replace(**_kept(target))]
    assert explain_end(Heap(target), said).chunk == fake


def _kept(target: Target) -> dict[str, Any]:
    one = target.threads[0]
    return {
        name: getattr(one, name)
        for name in ("tcache", "tcache_state", "arena", "arena_known", "tcache_how")
    }


def test_a_whole_heap_that_says_nothing_is_not_explained() -> None:
    c = crowd()
    found = explain_end(Heap(target_of(c.model, c.threads)))
    assert (found.text, found.chunk, found.cause, found.checked.findings) == (None, None, None, [])


# --- what real releases said ----------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
def test_the_check_and_the_chunk_are_named_after_the_call(release: str, tmp_path: Path) -> None:
    path, aborts = tmp_path / "trace.jsonl", 0
    for script in scripts(release):
        name, last = script[0]["name"], script[-1]
        path.write_text("\n".join(json.dumps(line) for line in script))
        with open_trace(str(path)) as source:
            target = locate(source, Overrides())
            found = explain_end(Heap(target))
        header = target.layout.header
        if "abort" in last:
            aborts += 1
            assert found.text is not None, name
            assert found.text in last["abort"], name
            assert found.check is not None, name
        given = last.get("ptr") or last.get("old")
        right = set() if given is None else {int(given, 16) - header}
        for low, _ in damage(script):
            right |= {low - step * target.layout.word for step in range(6)}
        shown = found.checked.findings[:2]
        words = any(named(one, damage(script)) for one in shown)
        told = name in TAKEN_APART or found.chunk in right or words
        assert told, (name, found.text, hex(found.chunk or 0), shown)
        if "abort" in last and name not in TAKEN_APART:
            assert found.chunk is not None, (name, found.text)
    assert aborts >= 15

"""Traces of real processes: where mmap placed things is taken from them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from heapglass.cli import main
from heapglass.errors import BadTarget
from heapglass.model.replay import Replay, replay
from heapglass.model.trace import Call, Header, call_line, origins, read_trace, write_trace

HEAD = {"heapglass_trace": 1, "glibc": "2.36", "maps": "recorded"}
BASE = 0x555555559000
MIB = 1 << 20
PLACE = 0x7FFF_1234_5000
FAR = PLACE + 64 * MIB
HEAP = 0x7FFF_0400_0000
FIRST = 0x8D0  # of a thread's first block in its arena: heap_info, malloc_state
TCACHE = 0x290


def trace(path: Path, *calls: dict[str, Any], head: dict[str, Any] | None = None) -> str:
    file = path / "t.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in (head or HEAD, *calls)))
    return str(file)


def played(path: Path, *calls: dict[str, Any], head: dict[str, Any] | None = None) -> Replay:
    return replay(read_trace(trace(path, *calls, head=head)))


def test_the_added_keys_are_written_and_read(tmp_path: Path) -> None:
    header = Header("2.41", mmap_top=0x7FFFF7000000, ncpu=4, maps="recorded", fresh=False, by="gdb")
    lines = [
        call_line("malloc", size=1, ptr=0x1000, maps=[None, 0x2000], stack=["0x1 main+0x1"]),
        call_line("free", ptr=0x1000, late=True),
    ]
    text = io.StringIO()
    write_trace(text, header, lines)
    (tmp_path / "t").write_text(text.getvalue())

    found = read_trace(str(tmp_path / "t"))
    assert found.header == header
    first, second = found.calls
    assert first == Call(
        2, "malloc", 1, {"size": 1, "ptr": 0x1000}, None, None, (None, 0x2000), ("0x1 main+0x1",)
    )
    assert second.late
    assert not first.late


@pytest.mark.parametrize("maps", ["0x1000", [1.5], ["wild"], [0] * 65])
def test_places_that_make_no_sense(tmp_path: Path, maps: Any) -> None:
    with pytest.raises(BadTarget, match="line 2: maps"):
        played(tmp_path, {"op": "malloc", "size": 1, "maps": maps})


def test_a_mapping_is_where_it_was(tmp_path: Path) -> None:
    call = {"op": "malloc", "size": MIB, "ptr": hex(PLACE + 16)}
    assert played(tmp_path, call).mismatches == []
    plain = {"heapglass_trace": 1, "glibc": "2.36"}
    assert played(tmp_path, call, head=plain).mismatches != []


def test_an_aligned_block_says_where_its_mapping_began(tmp_path: Path) -> None:
    """Its header stands pages behind the start, which its pointer does not tell."""
    block = PLACE + (1 << 16) & -(1 << 16)
    call = {"op": "memalign", "alignment": 1 << 16, "size": MIB, "ptr": hex(block)}
    assert played(tmp_path, {**call, "maps": [hex(PLACE)]}).mismatches == []


def test_a_block_that_moved_and_one_that_was_refused(tmp_path: Path) -> None:
    calls = [
        {"op": "malloc", "size": MIB, "ptr": hex(PLACE + 16)},
        {
            "op": "realloc",
            "old": hex(PLACE + 16),
            "size": 3 * MIB,
            "ptr": hex(PLACE + 64 * MIB + 16),
        },
        {"op": "malloc", "size": MIB, "ptr": hex(PLACE + 16)},
        {"op": "malloc", "size": 1 << 45, "ptr": "0x0"},
    ]
    assert played(tmp_path, *calls).mismatches == []


def test_a_threads_heap_is_where_it_was(tmp_path: Path) -> None:
    block = {"op": "malloc", "size": 24, "ptr": hex(HEAP + FIRST + TCACHE + 16), "thread": 2}
    first = {"op": "malloc", "size": 24}
    start = {"op": "thread_start", "thread": 2}
    end = {"op": "thread_exit", "thread": 2}
    assert played(tmp_path, first, start, block, end).mismatches == []
    # A thread whose first call gives none of its heap away.
    big = {"op": "malloc", "size": MIB, "ptr": hex(PLACE + 16), "thread": 2}
    places = {"maps": [None, hex(HEAP), hex(PLACE)]}
    assert played(tmp_path, first, start, {**big, **places}, block).mismatches == []


def test_what_would_cover_malloc_itself_is_not_believed(tmp_path: Path) -> None:
    first = {"op": "malloc", "size": 24}
    call = {"op": "malloc", "size": MIB, "ptr": hex(0x555555559010)}
    assert played(tmp_path, first, call).mismatches[0].line == 3


def test_a_late_free_goes_past_the_tcache(tmp_path: Path) -> None:
    calls = [
        {"op": "malloc", "size": 24, "id": "a"},
        {"op": "malloc", "size": 1000, "id": "b"},
        {"op": "malloc", "size": 24, "id": "top"},
        {"op": "thread_start", "thread": 2},
        {"op": "malloc", "size": 24, "thread": 2},
        {"op": "thread_exit", "thread": 2},
    ]
    late = {"op": "free", "id": "b", "thread": 2, "late": True}
    result = played(tmp_path, *calls, late)
    assert sorted(result.threads) == [1]
    machine = result.allocator.machine
    b = result.pointers[1]
    assert b is not None
    assert machine.load(b) == machine.main + machine.layout.state.offset("top")  # unsorted


def test_many_threads_one_behind_the_other(tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = [{"op": "malloc", "size": 24}]
    for number in range(2, 700):
        calls += [
            {"op": "thread_start", "thread": number},
            {"op": "malloc", "size": 24, "thread": number},
            {"op": "thread_exit", "thread": number},
        ]
    result = played(tmp_path, *calls)
    assert result.calls == len(calls)
    assert len({pointer >> 26 for pointer in result.pointers if pointer}) == 2  # one arena, reused


def test_a_heap_in_use_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trace(tmp_path, {"op": "malloc", "size": 1}, head={**HEAD, "fresh": False})
    assert main(["replay", path]) == 0
    assert "on a heap in use" in capsys.readouterr().out
    assert main(["info", path]) == 0
    assert "on a heap in use" in capsys.readouterr().out


@pytest.mark.parametrize("glibc", ["2.27", "2.31", "2.41", "2.42"])
def test_a_tcache_that_is_emptied_step_by_step(glibc: str, tmp_path: Path) -> None:
    """Another thread's call comes between the steps."""
    calls = [
        {"op": "malloc", "size": 1000, "id": "a"},
        {"op": "malloc", "size": 1000, "id": "b"},
        {"op": "malloc", "size": 24},
        {"op": "thread_start", "thread": 2},
        {"op": "malloc", "size": 24, "thread": 2, "id": "c"},
        {"op": "free", "id": "a", "thread": 2},
        {"op": "free", "id": "c", "thread": 2},
    ]
    head = {"heapglass_trace": 1, "glibc": glibc}
    before = played(tmp_path, *calls, head=head)
    thread = before.threads[2]
    struct = thread.machine.load(thread.tls + thread.machine.places.tls.tcache)
    a, c = before.pointers[0], before.pointers[4]
    steps = [
        {"op": "thread_drain", "ptr": hex(c or 0), "thread": 2},
        {"op": "malloc", "size": 1000, "id": "d"},
        {"op": "thread_drain", "ptr": hex(a or 0), "thread": 2},
        {"op": "malloc", "size": 1000, "ptr": hex(a or 0)},
        {"op": "thread_drain", "ptr": hex(struct), "thread": 2},
        {"op": "thread_exit", "thread": 2},
    ]
    result = played(tmp_path, *calls, *steps, head=head)
    assert result.mismatches == []
    assert sorted(result.threads) == [1]
    steps[0], steps[2] = steps[2], steps[0]
    assert played(tmp_path, *calls, *steps, head=head).mismatches[0].line == 9


def test_where_a_block_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = BASE + 0x2A0, BASE + 0x2C0
    calls: list[dict[str, Any]] = [
        {"op": "calloc", "nmemb": 2, "size": 8, "ptr": hex(first)},
        {"op": "malloc", "size": 24, "ptr": hex(second), "stack": ["0x1 make+4", "0x2"]},
        {"op": "thread_start", "thread": 2},
        {"op": "free", "ptr": hex(first), "thread": 2},
        {"op": "malloc", "size": 0, "ptr": hex(first)},
        {"op": "realloc", "old": hex(first), "size": 0, "ptr": "0x0"},
    ]
    path = trace(tmp_path, *calls)
    found = origins(read_trace(path), (first, second, 1))
    given, taken = found[first]
    assert given is not None
    assert taken is not None
    assert (given.number, given.text()) == (4, "malloc(0) at call 4, thread 1")
    assert taken.text() == "realloc(0) at call 5, thread 1"
    assert found[second][1] is None
    assert found[1] == (None, None)

    assert main(["chunk", path, hex(second), "--trace", path]) == 0
    said = capsys.readouterr().out
    assert "allocated by  malloc(24) at call 2, thread 1: make+4 < 0x2\n" in said
    assert "freed by" not in said
    assert main(["chunk", path, hex(first), "--trace", path]) == 0
    assert "freed by      realloc(0) at call 5, thread 1\n" in capsys.readouterr().out

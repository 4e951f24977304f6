"""Recordings made by hand, and the traces that are made of them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from heapglass.errors import BadRequest, BadTarget
from heapglass.model.replay import replay
from heapglass.model.trace import read_trace
from heapglass.recorder import convert
from heapglass.recorder.convert import abort_text, tunables
from heapglass.recorder.raw import Flag, Op

HEAP, ARENA = 0x555555559000, 0x7FFF_0400_0030
PAGE = 4096


def head(used: int, **changes: Any) -> bytes:
    values = {
        "pid": 7,
        "page": PAGE,
        "ncpu": 2,
        "start_brk": HEAP,
        "brk": HEAP,
        "arena": 0,
        "error": 0,
        "machine": b"x86_64",
        "glibc": b"2.36",
        "abort": b"",
        "settings": b"",
        **changes,
    }
    v = values
    made = struct.pack(
        "=8sIIQQQQQQQQ16s32s512s512s512s1536s",
        *(b"hgcalls", 1, 8, used, v["pid"], v["page"], v["ncpu"], v["start_brk"], v["brk"]),
        *(v["arena"], v["error"], v["machine"], v["glibc"], b"/lib/libc.so.6", b"/bin/p"),
        *(v["abort"], v["settings"]),
    )
    return made.ljust(PAGE, b"\0")


def record(
    op: Op, a: int = 0, b: int = 0, result: int = 0, thread: int = 1, flags: int = 0
) -> bytes:
    return struct.pack("=BBHIQQQ", op, flags, 0, thread, a, b, result)


def made(path: Path, *records: bytes, signal: str = "", **changes: Any) -> tuple[Any, list[Any]]:
    raw, trace = path / "raw", path / "t.jsonl"
    raw.write_bytes(head(len(records), **changes) + b"".join(records) + bytes(320))
    done = convert(str(raw), str(trace), signal)
    header, *lines = map(json.loads, trace.read_text().splitlines())
    assert header["heapglass_trace"] == 1
    return done, lines


def test_calls_and_their_facts(tmp_path: Path) -> None:
    done, lines = made(
        tmp_path,
        record(Op.THREAD_START, 7),
        record(Op.MALLOC, 24, result=HEAP + 0x2A0),
        record(Op.THREAD_START, 8, thread=2),
        record(Op.MALLOC, 1 << 20, result=0x7FFF_0300_0010, thread=2, flags=Flag.MMAPPED),
        record(Op.ARENA, ARENA, thread=2),
        record(Op.MAPPING, 0x7FFF_0300_0000, thread=2),
        record(Op.BREAK, (1 << 64) - 16, result=HEAP),
        record(Op.FREE, HEAP + 0x2A0, thread=2, flags=Flag.LATE),
        record(Op.THREAD_EXIT, 8, thread=2, flags=Flag.UNSURE),
    )
    assert (done.calls, done.threads, done.ending) == (4, 2, "")
    assert done.warnings == ["thread 2 ended at a time that is not sure"]
    assert lines == [
        {"op": "malloc", "size": 24, "ptr": "0x5555555592a0"},
        {"op": "thread_start", "tid": 8, "thread": 2},
        {
            "op": "malloc",
            "size": 1 << 20,
            "ptr": "0x7fff03000010",
            "thread": 2,
            "maps": [None, "0x7fff04000000", "0x7fff03000000"],
        },
        {"op": "brk", "delta": -16, "ptr": "0x555555559000"},
        {"op": "free", "ptr": "0x5555555592a0", "thread": 2, "late": True},
        {"op": "thread_exit", "tid": 8, "thread": 2},
    ]


@pytest.mark.parametrize(
    ("abort", "signal", "ending"),
    [
        (b"free(): invalid pointer\n", "SIGABRT", {"abort": "free(): invalid pointer"}),
        (b"", "SIGSEGV", {"signal": "SIGSEGV"}),
        (b"", "", None),
    ],
)
def test_a_call_that_did_not_return(
    tmp_path: Path, abort: bytes, signal: str, ending: dict[str, str] | None
) -> None:
    records = [
        record(Op.MALLOC, 24, result=HEAP + 0x2A0),
        record(Op.FREE, HEAP + 0x2A8, flags=Flag.PENDING),
    ]
    done, lines = made(tmp_path, *records, abort=abort, signal=signal)
    if ending is None:
        assert len(lines) == 1
        assert "did not return" in done.warnings[0]
        return
    assert lines[1] == {"op": "free", "ptr": "0x5555555592a8", **ending}
    assert done.ending == next(iter(ending.values()))
    if abort:
        assert replay(read_trace(str(tmp_path / "t.jsonl"))).mismatches == []


def test_a_heap_in_use_and_a_full_disk_are_said(tmp_path: Path) -> None:
    done, _ = made(tmp_path, brk=HEAP + PAGE, error=28)
    assert not done.header.fresh
    assert done.warnings == ["the recording ends early: its file could not grow (errno 28)"]


def test_a_torn_file_gives_what_it_has(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(head(100) + record(Op.MALLOC, 1, result=HEAP + 0x2A0) + b"\x01")
    assert convert(str(raw), str(tmp_path / "t")).calls == 1


@pytest.mark.parametrize(
    "data", [b"", b"hgcalls\0", bytes(PAGE), b"hgcalls\0\2".ljust(PAGE, b"\0")]
)
def test_what_is_no_recording(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "raw").write_bytes(data)
    with pytest.raises(BadTarget, match="recording"):
        convert(str(tmp_path / "raw"), str(tmp_path / "t"))


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(BadTarget, match="cannot be opened"):
        convert(str(tmp_path / "none"), str(tmp_path / "t"))
    (tmp_path / "raw").write_bytes(head(0))
    with pytest.raises(BadRequest, match="cannot write"):
        convert(str(tmp_path / "raw"), str(tmp_path / "no" / "t"))


@pytest.mark.parametrize("end", [".gz", ".xz", ".zst"])
def test_packed_as_the_name_says(tmp_path: Path, end: str) -> None:
    (tmp_path / "raw").write_bytes(head(1) + record(Op.MALLOC, 24, result=HEAP + 0x2A0))
    path = tmp_path / f"t.jsonl{end}"
    convert(str(tmp_path / "raw"), str(path))
    assert not path.read_bytes().startswith(b"{")
    assert [call.values["size"] for call in read_trace(str(path)).calls] == [24]


def test_what_the_environment_sets() -> None:
    said = ("MALLOC_ARENA_MAX=3", "MALLOC_PERTURB_=x", "MALLOC_TOP_PAD_=010")
    tuned = "GLIBC_TUNABLES=glibc.malloc.arena_max=0x4:glibc.cpu.x=1:glibc.malloc.check=y"
    assert tunables((*said, tuned)) == {"glibc.malloc.arena_max": 4, "glibc.malloc.top_pad": 8}


def test_texts_of_old_releases() -> None:
    old = "*** Error in `./a.out': double free or corruption (fasttop): 0x0000000000c1b010 ***\n"
    assert abort_text(old) == "double free or corruption (fasttop)"
    assert abort_text("free(): invalid size\n") == "free(): invalid size"

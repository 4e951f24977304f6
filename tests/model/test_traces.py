"""Traces: reading, writing, replaying, and the commands that take one."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from heapglass.cli import main
from heapglass.errors import BadTarget, HeapglassError, UnsupportedGlibc
from heapglass.model.replay import Replay, replay
from heapglass.model.trace import Header, call_line, read_trace, write_trace

HEAD = {"heapglass_trace": 1, "glibc": "2.36"}
BASE = 0x555555559000


def trace(path: Path, *calls: dict[str, Any], head: dict[str, Any] | None = None) -> str:
    lines = [head or HEAD, *calls]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    return str(path)


def played(path: Path, *calls: dict[str, Any], keep_going: bool = False) -> Replay:
    return replay(read_trace(trace(path / "t.jsonl", *calls)), keep_going)


def test_a_trace_written_is_a_trace_read(tmp_path: Path) -> None:
    header = Header("2.41", "i386", 0x56559000, 4096, {"tcache_count": 2}, 0xF7FA07C0)
    lines = [
        call_line("malloc", size=24, ptr=0x565591A0, thread=1),
        call_line("free", ptr=0x565591A0),
        call_line("write", ptr=0x565591A0, bytes=b"\x01\xff"),
        call_line("realloc", old=None, size=3),
    ]
    text = io.StringIO()
    write_trace(text, header, lines)
    (tmp_path / "t.jsonl").write_text(text.getvalue())
    read = read_trace(str(tmp_path / "t.jsonl"))
    assert read.header == header
    calls = list(read.calls)
    assert [call.op for call in calls] == ["malloc", "free", "write", "realloc"]
    assert calls[0].values == {"size": 24, "ptr": 0x565591A0}
    assert calls[2].values["bytes"] == b"\x01\xff"
    assert Header("2.23").line() == json.dumps(
        {"heapglass_trace": 1, "glibc": "2.23", "abi": "x86_64", "page_size": 4096, "tunables": {}}
    )


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_compressed_traces(tmp_path: Path, pack: Any) -> None:
    path = tmp_path / "t"
    path.write_bytes(pack(Path(trace(tmp_path / "p", {"op": "malloc", "size": 1})).read_bytes()))
    assert replay(read_trace(str(path))).calls == 1
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(BadTarget, match=r"cannot be read|no JSON"):
        list(read_trace(str(path)).calls)


def test_traces_packed_by_others(tmp_path: Path) -> None:
    zstandard = importlib.import_module("zstandard")
    lz4 = importlib.import_module("lz4.frame")
    plain = Path(trace(tmp_path / "p", {"op": "malloc", "size": 1})).read_bytes()
    for data in (zstandard.ZstdCompressor().compress(plain), lz4.compress(plain)):
        (tmp_path / "t").write_bytes(data)
        assert replay(read_trace(str(tmp_path / "t"))).calls == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[]", "line 2 is no JSON object"),
        ("{", "line 2 is no JSON object"),
        ('{"op": "steal"}', "line 2: no op 'steal'"),
        ('{"op": "malloc"}', "line 2: malloc needs 'size'"),
        ('{"op": "malloc", "size": -1}', "line 2: size is '-1', expected a size"),
        ('{"op": "malloc", "size": "x"}', "expected a size"),
        ('{"op": "malloc", "size": true}', "expected a size"),
        ('{"op": "malloc", "size": 99999999999999999999}', "expected a size"),
        ('{"op": "free", "ptr": "zz"}', "ptr is 'zz', expected a pointer"),
        ('{"op": "write", "ptr": "0x1", "bytes": "0"}', "expected a bytes"),
        ('{"op": "free", "id": 7}', "expected a text"),
        ('{"op": "free", "id": "a"}', "no block was given the id 'a'"),
        ('{"op": "thread_exit"}', "thread 1 cannot end"),
        ('{"op": "thread_start", "thread": 1}', "thread 1 runs already"),
        ('{"op": "mallopt", "param": "M_X", "value": 1}', "mallopt has no 'M_X'"),
    ],
)
def test_lines_that_make_no_sense(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(HEAD) + "\n" + line + "\n")
    with pytest.raises(HeapglassError) as caught:
        replay(read_trace(str(path)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"heapglass_trace": 2, "glibc": "2.36"}, "no trace of a version"),
        ({"heapglass_trace": 1}, "line 1 must say"),
        ({"heapglass_trace": 1, "glibc": "2.36", "tunables": [1]}, "line 1 must say"),
        ({"heapglass_trace": 1, "glibc": "2.36", "page_size": "big"}, "page_size is 'big'"),
        ({"heapglass_trace": 1, "glibc": "2.36", "page_size": 1000}, "page size 1000"),
        ({"heapglass_trace": 1, "glibc": "2.36", "tunables": {"x": 1}}, "no tunable 'x'"),
        ({"heapglass_trace": 1, "glibc": "2.36", "tunables": {"perturb": "a"}}, "must be a number"),
        ({"heapglass_trace": 1, "glibc": "2.22"}, "outside of the tables"),
        ({"heapglass_trace": 1, "glibc": "2.36", "abi": "vax"}, "no table for the ABI vax"),
    ],
)
def test_headers_that_make_no_sense(tmp_path: Path, head: dict[str, Any], said: str) -> None:
    with pytest.raises(HeapglassError) as caught:
        replay(read_trace(trace(tmp_path / "t", head=head)))
    assert said in str(caught.value)


def test_a_file_that_cannot_be_opened_or_has_a_long_line(tmp_path: Path) -> None:
    with pytest.raises(BadTarget, match="cannot be opened"):
        read_trace(str(tmp_path))
    path = tmp_path / "t"
    path.write_text(json.dumps(HEAD) + "\n" + " " * ((1 << 24) + 2))
    with pytest.raises(BadTarget, match="line 2 is longer"):
        list(read_trace(str(path)).calls)


def test_every_op_is_played(tmp_path: Path) -> None:
    head = {**HEAD, "glibc": "2.43"}
    calls: list[dict[str, Any]] = [
        {"op": "malloc", "size": 24, "id": "a"},
        {"op": "calloc", "nmemb": 2, "size": 24, "id": "b"},
        {"op": "realloc", "old_id": "a", "size": 96, "id": "c"},
        {"op": "memalign", "alignment": 64, "size": 24, "id": "d"},
        {"op": "aligned_alloc", "alignment": 64, "size": 24, "id": "e"},
        {"op": "posix_memalign", "alignment": 64, "size": 24, "id": "f"},
        {"op": "valloc", "size": 24, "id": "g"},
        {"op": "pvalloc", "size": 24, "id": "h"},
        {"op": "write", "id": "c", "offset": 8, "bytes": "ff00"},
        {"op": "free", "id": "b"},
        {"op": "free_sized", "id": "d", "size": 24},
        {"op": "free_aligned_sized", "id": "e", "alignment": 64, "size": 24},
        {"op": "thread_start", "thread": 2},
        {"op": "malloc", "size": 24, "thread": 2},
        {"op": "malloc", "size": 24, "thread": 3},
        {"op": "thread_exit", "thread": 2},
        {"op": "malloc_trim", "pad": 0},
        {"op": "malloc_trim"},
        {"op": "mallopt", "param": "M_TOP_PAD", "value": 4096},
        {"op": "mallopt", "param": -8, "value": 2},
        {"op": "brk", "delta": 4096},
        {"op": "free", "ptr": None},
        {"op": "realloc", "old": None, "size": 5},
    ]
    result = replay(read_trace(trace(tmp_path / "t", *calls, head=head)))
    assert result.calls == len(calls)
    assert not result.mismatches
    assert result.pointers[0] == 0x555555559010
    assert [p is None for p in result.pointers[8:13]] == [True] * 5
    assert sorted(result.threads) == [1, 3]


def test_the_first_difference_ends_it_or_all_are_listed(tmp_path: Path) -> None:
    calls = [{"op": "malloc", "size": 24, "ptr": hex(BASE + 16 * n)} for n in (0x2A, 0x2B, 0x2E)]
    result = played(tmp_path, *calls)
    assert (result.calls, len(result.mismatches)) == (2, 1)
    assert result.mismatches[0] == (3, hex(BASE + 0x2B0), hex(BASE + 0x2C0))
    assert played(tmp_path, *calls, keep_going=True).calls == 3


def test_aborts_and_crashes_are_compared(tmp_path: Path) -> None:
    twice = [{"op": "malloc", "size": 24, "id": "a"}, {"op": "free", "id": "a"}]
    text = "free(): double free detected in tcache 2"
    result = played(tmp_path, *twice, {"op": "free", "id": "a", "abort": text})
    assert not result.mismatches
    assert result.abort is not None
    assert result.abort[:2] == (4, text)
    result = played(tmp_path, *twice, {"op": "free", "id": "a"}, {"op": "malloc", "size": 1})
    assert result.mismatches == [(4, "returns", f"abort: {text}")]
    assert result.calls == 3
    result = played(tmp_path, {"op": "malloc", "size": 1, "abort": "x"}, keep_going=True)
    assert result.mismatches[0].expected == "abort: x"
    result = played(tmp_path, {"op": "free", "ptr": "0x1010", "signal": "SIGSEGV"})
    assert not result.mismatches
    assert result.fault is not None
    assert "0x1008" in result.fault.message


def test_replay_in_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = trace(tmp_path / "g.jsonl", {"op": "malloc", "size": 24, "ptr": hex(BASE + 0x2A0)})
    image = tmp_path / "image"
    assert main(["replay", good, "--json", "--image", str(image)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["calls"] == 1
    assert said["mismatches"] == []
    assert said["pointers"] == [hex(BASE + 0x2A0)]
    assert said["abort"] is None
    data = image.read_bytes()
    assert len(data) == 0x21000
    assert data[8:16] == (0x291).to_bytes(8, "little")
    bad = trace(tmp_path / "b.jsonl", {"op": "malloc", "size": 24, "ptr": "0x10"})
    assert main(["replay", bad]) == 1
    assert "0x5555555592a0" in capsys.readouterr().out
    assert main(["replay", good, "--image", str(tmp_path)]) == 2
    assert "cannot write" in capsys.readouterr().err
    ends = trace(tmp_path / "e.jsonl", {"op": "free", "ptr": hex(BASE)})
    assert main(["replay", ends]) == 1
    assert "crashes at line 2" in capsys.readouterr().out
    twice = [{"op": "malloc", "size": 24, "id": "a"}, *[{"op": "free", "id": "a"}] * 2]
    assert main(["replay", trace(tmp_path / "d.jsonl", *twice)]) == 1
    assert "aborts at line 4" in capsys.readouterr().out


def test_the_readers_commands_on_a_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = [
        {"op": "malloc", "size": 24, "id": "a", "ptr": "0x10"},
        {"op": "malloc", "size": 300, "id": "b"},
        {"op": "malloc", "size": 24, "thread": 2},
        {"op": "free", "id": "a"},
        {"op": "free", "id": "a"},
    ]
    path = trace(tmp_path / "t.jsonl", *calls)
    assert main(["chunks", path, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    states = [chunk["state"] for chunk in said["chunks"]]
    assert states.count("tcache") == 1
    assert any("differences" in warning for warning in said["warnings"])
    assert any("aborted at line 6" in warning for warning in said["warnings"])
    assert main(["info", path, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["glibc"]["version"] == "2.36"
    assert [thread["id"] for thread in said["threads"]] == [1, 2]
    assert said["threads"][1]["arena"] != said["threads"][0]["arena"]
    crash = trace(tmp_path / "c.jsonl", {"op": "free", "ptr": "0x10"})
    assert main(["arenas", crash, "--json"]) == 0
    assert "crashed at line 2" in capsys.readouterr().out


def test_the_image_of_a_heap_that_is_not_there(tmp_path: Path) -> None:
    head = {**HEAD, "glibc": "2.43"}
    mapped = read_trace(trace(tmp_path / "t", {"op": "malloc", "size": 1 << 20}, head=head))
    assert replay(mapped).image() == (BASE, b"")
    with pytest.raises(UnsupportedGlibc):
        played(tmp_path, {"op": "free_sized", "ptr": None})


def test_too_many_threads(tmp_path: Path) -> None:
    calls = [{"op": "thread_start", "thread": n} for n in range(2, 600)]
    with pytest.raises(BadTarget, match="too many threads"):
        played(tmp_path, *calls)

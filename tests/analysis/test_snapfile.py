"""Snapshot files: what was written is read; anything else is refused in one line."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest

from heapglass.analysis.diff import compare
from heapglass.analysis.snapfile import is_snapshot, read_snapshot, write_snapshot
from heapglass.analysis.snapshot import Snapshot
from heapglass.errors import BadRequest, BadTarget
from tests.analysis.test_diff import Holed, snap, told
from tests.locate.modelled import play


@pytest.fixture
def made() -> Snapshot:
    played = play("2.36", threads=2)
    played.allocator.malloc(300000)
    return snap(played)


@pytest.mark.parametrize("contents", [True, False])
def test_what_was_written_is_read(contents: bool, tmp_path: Path) -> None:
    path = str(tmp_path / "one.snap")
    played = play("2.43", "s390x")
    played.allocator.malloc(300000)
    one = snap(played, contents)
    size = write_snapshot(path, one)
    again = read_snapshot(path)

    assert size == Path(path).stat().st_size
    assert is_snapshot(path)
    for name in (
        "addresses",
        "sizes",
        "states",
        "bins",
        "own",
        "spans",
        "glibc",
        "abi",
        "word",
        "header",
    ):
        assert getattr(again, name) == getattr(one, name), name
    assert (again.memory is not None) == contents
    assert again.sums == (None if contents else one.sums)
    assert len(compare(one, again)) == 0
    block = played.allocator.malloc(24)
    assert set(told(compare(again, snap(played)))) >= {block - 16}


def test_it_cannot_be_written_there(made: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot write"):
        write_snapshot(str(tmp_path), made)


def test_what_is_none_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\x7fELF")

    assert not is_snapshot(str(path))
    assert not is_snapshot(str(tmp_path))
    assert not is_snapshot("/nonexistent\0")
    with pytest.raises(BadTarget, match="its first line is none"):
        read_snapshot(str(path))
    with pytest.raises(BadTarget, match="it cannot be read"):
        read_snapshot(str(tmp_path / "nothing"))


def changed(path: Path, **more: Any) -> str:
    """The same file with another first line."""
    line, rest = path.read_bytes().split(b"\n", 1)
    said = {**json.loads(line), **more}
    path.write_bytes(json.dumps(said).encode() + b"\n" + rest)
    return str(path)


BOMB = zlib.compress(bytes(1 << 20))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"heapglass_snapshot": 9}, "it is of version 9, known is 1"),
        ({"glibc": "1.9"}, "1.9"),
        ({"abi": "vax"}, "vax"),
        ({"chunks": -1}, "it says that it has -1 chunks"),
        ({"chunks": 3}, "addresses is not one for each of 3 chunks"),
        ({"labels": "x"}, "labels is no list"),
        ({"labels": ["x" * 99]}, "its labels are no bins"),
        ({"labels": []}, "its listed chunks have no bins"),
        ({"spans": [["0x5", "0x4"]]}, "its spans overlap"),
        ({"spans": [["0x5"]]}, "a span is no pair"),
        ({"spans": [["5", "zzz"]]}, "'zzz' is no address"),
        ({"sections": [1]}, "sections is no list"),
        ({"sections": [{"name": "else", "packed": 1, "size": 1}]}, "a section is"),
        ({"sections": [{"name": "sizes", "packed": 9, "size": 1 << 40}]}, "cannot unpack to"),
        ({"sections": [{"name": "sizes", "packed": 1 << 40, "size": 8}]}, "cannot unpack to"),
        ({"sections": [{"name": "sizes", "packed": 9, "size": 8}]}, "section sizes"),
        ({"sections": []}, "addresses is not one for each"),
    ],
)
def test_a_first_line_that_makes_no_sense(
    more: dict[str, Any], message: str, made: Snapshot, tmp_path: Path
) -> None:
    path = tmp_path / "bad.snap"
    write_snapshot(str(path), made)
    with pytest.raises(BadTarget) as caught:
        read_snapshot(changed(path, **more))

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_chunks_out_of_order_and_states_that_there_are_not(made: Snapshot, tmp_path: Path) -> None:
    path = str(tmp_path / "bad.snap")
    made.addresses[3], made.addresses[4] = made.addresses[4], made.addresses[3]
    write_snapshot(path, made)
    with pytest.raises(BadTarget, match="not in the order of addresses"):
        read_snapshot(path)
    made.addresses[3], made.addresses[4] = made.addresses[4], made.addresses[3]
    made.states[2] = 200
    write_snapshot(path, made)
    with pytest.raises(BadTarget, match="a state that there is not"):
        read_snapshot(path)


def test_contents_that_overlap_are_refused(made: Snapshot, tmp_path: Path) -> None:
    path = tmp_path / "bad.snap"
    write_snapshot(str(path), made)
    sections = json.loads(path.read_bytes().split(b"\n", 1)[0])["sections"]
    held = [one for one in sections if one["name"] == "contents"]
    assert len(held) > 1
    held[1]["start"] = held[0]["start"]
    held[0]["start"] = hex(int(held[0]["start"], 16) - 16)
    with pytest.raises(BadTarget, match="its contents overlap"):
        read_snapshot(changed(path, sections=sections))


def test_a_memory_with_holes_goes_through_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "holed.snap")
    played = play("2.36", threads=1)
    block = played.allocator.malloc(60000)
    one = snap(played)
    assert one.memory is not None
    one.memory = Holed(one.memory, block & -4096)
    write_snapshot(path, one)
    found = compare(read_snapshot(path), snap(played))

    assert found.unread == 4096
    assert told(found) == {}


def test_files_that_were_damaged_are_refused_or_read(made: Snapshot, tmp_path: Path) -> None:
    path, dice = tmp_path / "damaged.snap", random.Random(8)
    write_snapshot(str(path), made)
    whole, refused = path.read_bytes(), list[str]()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data[: dice.choice((len(data), dice.randrange(len(data))))])
        try:
            compare(made, read_snapshot(str(path)))
        except (BadTarget, BadRequest) as error:
            refused.append(str(error))
    assert len(refused) > 200
    assert not [text for text in refused if "\n" in text]

"""What a user may type as a target, and one line for what cannot be one."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from heapglass.errors import BadTarget
from heapglass.targets import open_target

from .build import Core, Load

TRACE = b'{"heapglass_trace": 1, "glibc": "2.41"}\n'


def refused(spec: str) -> BadTarget:
    with pytest.raises(BadTarget) as caught:
        open_target(spec)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    error = refused(str(tmp_path / "none"))
    assert str(error) == f"{tmp_path / 'none'}: there is no such file"
    assert "process id" in error.hint


def test_a_folder_or_device(tmp_path: Path) -> None:
    assert "it is a folder" in str(refused(str(tmp_path)))
    assert "it is not a plain file" in str(refused("/dev/null"))
    os.mkfifo(tmp_path / "pipe")
    assert "it is not a plain file" in str(refused(str(tmp_path / "pipe")))


def test_names_that_no_file_can_have() -> None:
    assert "cannot be a file name" in str(refused("a\0b"))
    assert "there is no such file" in str(refused(""))
    assert "File name too long" in str(refused("x" * 5000))


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "core").write_bytes(b"x")
    monkeypatch.setattr(os, "open", denied)
    assert "cannot be opened: Permission denied" in str(refused(str(tmp_path / "core")))


@pytest.mark.parametrize("spec", ["0", "00", "99999999999"])
def test_numbers_that_no_process_has(spec: str) -> None:
    error = refused(spec)
    assert "no process has this id" in str(error)
    assert f"./{spec}" in error.hint


def test_a_file_whose_name_is_a_number_needs_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = Core(loads=[Load(0x1000, b"abc")])
    (tmp_path / "99999999").write_bytes(core.build())
    monkeypatch.chdir(tmp_path)
    with open_target("./99999999") as source:
        assert source.kind == "core"
    assert "there is no such process" in str(refused("99999999"))


def test_a_trace_is_played_by_the_model(tmp_path: Path) -> None:
    for name, data in (
        ("t.jsonl", TRACE),
        ("trace", TRACE),
        ("packed", gzip.compress(TRACE)),
    ):
        (tmp_path / name).write_bytes(data)
        with open_target(str(tmp_path / name)) as source:
            assert source.kind == "trace"
            assert source.machine.abi == "x86_64"
    (tmp_path / "t.jsonl").write_bytes(b"")
    assert "line 1 is no JSON object" in str(refused(str(tmp_path / "t.jsonl")))

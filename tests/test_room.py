"""Copies of memory: in memory up to a limit, in files above it."""

from __future__ import annotations

import errno
import os
import tempfile

import pytest

from heapglass import room
from heapglass.errors import MemoryFault
from heapglass.room import Room, default_limit

MIB = 1 << 20


def test_what_is_over_the_limit_goes_to_a_file_and_is_the_same_to_use():
    made = Room(3 * MIB)
    first = made.buffer(0x1000, 2 * MIB)
    second = made.buffer(0x1000, 2 * MIB)
    assert (made.held, made.in_files) == (2 * MIB, 2 * MIB)
    for one in (first, second):
        assert len(one) == 2 * MIB
        assert not one.readonly
        one[MIB : MIB + 5] = b"words"
        assert bytes(one[MIB - 1 : MIB + 6]) == b"\0words\0"


def test_what_is_let_go_makes_room_again():
    made = Room(3 * MIB)
    part = made.buffer(0, 2 * MIB)[5:].toreadonly()
    assert made.held == 2 * MIB
    del part
    assert made.held == 0
    made.buffer(0, 3 * MIB)
    assert made.in_files == 0


def test_small_ones_are_not_counted():
    made = Room(0)
    assert len(made.buffer(0, 100)) == 100
    assert len(made.buffer(0, 0)) == 0
    assert (made.held, made.in_files) == (0, 0)


def test_no_room_is_said(monkeypatch: pytest.MonkeyPatch):
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MemoryFault, match=r"over the memory limit.*No space left.*TMPDIR"):
        Room(0).buffer(0x1000, MIB)
    with pytest.raises(MemoryFault, match="more than this machine can hold"):
        Room(1 << 70).buffer(0x1000, 1 << 62)
    with pytest.raises(MemoryFault):
        Room(0).buffer(0x1000, 1 << 70)


def test_files_are_gone_with_the_room(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = Room(0).buffer(0, MIB)
    assert os.listdir(tmp_path) == []
    assert len(kept) == MIB


def test_without_a_limit_it_is_a_quarter_of_the_memory(monkeypatch: pytest.MonkeyPatch):
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    assert default_limit() == Room().limit == pages * size // 4

    def unknown(_: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(room.os, "sysconf", unknown)
    assert default_limit() == 1 << 30

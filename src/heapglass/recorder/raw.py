"""What recorder.c writes: a page about the process, then records of 32 bytes, in host order."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import IO, NamedTuple

from ..errors import BadTarget

MARK = b"hgcalls\0"
VERSION = 1
PAGE = 4096
_HEAD = struct.Struct("=8sIIQQQQQQQQ16s32s512s512s512s1536s")
_RECORD = struct.Struct("=BBHIQQQ")
_BLOCK = 1 << 15  # records that are read at once


class Op(IntEnum):
    """What was called, or noticed."""

    MALLOC = 1
    CALLOC = 2
    REALLOC = 3
    MEMALIGN = 4
    ALIGNED_ALLOC = 5
    POSIX_MEMALIGN = 6
    VALLOC = 7
    PVALLOC = 8
    FREE = 9
    FREE_SIZED = 10
    FREE_ALIGNED_SIZED = 11
    THREAD_START = 12
    THREAD_EXIT = 13
    TRIM = 14
    OPTION = 15
    BREAK = 16
    ARENA = 17  # a fact of the call before: a new arena, where it is
    MAPPING = 18  # a fact of the call before: where the mapping of its block begins


class Flag(IntFlag):
    """What more is known of a record."""

    MMAPPED = 1
    LATE = 2  # the thread has emptied its tcache
    UNSURE = 4  # a thread's end whose time is not known
    PENDING = 8  # the call did not return


class Record(NamedTuple):
    """One record."""

    op: int
    flags: int
    unused: int
    thread: int
    a: int
    b: int
    result: int


@dataclass(frozen=True)
class Head:
    """The page about the process."""

    used: int  # records
    word: int
    pid: int
    page_size: int
    ncpu: int
    start_brk: int  # where the break began
    brk: int  # where it was at the first call
    main_arena: int  # 0: not found
    error: int  # errno, where the file could not grow any more
    machine: str
    glibc: str
    libc: str  # path of the C library
    program: str
    abort: str  # what malloc said before it aborted; empty: it did not
    settings: tuple[str, ...]  # GLIBC_TUNABLES=… and MALLOC_…=…


def read_head(file: IO[bytes], name: str) -> Head:
    """Return what is said of the process.

    :raises BadTarget: if the file is no recording of this version.
    """
    page = file.read(PAGE)
    if len(page) < PAGE or page[:8] != MARK:
        raise BadTarget(name, "it is no recording", "heapglass record makes one")
    said = _HEAD.unpack_from(page)
    if said[1] != VERSION:
        raise BadTarget(name, f"it is a recording of version {said[1]}", "record it again")
    _, _, word, used, pid, page_size, ncpu, start_brk, brk, arena, error = said[:11]
    machine, glibc, libc, program, abort = (_text(raw) for raw in said[11:16])
    return Head(
        used=used,
        word=word,
        pid=pid,
        page_size=page_size,
        ncpu=ncpu,
        start_brk=start_brk,
        brk=brk,
        main_arena=arena,
        error=error,
        machine=machine,
        glibc=glibc,
        libc=libc,
        program=program,
        abort=abort,
        settings=tuple(_text(part) for part in said[16].split(b"\0") if part),
    )


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")


def read_records(file: IO[bytes], used: int) -> Iterator[Record]:
    """Yield the records, *used* of them or as many as there are."""
    while used > 0:
        block = file.read(min(used, _BLOCK) * _RECORD.size)
        whole = len(block) // _RECORD.size
        if not whole:
            return
        for fields in _RECORD.iter_unpack(block[: whole * _RECORD.size]):
            yield Record(*fields)
        used -= whole

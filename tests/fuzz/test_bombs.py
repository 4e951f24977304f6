"""Small targets that ask for much: time, memory or depth. Each is asked every command."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tests.targets.build import PT_LOAD, PT_NOTE, Core, Load, padded

from .recipe import Splice, base_bytes, spliced
from .places import places_of
from .run import ROOT

PATIENCE = 600  # seconds; a command that takes more than worker.SECONDS is told apart before
REAL = "cores/2.36-amd64-bins.core"
HIGH = 1 << 63


def asked(data: bytes, folder: Path, name: str = "core", address: int = 0x10000) -> list[object]:
    """Ask a target everything, within bounds; return what was wrong."""
    path = folder / name
    path.write_bytes(data)
    places = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.worker", str(path), hex(address)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": places},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["asked"]
    return list(found["bad"])


def one_status(core: Core, thread: int = 7) -> bytes:
    return core.status(thread, bytes(27 * 8)) + core.psinfo(7)


def program_headers(*rows: tuple[int, int, int, int, int, int, int]) -> bytes:
    """Return a core of x86_64 with these (type, flags, offset, vaddr, filesz, memsz, align)."""
    core = Core()
    start = 64 + 56 * (len(rows) + 1)
    notes = one_status(core)
    table = core.pack("IIQQQQQQ", PT_NOTE, 4, start, 0, 0, len(notes), 0, 4)
    for kind, flags, offset, vaddr, filesz, memsz, align in rows:
        table += core.pack("IIQQQQQQ", kind, flags, offset, vaddr, 0, filesz, memsz, align)
    return core.file_header(len(rows) + 1, 0) + table + notes + bytes(0x4000)


def huge_loads() -> bytes:
    """Segments of 2^63 bytes, in the file and in memory."""
    return program_headers(
        (PT_LOAD, 6, 0, 0x10000, 1 << 63, 1 << 63, 1 << 62),
        (PT_LOAD, 6, 1 << 63, HIGH + 0x10000, (1 << 63) - 1, (1 << 63) - 1, 3),
        (PT_LOAD, 7, (1 << 64) - 1, (1 << 64) - 4096, 1 << 63, 1 << 63, 0),
    )


def overlapping_loads() -> bytes:
    """Segments over each other, odd addresses and alignments."""
    rows = [
        (PT_LOAD, 6, n * 7 % 0x900, 0x10000 + n * 0x333, 0x1000 + n, 0x5000 - n, n)
        for n in range(400)
    ]
    return program_headers(*rows)


def shared_bytes() -> bytes:
    """Sixty thousand segments of which each has the whole file's bytes: 80 GB out of 5 MB."""
    size = 1 << 20
    rows = [(PT_LOAD, 6, 0, (n + 1) << 24, size, size, 1) for n in range(60000)]
    return program_headers(*rows) + bytes(size)


def neighbours() -> bytes:
    """Sixty thousand segments side by side, of which each has a page and lacks one."""
    rows = [
        (PT_LOAD, 6, 64 + n % 512, 0x10000 + n * 0x2000, 0x10 + n % 64, 0x2000, 1)
        for n in range(60000)
    ]
    return program_headers(*rows)


def loads_and_sections() -> bytes:
    """PN_XNUM with four thousand million segments."""
    core = Core()
    section = core.pack("IIQQQQIIQQ", 0, 0, 0, 0, 1 << 63, 0xFFFFFFFF, 0xFFFFFFFF, 0, 0, 0)
    return core.file_header(0xFFFF, 64) + section + bytes(4096)


def mapped_files(count: int, rows: int) -> Callable[[], bytes]:
    """Return a maker of cores whose NT_FILE says to have *count* entries."""

    def made() -> bytes:
        core = Core(loads=[Load(0x10000, bytes(0x1000))])
        names = [(0x10000 + n * 0x1000, 0x20000 + n * 0x1000, 0, f"/{n}") for n in range(rows)]
        core.notes = one_status(core) + core.files(*names, count=count)
        return core.build()

    return made


def many_threads() -> bytes:
    """Fifty thousand threads whose pointers are the same."""
    core = Core(loads=[Load(0x10000, bytes(0x8000))])
    registers = core.pack("27Q", *([0x10010] * 27))
    core.notes = b"".join(core.status(n + 1, registers) for n in range(50000))
    return core.build()


def tiny_notes() -> bytes:
    """A million notes of nothing."""
    core = Core(loads=[Load(0x10000, bytes(0x1000))])
    core.notes = core.pack("III", 0, 0, 1) * 1000000
    return core.build()


def endless_note() -> bytes:
    """A note whose name and description are 4 GiB."""
    core = Core(loads=[Load(0x10000, bytes(0x1000))])
    core.notes = one_status(core) + core.pack("III", 0xFFFFFFFF, 0xFFFFFFFF, 1) + padded(b"CORE")
    return core.build()


def elf_everywhere() -> bytes:
    """Two thousand mappings that each start with an ELF header of a full page of segments."""
    inner = Core(type=3)
    rows = b"".join(
        inner.pack("IIQQQQQQ", PT_LOAD, 4, 0, n << 40, 0, 1 << 40, 1 << 40, 1) for n in range(70)
    )
    page = (inner.file_header(70, 0) + rows).ljust(4096, b"\0")
    core = Core(loads=[Load(0x100000 + n * 0x3000, page, perms="r--") for n in range(2000)])
    files = [
        (load.start, load.start + 4096, 0, f"/lib/libc-{n}.so.6")
        for n, load in enumerate(core.loads)
    ]
    core.notes = one_status(core) + core.files(*files)
    return core.build()


def real_with(change: Callable[[bytearray], None]) -> bytes:
    data = bytearray(base_bytes(REAL))
    change(data)
    return bytes(data)


def huge_heap_segment() -> bytes:
    """A real heap whose memory says to go on for 2^46 bytes, with top out of sight."""
    places = places_of(REAL)
    chunk, at = places.chunks[0]
    number = next(n for n, l in enumerate(places.loads) if l.vaddr <= chunk < l.vaddr + l.memsz)
    load = places.loads[number]

    def change(data: bytearray) -> None:
        phoff = int.from_bytes(data[32:40], "little")
        count = int.from_bytes(data[56:58], "little")
        for n in range(count):
            row = phoff + 56 * n
            if int.from_bytes(data[row + 16 : row + 24], "little") == load.vaddr:
                data[row + 40 : row + 48] = (1 << 46).to_bytes(8, "little")
        data[at + 8 : at + 16] = (0x11).to_bytes(8, "little")
        old = places.chunks[-1][0].to_bytes(8, "little")
        top = (load.vaddr + (1 << 45)).to_bytes(8, "little")
        for field in places.fields["arena"]:
            if data[field.at : field.at + 8] == old:
                data[field.at : field.at + 8] = top

    return real_with(change)


def chunks_of(word: int) -> bytes:
    """A real heap that is filled with one word from its first chunk on."""
    places = places_of(REAL)
    _, first = places.chunks[0]
    _, last = places.chunks[-1]
    times = (last - first) // 8
    return spliced(
        base_bytes(REAL), [Splice(first, times * 8, word.to_bytes(8, "little").hex(), times)]
    )


CORES: dict[str, Callable[[], bytes]] = {
    "huge-loads": huge_loads,
    "overlapping-loads": overlapping_loads,
    "shared-bytes": shared_bytes,
    "neighbours": neighbours,
    "pn-xnum": loads_and_sections,
    "nt-file-2-to-40": mapped_files(1 << 40, 3),
    "nt-file-2-to-63": mapped_files(1 << 63, 3),
    "nt-file-overlaps": mapped_files(20000, 20000),
    "many-threads": many_threads,
    "tiny-notes": tiny_notes,
    "endless-note": endless_note,
    "elf-everywhere": elf_everywhere,
    "huge-heap": huge_heap_segment,
    "filled-with-0x21": lambda: chunks_of(0x21),
    "filled-with-1": lambda: chunks_of(1),
    "filled-with-a-pointer": lambda: chunks_of(places_of(REAL).chunks[3][0] + 16),
}


@pytest.mark.parametrize("name", CORES)
def test_a_core_that_asks_for_much_is_answered_in_time(name: str, tmp_path: Path):
    assert asked(CORES[name](), tmp_path) == []

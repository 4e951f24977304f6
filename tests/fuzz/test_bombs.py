"""Small targets that ask for much: time, memory or depth. Each is asked every command."""

from __future__ import annotations

import io
import json
import lzma
import os
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tests.targets.build import PT_LOAD, PT_NOTE, Core, Load, padded

from .places import places_of
from .recipe import DEBUG, FIXTURES, Recipe, Splice, base_bytes, packed, spliced
from .run import ROOT, ask_all
from .worker import MEMORY, run

PATIENCE = 600  # seconds; a command that takes more than worker.SECONDS is told apart before
REAL = "cores/2.36-amd64-bins.core"
HIGH = 1 << 63
MAIN_ARENA = int(json.loads((FIXTURES / f"{REAL[:-5]}.json").read_text())["main_arena"], 16)


def asked(
    data: bytes, folder: Path, name: str = "core", address: int = 0x10000, glibc: str = ""
) -> list[object]:
    """Ask a target everything, within bounds; return what was wrong."""
    path = folder / name
    path.write_bytes(data)
    places = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.worker", str(path), hex(address), glibc],
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
    table = [core.pack("IIQQQQQQ", PT_NOTE, 4, start, 0, 0, len(notes), 0, 4)]
    for kind, flags, offset, vaddr, filesz, memsz, align in rows:
        table.append(core.pack("IIQQQQQQ", kind, flags, offset, vaddr, 0, filesz, memsz, align))
    return core.file_header(len(rows) + 1, 0) + b"".join(table) + notes + bytes(0x4000)


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
    """Six hundred mappings that each start with an ELF header of a full page of segments."""
    inner = Core(type=3)
    rows = b"".join(
        inner.pack("IIQQQQQQ", PT_LOAD, 4, 0, n << 40, 0, 1 << 40, 1 << 40, 1) for n in range(70)
    )
    page = (inner.file_header(70, 0) + rows).ljust(4096, b"\0")
    core = Core(loads=[Load(0x100000 + n * 0x3000, page, perms="r--") for n in range(600)])
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
    number = next(
        n for n, one in enumerate(places.loads) if one.vaddr <= chunk < one.vaddr + one.memsz
    )
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


# --- rings and chains of what is not there ----------------------------------------------------


def ring_of_arenas(count: int, end: str) -> bytes:
    """A real main_arena whose `next` leads through *count* fake ones in a mapping of its own.

    *end*: where the last one leads: to "main", to the "first" of them, or to "nothing".
    """
    places = places_of(REAL)
    step, base = 0x900, 0x7000000030
    arena = bytearray(base_bytes(REAL)[places.fields["arena"][0].at :][:step])
    next_at = places.fields["arena_tail"][0].at - places.fields["arena"][0].at
    made = bytearray()
    for number in range(count):
        following = base + (number + 1) * step
        if number == count - 1:
            following = {"main": MAIN_ARENA, "first": base, "nothing": 0xDEAD000}[end]
        arena[next_at : next_at + 8] = following.to_bytes(8, "little")
        info = [base + number * step, 0, step, step, 4096, 0]  # a heap_info before each
        made += b"".join(word.to_bytes(8, "little") for word in info) + arena[: step - 48]
    return with_mapping(base - 48, bytes(made), {places.fields["arena_tail"][0].at: base})


def with_mapping(base: int, content: bytes, words: dict[int, int]) -> bytes:
    """Return a real core whose last segment is replaced by one at *base*; *words* by offset."""
    data = bytearray(base_bytes(REAL))
    for at, value in words.items():
        data[at : at + 8] = value.to_bytes(8, "little")
    row = 64 + 56 * (int.from_bytes(data[56:58], "little") - 1)
    size = len(content).to_bytes(8, "little")
    data[row : row + 56] = (
        (1).to_bytes(4, "little")
        + (6).to_bytes(4, "little")
        + len(data).to_bytes(8, "little")
        + base.to_bytes(8, "little")
        + bytes(8)
        + size
        + size
        + (4096).to_bytes(8, "little")
    )
    return bytes(data) + content


def long_list(loop: bool) -> bytes:
    """An unsorted bin whose chunks, 200,000 of them, lead on and on, or come back at the end."""
    places = places_of(REAL)
    base, count = 0x7000000000, 200000
    unsorted = places.fields["arena"][14].at  # bins[0] of 2.36 on x86_64: bytes 112 of the struct
    words = [0, 0x21, 0, 0] * count
    for number in range(count):
        words[4 * number + 2] = base + 32 * ((number + 1) % count)
    if not loop:
        words[-2] = 8
    content = b"".join(word.to_bytes(8, "little") for word in words)
    return with_mapping(base, content, {unsorted: base})


RINGS: dict[str, Callable[[], bytes]] = {
    "ring-of-800-arenas": lambda: ring_of_arenas(800, "main"),
    "loop-of-800-arenas": lambda: ring_of_arenas(800, "first"),
    "chain-of-800-arenas": lambda: ring_of_arenas(800, "nothing"),
    "long-list": lambda: long_list(False),
    "long-loop": lambda: long_list(True),
}


@pytest.mark.parametrize("name", RINGS)
def test_a_long_way_round_is_gone_in_time(name: str, tmp_path: Path):
    assert asked(RINGS[name](), tmp_path, glibc="2.36") == []


# --- streams ------------------------------------------------------------------------------------


def bomb(kind: str) -> bytes:
    """A compressed gibibyte of zeros behind a core's header; a megabyte at most."""
    start, zeros, count = base_bytes(REAL)[:4096], bytes(1 << 20), 1 << 10
    out = io.BytesIO()
    if kind == "gz":
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        pieces = [packer.compress(start), *(packer.compress(zeros) for _ in range(count))]
        return b"".join(pieces) + packer.flush()
    if kind == "xz":
        with lzma.open(out, "wb", preset=0) as file:
            file.write(start)
            for _ in range(count):
                file.write(zeros)
        return out.getvalue()
    context = zstandard.ZstdCompressor(level=1).compressobj()
    pieces = [context.compress(start), *(context.compress(zeros) for _ in range(count))]
    return b"".join(pieces) + context.flush()


@pytest.mark.parametrize("kind", ["gz", "xz", "zst"])
def test_a_compressed_bomb_ends_at_the_limit(kind: str, tmp_path: Path):
    data = bomb(kind)
    path = tmp_path / f"core.{kind}"
    path.write_bytes(data)
    command = [sys.executable, "-m", "heapglass", "info", str(path), "--unpack-limit", "0x4000000"]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )

    assert len(data) < 1 << 20 or kind == "gz"
    assert done.returncode == 2
    assert "unpacked it is larger than the limit of 67108864 bytes" in done.stderr
    assert done.stderr.count("\n") == 1


# --- traces -------------------------------------------------------------------------------------

HEADER = '{"heapglass_trace": 1, "glibc": "2.36", "heap_base": "0x555555559000"}'
TRACES = {
    "deep": "[" * 1000000,
    "deep-value": '{"op": "malloc", "size": ' + "[" * 100000 + "}",
    "long-number": '{"op": "malloc", "size": ' + "9" * 100000 + "}",
    "long-hex": '{"op": "free", "ptr": "0x' + "f" * 100000 + '"}',
    "two-gibibytes": '{"op": "malloc", "size": 2147483648}',
    "a-gibibyte-of-break": '{"op": "brk", "delta": 1073741824}\n{"op": "malloc", "size": 24}',
    "zeroed": '{"op": "calloc", "nmemb": 16777216, "size": 64}',
    "aligned": '{"op": "memalign", "alignment": 4611686018427387904, "size": 1}',
    "many-threads": "\n".join(
        f'{{"op": "malloc", "size": 24, "thread": {n}}}' for n in range(1, 600)
    ),
    "not-a-name": '{"op": {"op": []}, "size": 24}',
    "lone-surrogate": '{"op": "malloc", "size": 24, "id": "\\ud800\x1b[2J"}',
}


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_that_asks_for_much_is_answered_in_time(name: str, tmp_path: Path):
    text = f"{HEADER}\n{TRACES[name]}\n"

    assert asked(text.encode(), tmp_path, "calls.jsonl", 0x555555559010) == []


def test_a_trace_that_is_a_damaged_stream_is_refused_in_one_line(tmp_path: Path):
    for kind in ("gz", "xz", "zst", "lz4"):
        whole = packed((HEADER + "\n" + '{"op": "malloc", "size": 24}\n' * 3000).encode(), kind)
        broken = whole[: len(whole) // 2] + b"\xff" * 8
        assert asked(broken, tmp_path, f"{kind}.jsonl") == []


# --- debug files --------------------------------------------------------------------------------


def test_section_tables_of_debug_files_are_bounded(tmp_path: Path):
    places = places_of(REAL)
    data = bytearray((DEBUG / places.debug_file).read_bytes())
    for shnum, shstrndx in ((0xFFFF, 0), (0, 0xFFFF), (0xFFFF, 0xFFFF), (1, 0x7FFF)):
        data[60:64] = shnum.to_bytes(2, "little") + shstrndx.to_bytes(2, "little")
        splices = (Splice(60, 4, bytes(data[60:64]).hex()),)
        recipe = Recipe(REAL, debug_file=places.debug_file, debug_splices=splices)
        assert [v.bad for v in ask_all([recipe], 1, 6)] == [[]]


def test_the_rings_and_lists_are_met_by_the_reader(tmp_path: Path):
    def answer(data: bytes, *words: str) -> str:
        path = tmp_path / "core"
        path.write_bytes(data)
        status, out, err = run(
            [words[0], str(path), "--debug-dir", str(DEBUG), "--glibc", "2.36", *words[1:]]
        )
        assert (status, err) == (0, "")
        return out

    arenas = json.loads(answer(ring_of_arenas(300, "main"), "arenas", "--json"))
    lists = json.loads(answer(long_list(True), "bins", "unsorted", "--json"))

    assert len(arenas["arenas"]) == 301
    assert lists["bins"][0]["fault"]

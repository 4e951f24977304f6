"""Compressed cores: the same bytes, in a file with holes, within limits."""

from __future__ import annotations

import gzip
import importlib
import lzma
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import zstandard

from heapglass.errors import BadTarget
from heapglass.targets import CoreSource, OpenOptions, compressed, open_target
from heapglass.targets.compressed import LIMIT_VARIABLE, OUTPUT, unpack

from .build import PAGE, Core, Load

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
    "lz4": lz4.frame.compress,
}
KINDS = sorted(PACKERS)
CHECKED = {  # with a checksum, which these two have only if they are asked
    **PACKERS,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
}
HEAP = 0x10000
NOISE = b"".join(zlib.crc32(b"%d" % i).to_bytes(4, "little") for i in range(1 << 16))


def made() -> bytes:
    """A core of which most is zero, and some cannot be compressed."""
    core = Core(loads=[Load(HEAP, b"heap" * (PAGE // 4) + bytes(64 * PAGE) + NOISE)])
    core.notes = core.status(1, bytes(216))
    return core.build()


CORE = made()


def opened(data: bytes, folder: Path, options: OpenOptions | None = None) -> CoreSource:
    path = folder / "core.anything"
    path.write_bytes(data)
    source = open_target(str(path), options)
    assert isinstance(source, CoreSource)
    return source


def unpacked(data: bytes, folder: Path) -> tuple[bytes, int, list[str]]:
    """Return the bytes that came out, how many the disk has, and the warnings."""
    path = folder / "packed"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = unpack(descriptor, "packed", OpenOptions())
    finally:
        os.close(descriptor)
    assert found is not None
    with found.file:
        found.file.seek(0)
        return found.file.read(), os.fstat(found.file.fileno()).st_blocks * 512, found.warnings


@pytest.mark.parametrize("kind", KINDS)
def test_a_compressed_core_is_read_as_the_plain_one(kind: str, tmp_path: Path) -> None:
    with opened(PACKERS[kind](CORE), tmp_path) as source:
        assert source.warnings == []
        assert source.name == str(tmp_path / "core.anything")
        assert source.memory.read(HEAP, 8) == b"heapheap"
        assert source.memory.read(HEAP + 65 * PAGE, len(NOISE)) == NOISE
        assert [t.id for t in source.threads()] == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_become_holes(kind: str, tmp_path: Path) -> None:
    data = b"start" + bytes(64 << 20) + b"end" + bytes(1 << 20)
    found, on_disk, warnings = unpacked(PACKERS[kind](data), tmp_path)
    assert found == data
    assert on_disk <= 1 << 20
    assert warnings == []


@pytest.mark.parametrize("kind", KINDS)
def test_streams_behind_each_other_are_one(kind: str, tmp_path: Path) -> None:
    pack = PACKERS[kind]
    packed = pack(CORE[:1000]) + pack(b"") + pack(CORE[1000:])
    assert unpacked(packed, tmp_path)[0] == CORE


def test_xz_streams_may_have_zeros_between_them(tmp_path: Path) -> None:
    packed = lzma.compress(CORE[:99]) + bytes(8) + lzma.compress(CORE[99:]) + bytes(4)
    assert unpacked(packed, tmp_path)[0] == CORE


@pytest.mark.parametrize("kind", ["zst", "lz4"])
def test_frames_that_are_to_be_skipped_are_skipped(kind: str, tmp_path: Path) -> None:
    pack = PACKERS[kind]
    skipped = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"skip!"
    assert unpacked(pack(CORE[:9]) + skipped + pack(CORE[9:]), tmp_path)[0] == CORE


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_behind_the_stream_is_left_alone(kind: str, tmp_path: Path) -> None:
    assert unpacked(PACKERS[kind](CORE) + b"something else", tmp_path)[0] == CORE


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_stream_keeps_what_came_out(kind: str, tmp_path: Path) -> None:
    packed = PACKERS[kind](CORE)
    with opened(packed[: len(packed) * 3 // 4], tmp_path) as source:
        assert f"the .{kind} stream ends too early" in source.warnings[0]
        assert "the core is cut off" in source.warnings[1]
        assert source.memory.read(HEAP, 8) == b"heapheap"
        assert source.memory.read(HEAP + 65 * PAGE, 64) == NOISE[:64]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_cut_anywhere_gives_a_part_or_one_line(kind: str, tmp_path: Path) -> None:
    packed = PACKERS[kind](CORE[:9000])
    for length in range(12, len(packed) - 1, 5):
        try:
            found, _, warnings = unpacked(packed[:length], tmp_path)
        except BadTarget as error:
            assert "nothing can be unpacked" in str(error)  # noqa: PT017
            continue
        assert CORE.startswith(found)
        assert len(warnings) == 1 or len(found) == 9000


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_stream_keeps_what_came_before(kind: str, tmp_path: Path) -> None:
    packed = bytearray(CHECKED[kind](CORE))
    middle = len(packed) // 2
    packed[middle : middle + 64] = b"\xff" * 64
    found, _, warnings = unpacked(bytes(packed), tmp_path)
    assert len(found) <= len(CORE)
    assert found[:4096] == CORE[:4096]
    assert f"the .{kind} stream is damaged" in warnings[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_is_said_and_how_to_raise_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = PACKERS[kind](CORE)
    with pytest.raises(BadTarget, match="larger than the limit of 1000 bytes") as caught:
        opened(packed, tmp_path, OpenOptions(unpack_limit=1000))
    assert "--unpack-limit" in caught.value.hint
    assert LIMIT_VARIABLE in caught.value.hint
    with opened(packed, tmp_path, OpenOptions(unpack_limit=len(CORE))) as source:
        assert source.warnings == []
    monkeypatch.setenv(LIMIT_VARIABLE, "0x100")
    with pytest.raises(BadTarget, match="limit of 256 bytes"):
        opened(packed, tmp_path)
    with opened(packed, tmp_path, OpenOptions(unpack_limit=len(CORE))) as source:
        assert source.warnings == []
    monkeypatch.setenv(LIMIT_VARIABLE, "much")
    with pytest.raises(BadTarget, match="'much' is not a number of bytes"):
        opened(packed, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_comes_out_in_pieces_of_bounded_size(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(PACKERS[kind](bytes(64 << 20)))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for count, piece in enumerate(compressed._pieces(descriptor, kind, "bomb")):
            assert len(piece) <= 160 * OUTPUT
            if count > 8:
                break
    finally:
        os.close(descriptor)


def test_the_disk_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "KEPT_FREE", 1 << 62)
    with pytest.raises(BadTarget, match="no space to unpack it") as caught:
        opened(gzip.compress(CORE), tmp_path)
    assert "TMPDIR" in caught.value.hint


def test_a_disk_that_is_full_after_all_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compressed, "_write", full)
    with pytest.raises(BadTarget, match="no space to unpack it"):
        opened(gzip.compress(CORE), tmp_path)

    def broken(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(compressed, "_write", broken)
    with pytest.raises(BadTarget, match="cannot be unpacked: Input/output error"):
        opened(gzip.compress(CORE), tmp_path)


def test_an_empty_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTarget, match="nothing can be unpacked"):
        opened(gzip.compress(b""), tmp_path)


# --- without the modules ---------------------------------------------------------------------


@pytest.fixture
def no_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "_module", lambda name: None)


@pytest.mark.usefixtures("no_modules")
@pytest.mark.parametrize(("kind", "program"), [("zst", "zstd"), ("lz4", "lz4")])
def test_a_program_stands_in_for_a_module(
    kind: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = tmp_path / "bin" / program
    made_up.parent.mkdir()
    plain = tmp_path / "plain"
    plain.write_bytes(CORE)
    made_up.write_text(f"#!/bin/sh\n[ \"$*\" = '-d -c' ] && /bin/cat {plain}\n")
    made_up.chmod(0o755)
    monkeypatch.setenv("PATH", str(made_up.parent))
    with opened(PACKERS[kind](CORE), tmp_path) as source:
        assert source.memory.read(HEAP + 65 * PAGE, 64) == NOISE[:64]
        assert source.warnings == []
    made_up.write_text(f"#!/bin/sh\n/usr/bin/head -c 40000 {plain}; exit 1\n")
    with opened(PACKERS[kind](CORE), tmp_path) as source:
        assert f"{program} says that the stream is cut off" in source.warnings[0]
    made_up.write_text("#!/bin/sh\nexec /bin/cat /dev/zero\n")  # ended when nobody reads on
    with pytest.raises(BadTarget, match="larger than the limit"):
        opened(PACKERS[kind](CORE), tmp_path, OpenOptions(unpack_limit=1 << 22))


@pytest.mark.usefixtures("no_modules")
@pytest.mark.parametrize(("kind", "module"), [("zst", "zstandard"), ("lz4", "lz4")])
def test_what_to_install_is_said(
    kind: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadTarget, match=f"the Python module {module} or the program") as caught:
        opened(PACKERS[kind](CORE), tmp_path)
    assert f"pip install {module}" in caught.value.hint


def test_a_module_that_does_not_load_is_as_if_it_were_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(name: str) -> Any:
        raise ImportError(name)

    assert compressed._module("lzma") is lzma
    monkeypatch.setattr(importlib, "import_module", broken)
    assert compressed._module("lzma") is None


class StandIn:
    """compression.zstd of Python 3.14, as far as it is used."""

    ZstdError = lzma.LZMAError
    ZstdDecompressor = lzma.LZMADecompressor


def test_pythons_own_zstd_is_used_where_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {"compression.zstd": StandIn}
    monkeypatch.setattr(compressed, "_module", modules.get)
    monkeypatch.setattr(compressed, "KINDS", ((b"\xfd7zXZ\0", "zst"),))
    packed = lzma.compress(CORE)
    assert unpacked(packed, tmp_path)[0] == CORE
    found, _, warnings = unpacked(packed[:-500] + b"\xff" * 500, tmp_path)
    assert CORE.startswith(found)
    assert "the .zst stream is damaged" in warnings[0]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with opened(gzip.compress(CORE), tmp_path) as source:
        assert source.memory.read(HEAP, 4) == b"heap"
        assert list(folder.iterdir()) == []
    assert shutil.disk_usage(folder).free > 0

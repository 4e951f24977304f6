"""Compressed cores, unpacked to a temporary file that has holes where the core has zeros."""

from __future__ import annotations

import errno
import importlib
import lzma
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple, Protocol, cast

from ..errors import BadTarget
from ..progress import Report
from .options import UNPACK_LIMIT, OpenOptions

LIMIT_VARIABLE = "HEAPGLASS_UNPACK_LIMIT"
INPUT = 1 << 16  # compressed bytes taken in one piece
SMALL_INPUT = 1 << 12  # where a library gives no bound on what it makes of them
OUTPUT = 1 << 20  # unpacked bytes in one piece, at most, where a library can be told
HOLE = 1 << 16  # zeros that become a hole: whole blocks of this size
MOST_MEMORY = 1 << 30  # bytes that a stream may make the decoder use
KEPT_FREE = 64 << 20  # bytes of the disk that are left to others
KINDS = (
    (b"\x1f\x8b\x08", "gz"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"\x04\x22\x4d\x18", "lz4"),
)


class Unpacked(NamedTuple):
    """What came out: a file without a name, that goes when it is closed, and what to tell."""

    file: IO[bytes]
    warnings: list[str]


class Cut(Exception):
    """The stream ends too early, or is damaged; what came before is good."""


class Decoder(Protocol):
    """One compressed stream, as lzma, lz4 and Python 3.14's zstd have it."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out without more input."""

    @property
    def unused_data(self) -> bytes | None:
        """What stands behind the end of the stream; None is as good as empty."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return about *max_length* bytes at most."""


def kind_of(start: bytes) -> str:
    """Return "gz", "xz", "zst" or "lz4" by the first bytes of a file; empty: none of them."""
    return next((kind for magic, kind in KINDS if start.startswith(magic)), "")


def unpack(descriptor: int, name: str, options: OpenOptions) -> Unpacked | None:
    """Unpack a file; None if it is not compressed.

    :raises BadTarget: if the limit or the disk is too small, nothing comes out, or a module for
        the format is missing.
    """
    kind = kind_of(os.pread(descriptor, 16, 0))
    if not kind:
        return None
    file = tempfile.TemporaryFile(prefix="heapglass-")  # noqa: SIM115 - the caller has it
    try:
        pieces = _reported(_pieces(descriptor, kind, name), descriptor, options.report)
        warnings = _fill(file, pieces, name, _limit(options))
    except BaseException:
        file.close()
        raise
    return Unpacked(file, warnings)


def _limit(options: OpenOptions) -> int:
    """Return the limit in force, in bytes.

    :raises BadTarget: if the environment variable is not a number.
    """
    if options.unpack_limit is not None:
        return options.unpack_limit
    said = os.environ.get(LIMIT_VARIABLE)
    if said is None:
        return UNPACK_LIMIT
    try:
        return int(said, 0)
    except ValueError as error:
        raise BadTarget(LIMIT_VARIABLE, f"{said!a} is not a number of bytes") from error


def _reported(pieces: Iterator[bytes], descriptor: int, report: Report) -> Iterator[bytes]:
    """Yield the pieces; report how far the reading is, where the file's offset tells."""
    total = os.fstat(descriptor).st_size
    for data in pieces:
        report("unpacking", os.lseek(descriptor, 0, os.SEEK_CUR), total)
        yield data


def _fill(file: IO[bytes], pieces: Iterator[bytes], name: str, limit: int) -> list[str]:
    """Write the unpacked bytes; return warnings."""
    said = os.statvfs(file.fileno())
    space = max(0, said.f_bavail * said.f_frsize - KEPT_FREE)
    try:
        size, cut = _copy(file, pieces, name, limit, space)
        file.truncate(size)
        file.flush()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _no_space(name, space) from error
        raise BadTarget(name, f"it cannot be unpacked: {error.strerror}") from error
    if not size:
        raise BadTarget(name, f"nothing can be unpacked: {cut or 'it is empty'}")
    return [f"{cut}: only the first {size} bytes of the core could be unpacked"] if cut else []


def _copy(
    file: IO[bytes], pieces: Iterator[bytes], name: str, limit: int, space: int
) -> tuple[int, Cut | None]:
    """Write the pieces, within the limits; return the size, and why it is not all."""
    size = written = 0
    try:
        for data in pieces:
            size += len(data)
            if size > limit:
                raise BadTarget(
                    name,
                    f"unpacked it is larger than the limit of {limit} bytes",
                    f"raise it with --unpack-limit BYTES or {LIMIT_VARIABLE}",
                )
            written += _write(file, data)
            if written > space:
                raise _no_space(name, space)
    except Cut as cut:
        return size, cut
    return size, None


def _no_space(name: str, space: int) -> BadTarget:
    folder = tempfile.gettempdir()
    return BadTarget(
        name,
        f"there is no space to unpack it: {folder} has {space} bytes",
        "set TMPDIR to a folder with more",
    )


def _write(file: IO[bytes], data: bytes) -> int:
    """Append bytes, leaving a hole for each block of zeros; return how many were written."""
    written = 0
    zeros = bytes(HOLE)
    for at in range(0, len(data), HOLE):
        block = data[at : at + HOLE]
        if block == zeros[: len(block)]:
            file.seek(len(block), os.SEEK_CUR)
        else:
            file.write(block)
            written += len(block)
    return written


# --- formats --------------------------------------------------------------------------------------


def _pieces(descriptor: int, kind: str, name: str) -> Iterator[bytes]:
    """Yield the unpacked bytes in pieces of bounded size.

    :raises Cut: if the stream ends too early or is damaged.
    """
    maker = DECODERS[kind]()
    if maker is not None:
        return _decode(descriptor, kind, maker)
    program = {"zst": "zstd", "lz4": "lz4"}[kind]
    path = shutil.which(program)
    if path is None:
        module = {"zst": "zstandard", "lz4": "lz4"}[kind]
        raise BadTarget(
            name,
            f"to unpack .{kind}, the Python module {module} or the program {program} is needed",
            f"pip install {module}, or install the package {program}",
        )
    return _from_program(descriptor, path)


def _decode(descriptor: int, kind: str, maker: Callable[[], Decoder]) -> Iterator[bytes]:
    """Yield what the streams of a file, one behind the other, unpack to."""
    with os.fdopen(os.dup(descriptor), "rb") as source:
        source.seek(0)
        rest = source.read(INPUT)
        while _starts(rest, kind):
            decoder = maker()
            while not decoder.eof:
                if not rest:
                    raise Cut(f"the .{kind} stream ends too early")
                yield from _drain(decoder, rest, kind)
                rest = source.read(INPUT) if not decoder.eof else b""
            rest = ((decoder.unused_data or b"") + source.read(INPUT)).lstrip(
                b"\0"
            )  # xz pads with zeros


def _starts(data: bytes, kind: str) -> bool:
    """Whether a stream starts here; zst and lz4 have frames to be skipped, too."""
    skippable = kind in ("zst", "lz4") and data[1:4] == b"\x2a\x4d\x18" and data[0] >> 4 == 5
    return kind_of(data) == kind or skippable


def _drain(decoder: Decoder, data: bytes, kind: str) -> Iterator[bytes]:
    """Yield all that comes out for a piece of input."""
    try:
        found = decoder.decompress(data, OUTPUT)
        yield found
        while not decoder.eof and not decoder.needs_input:
            found = decoder.decompress(b"", OUTPUT)
            if not found:
                return
            yield found
    except (zlib.error, lzma.LZMAError, RuntimeError, ValueError, EOFError, MemoryError) as error:
        raise Cut(f"the .{kind} stream is damaged ({error})") from error


class _Zlib:
    """zlib's object, with what it lacks."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(wbits=31)  # 16: with a gzip header
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._object.decompress(self._object.unconsumed_tail + data, max_length)
        self.needs_input = not self._object.unconsumed_tail and len(found) < max_length
        return found


class _Zstandard:
    """The object of the module zstandard: it cannot be told a length, so it gets little."""

    def __init__(self, module: Any) -> None:
        self._object = module.ZstdDecompressor().decompressobj()
        self._error = module.ZstdError
        self._waiting = b""

    @property
    def eof(self) -> bool:
        return bool(self._object.eof)

    @property
    def needs_input(self) -> bool:
        return not self._waiting

    @property
    def unused_data(self) -> bytes:
        return bytes(self._object.unused_data) + self._waiting

    def decompress(self, data: bytes, max_length: int) -> bytes:
        waiting = self._waiting + data
        found: list[bytes] = []
        at = size = 0
        try:
            while at < len(waiting) and size < max_length and not self.eof:
                found.append(self._object.decompress(waiting[at : at + SMALL_INPUT]))
                at, size = at + SMALL_INPUT, size + len(found[-1])
        except self._error as error:
            raise ValueError(str(error)) from error
        self._waiting = waiting[at:]
        return b"".join(found)


class _Zstd:
    """The object of Python 3.14's compression.zstd."""

    def __init__(self, module: Any) -> None:
        self._object = module.ZstdDecompressor()
        self._error = module.ZstdError

    @property
    def eof(self) -> bool:
        return bool(self._object.eof)

    @property
    def needs_input(self) -> bool:
        return bool(self._object.needs_input)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._object.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            return bytes(self._object.decompress(data, max_length))
        except self._error as error:
            raise ValueError(str(error)) from error


def _xz() -> Callable[[], Decoder]:
    return lambda: lzma.LZMADecompressor(memlimit=MOST_MEMORY)


def _zst() -> Callable[[], Decoder] | None:
    module = _module("compression.zstd")
    if module is not None:
        return lambda: _Zstd(module)
    module = _module("zstandard")
    return None if module is None else lambda: _Zstandard(module)


def _lz4() -> Callable[[], Decoder] | None:
    module = _module("lz4.frame")
    return None if module is None else lambda: cast(Decoder, module.LZ4FrameDecompressor())


def _module(name: str) -> Any:
    """Return an optional module, None if it is not there or does not load."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


DECODERS: dict[str, Callable[[], Callable[[], Decoder] | None]] = {
    "gz": lambda: _Zlib,
    "xz": _xz,
    "zst": _zst,
    "lz4": _lz4,
}


def _from_program(descriptor: int, path: str) -> Iterator[bytes]:
    """Yield what a program writes; it is ended when nobody wants more."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with subprocess.Popen(
        [path, "-d", "-c"], stdin=descriptor, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            while True:
                data = process.stdout.read(OUTPUT)
                if not data:
                    break
                yield data
        finally:
            if process.poll() is None:
                process.kill()
    if process.returncode:
        raise Cut(f"{os.path.basename(path)} says that the stream is cut off or damaged")

"""Traces: calls of malloc as JSON Lines, read, checked and written."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import lzma
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from ..errors import BadTarget

MARK = "heapglass_trace"
RECORDED = "recorded"
MOST_CPUS = 1 << 16
MOST_MAPS, MOST_FRAMES = 64, 256  # of one call
NOT_FRESH = (
    "the recording began on a heap in use, which the model does not have: what it answers differs"
)
LINE = 1 << 24  # bytes of a line, at most
# What each op has: (key, kind). A kind that ends with "?" may be left out.
_POINTER = (("ptr", "pointer?"), ("id", "text?"))
OPS: dict[str, tuple[tuple[str, str], ...]] = {
    "malloc": (("size", "size"), *_POINTER),
    "calloc": (("nmemb", "size"), ("size", "size"), *_POINTER),
    "realloc": (("old", "pointer?"), ("old_id", "text?"), ("size", "size"), *_POINTER),
    "memalign": (("alignment", "size"), ("size", "size"), *_POINTER),
    "aligned_alloc": (("alignment", "size"), ("size", "size"), *_POINTER),
    "posix_memalign": (("alignment", "size"), ("size", "size"), *_POINTER),
    "valloc": (("size", "size"), *_POINTER),
    "pvalloc": (("size", "size"), *_POINTER),
    "free": _POINTER,
    "free_sized": (("size", "size?"), *_POINTER),
    "free_aligned_sized": (("alignment", "size?"), ("size", "size?"), *_POINTER),
    "write": (("bytes", "bytes"), ("offset", "number?"), *_POINTER),
    "thread_start": (),
    "thread_drain": (("ptr", "pointer"),),  # at its end: an entry of its tcache is freed
    "thread_exit": (),
    "malloc_trim": (("pad", "size?"),),
    "mallopt": (("param", "any"), ("value", "number")),
    "brk": (("delta", "number"), ("ptr", "pointer?")),
}
GIVES = frozenset(op for op in OPS if _POINTER[0] in OPS[op]) - {
    "free",
    "free_sized",
    "free_aligned_sized",
    "thread_drain",
    "write",
}


CALLED = frozenset(OPS) - {"write", "thread_start", "thread_drain", "thread_exit"}


class Call(NamedTuple):
    """One line of a trace."""

    line: int
    op: str
    thread: int
    values: Mapping[str, Any]
    abort: str | None  # the text with which it is recorded to have aborted
    signal: str | None  # the signal that it is recorded to have died of
    maps: tuple[int | None, ...] = ()  # what mmap and mremap answered in it, None: refused
    stack: tuple[str, ...] = ()  # who called, innermost first: "0x401136 main+0x12"
    late: bool = False  # made by a thread that has emptied its tcache already, at its end


@dataclass(frozen=True)
class Header:
    """The first line: what the calls were made on."""

    glibc: str
    abi: str = "x86_64"
    heap_base: int = 0  # 0: not said
    page_size: int = 4096
    tunables: Mapping[str, int] = field(default_factory=dict)
    main_arena: int = 0  # 0: not said
    mmap_top: int = 0  # below which mmap places; 0: not said
    ncpu: int = 0  # processors that malloc counts, for its limit of arenas; 0: not said
    maps: str = ""  # RECORDED: where mmap placed things is in the calls, not the model's to say
    fresh: bool = True  # False: the heap was in use when the recording began
    by: str = ""  # what recorded it: "gdb", "recorder"; empty: not said

    def line(self) -> str:
        """Return it as the first line of a trace."""
        said: dict[str, Any] = {MARK: 1, "glibc": self.glibc, "abi": self.abi}
        if self.heap_base:
            said["heap_base"] = hex(self.heap_base)
        said.update(page_size=self.page_size, tunables=dict(self.tunables))
        for name in ("main_arena", "mmap_top"):
            if getattr(self, name):
                said[name] = hex(getattr(self, name))
        for name in ("ncpu", "maps", "by"):
            if getattr(self, name):
                said[name] = getattr(self, name)
        if not self.fresh:
            said["fresh"] = False
        return json.dumps(said)


@dataclass(frozen=True)
class Trace:
    """A trace: its header, and its calls, read while they are asked for."""

    name: str
    header: Header
    calls: Iterator[Call]


def call_line(op: str, **values: Any) -> str:
    """Return one line of a trace; pointers (also of *maps*) are integers, bytes are bytes.

    :raises KeyError: if there is no such op.
    """
    kinds = dict(OPS[op])
    said: dict[str, Any] = {"op": op}
    for key, value in values.items():
        kind = kinds.get(key, "any").rstrip("?")
        if kind == "pointer" and value is not None:
            said[key] = hex(value)
        elif key == "maps":
            said[key] = [None if place is None else hex(place) for place in value]
        else:
            said[key] = value.hex() if kind == "bytes" else value
    return json.dumps(said)


class Origin(NamedTuple):
    """A call that gave a block, or took it back."""

    number: int  # of the call, from 1; threads' beginnings and ends do not count
    op: str
    arguments: tuple[int, ...]
    thread: int
    stack: tuple[str, ...] = ()

    def text(self) -> str:
        """Return it in words: "malloc(24) at call 12, thread 1: main+18 < 0x7ffff7c2a1ca"."""
        frames = " < ".join(frame.partition(" ")[2] or frame for frame in self.stack)
        words = ", ".join(map(str, self.arguments))
        where = f": {frames}" if frames else ""
        return f"{self.op}({words}) at call {self.number}, thread {self.thread}{where}"


def origin(
    number: int, op: str, thread: int, values: Mapping[str, Any], stack: tuple[str, ...]
) -> Origin:
    """Return a call as somebody's origin; pointers are left out of its arguments."""
    words = tuple(values[key] for key in ("nmemb", "alignment", "size") if key in values)
    return Origin(number, op, words, thread, stack)


def origins(
    trace: Trace, blocks: Collection[int]
) -> dict[int, tuple[Origin | None, Origin | None]]:
    """Return of each block the call that gave it last, and the one that took it back since."""
    found: dict[int, tuple[Origin | None, Origin | None]] = dict.fromkeys(blocks, (None, None))
    number = 0
    for call in trace.calls:
        if call.op not in CALLED:
            continue
        number += 1
        frees = call.op.startswith("free")
        mem, old = call.values.get("ptr"), call.values.get("old")
        taken = mem if frees else old if mem or not call.values.get("size") else None
        for block, given in ((taken, False), (None if frees else mem, True)):
            if block in found:
                this = origin(number, call.op, call.thread, call.values, call.stack)
                found[block] = (this, None) if given else (found[block][0], this)
    return found


def write_trace(file: IO[str], header: Header, lines: Iterable[str]) -> None:
    """Write a trace: the header and lines made by `call_line`."""
    file.write(header.line() + "\n")
    for line in lines:
        file.write(line + "\n")


# --- reading --------------------------------------------------------------------------------


def read_trace(path: str) -> Trace:
    """Open a trace file, plain or compressed (gz, xz, zst, lz4).

    Its calls are read one by one; a bad one raises when it is reached.

    :raises BadTarget: if it cannot be read, or is no trace.
    """
    lines = _lines(path)
    number, first = next(lines, (1, b""))
    said = _object(path, number, first)
    if said.get(MARK) != 1:
        raise BadTarget(path, "it is no trace of a version that is known", 'line 1 has {"'
                        + MARK + '": 1, …}')  # fmt: skip
    return Trace(path, _header(path, said), _calls(path, lines))


def _open(path: str) -> IO[bytes]:
    try:
        return open(path, "rb")
    except OSError as error:
        raise BadTarget(path, f"it cannot be opened: {error.strerror}") from error


def _decoded(path: str, file: IO[bytes]) -> IO[bytes]:
    """Return a file with what a compressed one has in it; the same if it is plain."""
    start = file.read(6)
    file.seek(0)
    if start[:3] == b"\x1f\x8b\x08":
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if start == b"\xfd7zXZ\0":
        return lzma.LZMAFile(file)
    if start[:4] == b"\x28\xb5\x2f\xfd":
        reader = _module(path, "zstandard").ZstdDecompressor().stream_reader(file)
        return io.BufferedReader(reader)
    if start[:4] == b"\x04\x22\x4d\x18":
        return _module(path, "lz4.frame").open(file)  # type: ignore[no-any-return]
    return file


def _module(path: str, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        hint = f"pip install {package}, or unpack the file"
        raise BadTarget(path, f"the Python module {name} is missing", hint) from error


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with _open(path) as raw, _decoded(path, raw) as file:
            while True:
                number += 1
                line = file.readline(LINE + 1)
                if not line:
                    return
                if len(line) > LINE:
                    raise BadTarget(path, f"line {number} is longer than {LINE} bytes")
                if line.strip():
                    yield number, line
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise BadTarget(path, f"it cannot be read behind line {number - 1}: {error}") from error


def _object(path: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise BadTarget(path, f"line {number} is no JSON object", "a trace has one a line")
    return said


def _header(path: str, said: Mapping[str, Any]) -> Header:
    tunables = said.get("tunables") or {}
    if not isinstance(said.get("glibc"), str) or not isinstance(tunables, dict):
        raise BadTarget(path, 'line 1 must say "glibc": "2.36" and maybe "tunables": {…}')
    return Header(
        said["glibc"],
        str(said.get("abi") or "x86_64"),
        _value(path, 1, "heap_base", "pointer", said.get("heap_base", 0)),
        _value(path, 1, "page_size", "size", said.get("page_size", 4096)),
        tunables,
        _value(path, 1, "main_arena", "pointer", said.get("main_arena", 0)),
        _value(path, 1, "mmap_top", "pointer", said.get("mmap_top", 0)),
        min(_value(path, 1, "ncpu", "size", said.get("ncpu", 0)), MOST_CPUS),
        RECORDED if said.get("maps") == RECORDED else "",
        said.get("fresh") is not False,
        _value(path, 1, "by", "text", said.get("by", "")),
    )


def _calls(path: str, lines: Iterator[tuple[int, bytes]]) -> Iterator[Call]:
    for number, line in lines:
        said = _object(path, number, line)
        op = said.get("op")
        if not isinstance(op, str) or op not in OPS:
            raise BadTarget(path, f"line {number}: no op {op!a}", "known: " + ", ".join(OPS))
        values = dict(_values(path, number, OPS[op], said))
        thread = _value(path, number, "thread", "size", said.get("thread", 1))
        abort, signal = said.get("abort"), said.get("signal")
        yield Call(
            number,
            op,
            thread,
            values,
            str(abort) if abort is not None else None,
            str(signal) if signal is not None else None,
            tuple(_list(path, number, said, "maps", "pointer", MOST_MAPS)),
            tuple(name or "" for name in _list(path, number, said, "stack", "text", MOST_FRAMES)),
            said.get("late") is True,
        )


def _list(
    path: str, number: int, said: Mapping[str, Any], key: str, kind: str, most: int
) -> Iterator[Any]:
    """Yield the checked values of a list, which may be left out; null is None."""
    values = said.get(key)
    if values is None:
        return
    if not isinstance(values, list) or len(values) > most:
        raise BadTarget(path, f"line {number}: {key} is no list of up to {most}")
    for value in values:
        yield None if value is None else _value(path, number, key, kind, value)


def _values(
    path: str, number: int, keys: tuple[tuple[str, str], ...], said: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    for key, kind in keys:
        if said.get(key) is not None:
            yield key, _value(path, number, key, kind.rstrip("?"), said[key])
        elif not kind.endswith("?"):
            raise BadTarget(path, f"line {number}: {said['op']} needs {key!a}")


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "pointer": lambda value: int(value, 16) if isinstance(value, str) else value,
    "size": lambda value: value if value >= 0 else None,
    "number": lambda value: value,
    "bytes": bytes.fromhex,
    "text": lambda value: value if isinstance(value, str) else None,
    "any": lambda value: value if isinstance(value, (str, int)) else None,
}


def _value(path: str, number: int, key: str, kind: str, value: Any) -> Any:
    """Return a checked value.

    :raises BadTarget: if it is not of its kind.
    """
    numeric = kind in ("pointer", "size", "number")
    try:
        made = _CHECKS[kind](value)
    except (TypeError, ValueError):
        made = None
    bad = made is None or (numeric and (isinstance(made, bool) or not isinstance(made, int)))
    if bad or (numeric and abs(made) >= 1 << 64):
        raise BadTarget(path, f"line {number}: {key} is {str(value)[:40]!a}, expected a {kind}")
    return made

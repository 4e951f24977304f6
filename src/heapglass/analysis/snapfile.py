"""Snapshots as files: a line of JSON, then sections compressed by zlib. See docs/snapshot.md."""

from __future__ import annotations

import json
import os
import stat
import sys
import zlib
from array import array
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from ..errors import BadRequest, BadTarget, UnsupportedGlibc
from ..glibc.layout import alignment_of, word_of
from ..glibc.releases import parse_version
from ..heap.columns import STATE_NAMES
from ..memory import ByteMemory
from .snapshot import Snapshot, joined, pieces

MARK = "heapglass_snapshot"
VERSION = 1
LINE = 1 << 20  # bytes of the first line, at most
MOST_CHUNKS = 1 << 30
MOST_BYTES = 1 << 34  # of all sections, unpacked
RATIO, LEAST = 1040, 64  # zlib makes of a byte no more than so many
MOST_LABELS = 1 << 12
LABEL = 64  # characters
_COLUMNS = (("addresses", "Q"), ("sizes", "Q"), ("states", "B"))


class _Section(NamedTuple):
    """A part of the file."""

    name: str
    packed: int  # bytes in the file
    size: int  # bytes unpacked
    start: int = 0  # of contents: the address


def write_snapshot(path: str, one: Snapshot) -> int:
    """Write a snapshot; return the bytes of the file.

    :raises BadRequest: if the file cannot be written.
    """
    labels = sorted(set(one.bins.values()))
    numbers = {label: number for number, label in enumerate(labels)}
    chunks = sorted(one.bins)
    parts: list[tuple[str, int, bytes]] = [
        ("addresses", 0, _bytes(one.addresses)),
        ("sizes", 0, _bytes(one.sizes)),
        ("states", 0, bytes(one.states)),
        ("listed", 0, _bytes(array("Q", chunks))),
        ("bins", 0, _bytes(array("H", (numbers[one.bins[chunk]] for chunk in chunks)))),
    ]
    if one.memory is None:
        parts.append(("sums", 0, _bytes(one.needed_sums())))
    packed, sections = [], []
    for name, start, data in (*parts, *_contents(one)):
        packed.append(zlib.compress(data, 1))
        sections.append(_described(_Section(name, len(packed[-1]), len(data), start)))
    said = {
        MARK: VERSION,
        "name": one.name,
        "glibc": one.glibc,
        "abi": one.abi,
        "pid": one.pid,
        "chunks": len(one),
        "own": [hex(chunk) for chunk in sorted(one.own)],
        "labels": labels,
        "spans": [[hex(start), hex(end)] for start, end in one.spans],
        "sections": sections,
    }
    line = json.dumps(said).encode() + b"\n"
    if len(line) > LINE:
        raise BadRequest(f"{path}: the heap has too many pieces for a snapshot file")
    try:
        with open(path, "wb") as file:
            return file.write(line) + sum(file.write(data) for data in packed)
    except OSError as error:
        raise BadRequest(f"cannot write {path}: {error.strerror}") from error


def _bytes(column: array[int]) -> bytes:
    """Return a column, little-endian."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _contents(one: Snapshot) -> Iterator[tuple[str, int, bytes]]:
    if one.memory is None:
        return
    for start, end in one.spans:
        for low, view in pieces(one.memory, start, end):
            yield "contents", low, bytes(view)


def _described(one: _Section) -> dict[str, Any]:
    said: dict[str, Any] = {"name": one.name, "packed": one.packed, "size": one.size}
    return {**said, "start": hex(one.start)} if one.name == "contents" else said


# --- reading --------------------------------------------------------------------------------------


def is_snapshot(path: str) -> bool:
    """Whether a file begins as a snapshot does."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return file.read(64).startswith(b'{"' + MARK.encode() + b'"')
    except (OSError, ValueError):
        return False


def read_snapshot(path: str) -> Snapshot:
    """Read a snapshot file; nothing in it is believed that was not looked at.

    :raises BadTarget: if it is none, is cut short, or makes no sense.
    """
    try:
        with open(path, "rb") as file:
            return _Reader(path, file).read()
    except OSError as error:
        raise BadTarget(path, f"it cannot be read: {error.strerror}") from error


class _Reader:
    """Reads one file."""

    def __init__(self, path: str, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self._size = os.fstat(file.fileno()).st_size

    def _bad(self, why: str) -> BadTarget:
        return BadTarget(self._path, f"it is no snapshot that can be read: {why}")

    def read(self) -> Snapshot:
        """Return what the file has.

        :raises BadTarget: if it makes no sense.
        """
        said = self._header()
        sections = [self._section(one) for one in self._list(said, "sections", dict)]
        if sum(one.size for one in sections) > MOST_BYTES:
            raise self._bad("its sections unpack to too much")
        made = self._begin(said)
        count = said.get("chunks")
        if not isinstance(count, int) or not 0 <= count <= MOST_CHUNKS:
            raise self._bad(f"it says that it has {count!a} chunks")
        columns: dict[str, array[int]] = {}
        held: dict[int, bytes] = {}
        for one in sections:
            data = self._unpacked(one)
            if one.name == "contents":
                held[one.start] = data
            else:
                columns[one.name] = self._column(one.name, data)
        self._fill(made, columns, count)
        made.bins = self._bins(columns, self._list(said, "labels", str))
        made.own = {self._number(one) for one in self._list(said, "own", str)}
        made.spans = self._spans(said)
        if "sums" in columns:
            made.sums = columns["sums"]
        else:
            made.memory = self._memory(held)
        return made

    def _header(self) -> dict[str, Any]:
        line = self._file.readline(LINE + 1)
        try:
            said = json.loads(line) if len(line) <= LINE else None
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict) or MARK not in said:
            raise self._bad("its first line is none of a snapshot")
        if said[MARK] != VERSION:
            raise self._bad(f"it is of version {said[MARK]!a}, known is {VERSION}")
        return said

    def _list(self, said: dict[str, Any], key: str, kind: type) -> list[Any]:
        found = said.get(key)
        if not isinstance(found, list) or not all(isinstance(one, kind) for one in found):
            raise self._bad(f"{key} is no list of what it should be")
        return found

    def _begin(self, said: dict[str, Any]) -> Snapshot:
        """Return an empty snapshot of the machine that the file names."""
        try:
            version = parse_version(str(said.get("glibc")))
            abi = str(said.get("abi"))
            word = word_of(abi)
            alignment_of(abi, version)
        except (BadRequest, UnsupportedGlibc, ValueError) as error:
            raise self._bad(str(error)) from error
        pid = said.get("pid")
        return Snapshot(
            f"{self._path} ({str(said.get('name'))[:200]})",
            str(said.get("glibc")),
            abi,
            word,
            2 * word,
            pid if isinstance(pid, int) else None,
        )

    def _section(self, said: dict[str, Any]) -> _Section:
        name, packed, size = said.get("name"), said.get("packed"), said.get("size")
        known = [one for one, _ in _COLUMNS] + ["listed", "bins", "sums", "contents"]
        if name not in known or not isinstance(packed, int) or not isinstance(size, int):
            raise self._bad(f"a section is {str(said)[:80]!a}")
        if not 0 <= packed <= self._size or not 0 <= size <= packed * RATIO + LEAST:
            raise self._bad(f"section {name}: {packed} bytes cannot unpack to {size}")
        start = self._number(said.get("start", "0x0"))
        return _Section(name, packed, size, start)

    def _number(self, said: Any) -> int:
        try:
            value = int(said, 16) if isinstance(said, str) else -1
        except ValueError:
            value = -1
        if not 0 <= value < 1 << 64:
            raise self._bad(f"{str(said)[:40]!a} is no address")
        return value

    def _unpacked(self, one: _Section) -> bytes:
        data = self._file.read(one.packed)
        if len(data) != one.packed:
            raise self._bad(f"section {one.name} is cut short")
        unpacker = zlib.decompressobj()
        try:
            found = unpacker.decompress(data, one.size + 1)
        except zlib.error as error:
            raise self._bad(f"section {one.name}: {error}") from error
        if len(found) != one.size or not unpacker.eof:
            raise self._bad(f"section {one.name} does not unpack to {one.size} bytes")
        return found

    def _column(self, name: str, data: bytes) -> array[int]:
        code = {**dict(_COLUMNS), "listed": "Q", "bins": "H", "sums": "I"}[name]
        column = array(code)
        if len(data) % column.itemsize:
            raise self._bad(f"section {name} ends within an entry")
        column.frombytes(data)
        if sys.byteorder == "big":
            column.byteswap()
        return column

    def _fill(self, made: Snapshot, columns: dict[str, array[int]], count: int) -> None:
        for name in ("addresses", "sizes", "states", *(["sums"] if "sums" in columns else [])):
            if len(columns.get(name, ())) != count:
                raise self._bad(f"{name} is not one for each of {count} chunks")
        made.addresses, made.sizes = columns["addresses"], columns["sizes"]
        made.states = bytearray(columns["states"].tobytes())
        if made.states and max(made.states) >= len(STATE_NAMES):
            raise self._bad("a chunk has a state that there is not")
        addresses = made.addresses
        if any(low >= high for low, high in zip(addresses, memoryview(addresses)[1:])):
            raise self._bad("its chunks are not in the order of addresses")

    def _bins(self, columns: dict[str, array[int]], labels: list[str]) -> dict[int, str]:
        listed, bins = columns.get("listed", array("Q")), columns.get("bins", array("H"))
        if len(labels) > MOST_LABELS or any(len(label) > LABEL for label in labels):
            raise self._bad("its labels are no bins")
        if len(listed) != len(bins) or (bins and max(bins) >= len(labels)):
            raise self._bad("its listed chunks have no bins")
        return {chunk: labels[number] for chunk, number in zip(listed, bins)}

    def _spans(self, said: dict[str, Any]) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        for pair in self._list(said, "spans", list):
            if len(pair) != 2:
                raise self._bad("a span is no pair")
            low, high = map(self._number, pair)
            if low >= high or (spans and low < spans[-1][1]):
                raise self._bad("its spans overlap")
            spans.append((low, high))
        return spans

    def _memory(self, held: dict[int, bytes]) -> ByteMemory:
        """Return the contents, pieces that touch as one."""
        try:
            return ByteMemory(joined(held))
        except ValueError:
            raise self._bad("its contents overlap") from None

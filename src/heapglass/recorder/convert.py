"""A recording made a trace: JSON Lines, written while it is read."""

from __future__ import annotations

import gzip
import io
import lzma
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from ..errors import BadRequest, BadTarget
from ..glibc.layout import layout_for, word_of
from ..glibc.releases import parse_version
from ..model.trace import RECORDED, Header, call_line
from .raw import Flag, Head, Op, Record, read_head, read_records

# op, and the keys that a, b and the result are
_CALLS: Mapping[int, tuple[str, str, str, str]] = {
    Op.MALLOC: ("malloc", "size", "", "ptr"),
    Op.CALLOC: ("calloc", "nmemb", "size", "ptr"),
    Op.REALLOC: ("realloc", "old", "size", "ptr"),
    Op.MEMALIGN: ("memalign", "alignment", "size", "ptr"),
    Op.ALIGNED_ALLOC: ("aligned_alloc", "alignment", "size", "ptr"),
    Op.POSIX_MEMALIGN: ("posix_memalign", "alignment", "size", "ptr"),
    Op.VALLOC: ("valloc", "size", "", "ptr"),
    Op.PVALLOC: ("pvalloc", "size", "", "ptr"),
    Op.FREE: ("free", "ptr", "", ""),
    Op.FREE_SIZED: ("free_sized", "ptr", "size", ""),
    Op.FREE_ALIGNED_SIZED: ("free_aligned_sized", "ptr", "size", ""),
    Op.THREAD_START: ("thread_start", "tid", "", ""),
    Op.THREAD_EXIT: ("thread_exit", "tid", "", ""),
    Op.TRIM: ("malloc_trim", "pad", "", ""),
    Op.OPTION: ("mallopt", "param", "value", ""),
    Op.BREAK: ("brk", "delta", "", "ptr"),
}
_SIGNED = ("delta", "param", "value")


def _template(op: str, keys: tuple[str, ...]) -> str:
    """Return the line of a call about which there is nothing special, to be formatted."""
    places = zip(keys, ("{4}", "{5}", "{6}"), ("{4:#x}", "{5:#x}", "{6:#x}"))
    said = [
        f'"{key}": "{hexed}"' if key in ("ptr", "old") else f'"{key}": {plain}'
        for key, plain, hexed in places
        if key
    ]
    return f'{{{{"op": "{op}", {", ".join(said)}{{7}}}}}}'


_PLAIN = {
    number: _template(op, tuple(keys))
    for number, (op, *keys) in _CALLS.items()
    if op not in ("thread_start", "thread_exit", "mallopt", "brk")
}
_ARENA, _MAPPING, _MMAPPED = int(Op.ARENA), int(Op.MAPPING), int(Flag.MMAPPED)
# What malloc's environment variables are as tunables.
VARIABLES = {
    "MALLOC_ARENA_MAX": "arena_max",
    "MALLOC_ARENA_TEST": "arena_test",
    "MALLOC_MMAP_MAX_": "mmap_max",
    "MALLOC_MMAP_THRESHOLD_": "mmap_threshold",
    "MALLOC_TOP_PAD_": "top_pad",
    "MALLOC_TRIM_THRESHOLD_": "trim_threshold",
    "MALLOC_PERTURB_": "perturb",
    "MALLOC_CHECK_": "check",
}
_TUNABLE = "glibc.malloc."
_OLD_ERROR = re.compile(r"\*\*\* Error in `.*': (.*): 0x[0-9a-f]+ \*\*\*", re.S)


@dataclass
class Converted:
    """What a recording held."""

    header: Header
    calls: int = 0
    threads: int = 0
    ending: str = ""  # how the call that did not return ended; empty: all did
    warnings: list[str] = field(default_factory=list)


def convert(raw: str, to: str, signal: str = "") -> Converted:
    """Write the trace of a recording; .gz, .xz and .zst are packed, by the name's end.

    *signal* is what the process died of, empty if it is not known.

    :raises BadTarget: if *raw* is no recording.
    :raises BadRequest: if *to* cannot be written.
    """
    with _opened(raw) as file:
        head = read_head(file, raw)
        done = Converted(make_header(head))
        records = read_records(file, head.used)
        with open_output(to) as out:
            out.write(done.header.line() + "\n")
            for line in _lines(head, records, done, signal):
                out.write(line + "\n")
    if head.error:
        done.warnings.append(
            f"the recording ends early: its file could not grow (errno {head.error})"
        )
    return done


def _opened(path: str) -> IO[bytes]:
    try:
        return open(path, "rb")
    except OSError as error:
        raise BadTarget(path, f"it cannot be opened: {error.strerror}") from error


@contextmanager
def open_output(path: str) -> Iterator[IO[str]]:
    """Open a trace to be written, packed as its name's end says.

    :raises BadRequest: if it cannot be written.
    """
    try:
        with _packed(path) as raw, io.TextIOWrapper(raw, "ascii", newline="\n") as text:
            yield text
    except (OSError, lzma.LZMAError) as error:
        raise BadRequest(f"cannot write {path}: {error}") from error


def _packed(path: str) -> Any:
    if path.endswith(".gz"):
        return gzip.open(path, "wb", 6)
    if path.endswith(".xz"):
        return lzma.open(path, "wb", preset=1)
    if path.endswith(".zst"):
        try:
            import zstandard
        except ImportError as error:
            raise BadRequest(
                f"cannot write {path}: the Python module zstandard is missing",
                "pip install zstandard, or name a file that ends with .gz or .xz",
            ) from error
        return zstandard.open(path, "wb")
    return open(path, "wb")


def make_header(head: Head) -> Header:
    """Return the header of a recording's trace."""
    return Header(
        glibc=head.glibc,
        abi=head.machine,
        heap_base=head.start_brk,
        page_size=head.page_size,
        tunables=tunables(head.settings),
        main_arena=head.main_arena,
        ncpu=head.ncpu,
        maps=RECORDED,
        fresh=head.brk == head.start_brk,
        by="recorder",
    )


def tunables(settings: tuple[str, ...]) -> dict[str, int]:
    """Return what the environment sets: GLIBC_TUNABLES over malloc's older variables."""
    found: dict[str, int] = {}
    for name, _, value in (setting.partition("=") for setting in settings):
        if name in VARIABLES and (number := _number(value)) is not None:
            found[_TUNABLE + VARIABLES[name]] = number
    for name, _, value in (setting.partition("=") for setting in settings):
        if name != "GLIBC_TUNABLES":
            continue
        for one in value.split(":"):
            key, _, text = one.partition("=")
            if key.startswith(_TUNABLE) and (number := _number(text)) is not None:
                found[key] = number
    return found


def _number(text: str) -> int | None:
    """The number that a setting means: decimal, 0x hex or 0 octal."""
    try:
        octal = len(text) > 1 and text[0] == "0" and text.isdigit()
        return int(text, 8) if octal else int(text, 0)
    except ValueError:
        return None


def _lines(head: Head, records: Iterator[Record], done: Converted, signal: str) -> Iterator[str]:
    """Yield the trace's lines. A call waits for what is noted behind it."""
    most = heap_max_size(head.glibc, head.machine)
    tails = _Tails()
    call: Record | None = None
    places: list[int | None] = []
    for record in records:
        if record.op == _ARENA:
            places += [None, record.a & -most]
        elif record.op == _MAPPING:
            places.append(record.a)
        else:
            if call is not None:
                plain = _PLAIN.get(call.op) if call.flags <= _MMAPPED and not places else None
                if plain is None:
                    yield from _line(call, places, done)
                else:
                    done.calls += 1
                    yield plain.format(*call, tails[call.thread])
            call, places = record, []
    if call is not None:
        yield from _line(call, places, done, _ending(head, signal))


class _Tails(dict[int, str]):
    """How a thread is written at the end of a line."""

    def __missing__(self, thread: int) -> str:
        self[thread] = f', "thread": {thread}' if thread != 1 else ""
        return self[thread]


def heap_max_size(glibc: str, abi: str) -> int:
    """Return HEAP_MAX_SIZE of a release; a power of two.

    :raises UnsupportedGlibc: if the tables do not cover it.
    """
    return layout_for(parse_version(glibc), word_of(abi), abi=abi).heap_max_size(0)


def _ending(head: Head, signal: str) -> dict[str, str]:
    """How a call that did not return is written; empty: nobody knows."""
    if head.abort:
        return {"abort": abort_text(head.abort)}
    return {"signal": signal} if signal else {}


def abort_text(said: str) -> str:
    """Return what malloc found out, of all that it prints about it."""
    old = _OLD_ERROR.match(said)
    return old[1] if old else said.strip()


def _line(
    call: Record, places: list[int | None], done: Converted, ending: Mapping[str, str] = {}
) -> Iterator[str]:
    if call.op not in _CALLS:
        done.warnings.append(f"a record of unknown kind {call.op} was left out")
        return
    op, *keys = _CALLS[call.op]
    if call.op == Op.THREAD_START:
        done.threads += 1
        if call.thread == 1:
            return
    values: dict[str, Any] = {
        key: _signed(number) if key in _SIGNED else number
        for key, number in zip(keys, (call.a, call.b, call.result))
        if key
    }
    if call.thread != 1:
        values["thread"] = call.thread
    if places:
        values["maps"] = places
    if call.flags & Flag.LATE:
        values["late"] = True
    if call.flags & Flag.UNSURE:
        done.warnings.append(f"thread {call.thread} ended at a time that is not sure")
    if call.flags & Flag.PENDING and not _unfinished(values, call, done, ending):
        return
    if call.op not in (Op.THREAD_START, Op.THREAD_EXIT):
        done.calls += 1
    yield call_line(op, **values)


def _unfinished(
    values: dict[str, Any], call: Record, done: Converted, ending: Mapping[str, str]
) -> bool:
    """Say how a call ended that did not return; False if that is not known."""
    if not ending:
        done.warnings.append(
            f"a call of thread {call.thread} did not return, why is not known: it is left out"
        )
        return False
    if call.op not in (Op.FREE, Op.FREE_SIZED, Op.FREE_ALIGNED_SIZED):
        values.pop("ptr", None)
    values.update(ending)
    done.ending = next(iter(ending.values()))
    return True


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number

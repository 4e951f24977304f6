"""The cells that several answers share: a chunk's row, a state, a bin, totals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import BadRequest
from ..glibc.layout import flag_letters
from ..heap.heap import Chunk, Heap
from ..heap.lists import FreeList
from ..table import Absent, Address, Answer, Column, Kind, Lines, Part, Style, Tag

STATES = ("used", "free", "tcache", "fast", "top", "mmapped", "fencepost", "corrupt")
MOST_KINDS = 1 << 16  # of chunks, whose cells are kept
ALWAYS = ("used", "free", "tcache", "fast")
STATE_STYLES = {
    "used": Style.PLAIN,
    "free": Style.GOOD,
    "tcache": Style.ONE,
    "fast": Style.TWO,
    "top": Style.DIM,
    "mmapped": Style.THREE,
    "fencepost": Style.DIM,
    "corrupt": Style.BAD,
}

CHUNK_COLUMNS = (
    Column("address", "chunk", Kind.ADDRESS),
    Column("user", "mem", Kind.ADDRESS),
    Column("size", "size", Kind.SIZE),
    Column("flags", "flags"),
    Column("state", "state"),
    Column("arena", "arena", Kind.ADDRESS, in_text=False),
    Column("bin", "bin"),
    Column("thread", "thread", in_text=False),
    Column("usable", "usable", Kind.SIZE, in_text=False),
    Column("owner", "owner", in_json=True, in_text=False),
    Column("note", "note", in_json=False),
)


def address(value: int | None) -> Any:
    """Return an address cell; None: there is none."""
    return Absent.NONE if value is None else Address(value)


def state_cell(state: str | None) -> Any:
    """Return a state in its style; None is unknown."""
    if state is None:
        return Absent.UNKNOWN
    return Tag(state, STATE_STYLES.get(state, Style.PLAIN))


def chunk_row(heap: Heap, chunk: Chunk) -> tuple[Any, ...]:
    """Return a chunk as a row under CHUNK_COLUMNS."""
    listed = chunk.listed
    return (
        Address(chunk.address),
        Address(chunk.address + heap.layout.header),
        chunk.size,
        flag_letters(chunk.size_field),
        state_cell(chunk.state),
        address(chunk.arena),
        listed.label if listed else Absent.NONE,
        listed.thread if listed and listed.thread is not None else Absent.NONE,
        heap.usable_of(chunk),
        chunk.owner,
        note(heap, chunk, listed),
    )


def chunk_rows(heap: Heap, chunks: Iterable[Chunk]) -> Iterator[tuple[Any, ...]]:
    """Yield chunks as rows: what is the same for all of a kind is made once."""
    header, kinds = heap.layout.header, dict[Any, tuple[Any, ...]]()
    for chunk in chunks:
        address, size_field, state, arena, listed, owner = chunk
        if listed is not None or owner is not None:
            yield chunk_row(heap, chunk)
            continue
        kind = kinds.get((size_field, state, arena))
        if kind is None:
            if len(kinds) >= MOST_KINDS:
                kinds.clear()
            kind = kinds[size_field, state, arena] = chunk_row(heap, chunk)[2:]
        yield (Address(address), Address(address + header), *kind)


def note(heap: Heap, chunk: Chunk, listed: FreeList | None) -> str:
    """Return what a line of text says behind a chunk."""
    if chunk.owner:
        return f"the allocator's own ({chunk.owner})"
    if listed is not None and listed.thread is not None:
        return f"thread {thread_text(heap, listed.thread)}"
    return ""


def thread_text(heap: Heap, thread: int | None) -> str:
    """Return a thread's kernel id, in gdb with gdb's own number beside it: "7510 (gdb 1)"."""
    if thread is None:
        return Absent.NONE.value
    numbers = {known.id: known.number for known in heap.target.threads}
    number = numbers.get(thread)
    return str(thread) if number is None else f"{thread} (gdb {number})"


def chunk_data(heap: Heap, chunk: Chunk | None) -> dict[str, Any] | None:
    """Return a chunk as an object for JSON."""
    if chunk is None:
        return None
    row = chunk_row(heap, chunk)
    return {column.key: cell for column, cell in zip(CHUNK_COLUMNS, row) if column.in_json}


def totals_data(totals: Mapping[str | None, tuple[int, int]]) -> dict[str, dict[str, int]]:
    """Return counts and bytes by state; the unknown ones under "unknown".

    The four states that every heap can have are there even if no chunk has them.
    """
    order: Sequence[str | None] = (*STATES, None)
    return {
        state or "unknown": dict(zip(("count", "bytes"), totals.get(state, (0, 0))))
        for state in order
        if state in totals or state in ALWAYS
    }


def totals_text(totals: Mapping[str | None, tuple[int, int]]) -> str:
    """Return a line such as "12 chunks, 0x300 bytes: 10 used (0x200), 2 free (0x100)"."""
    count = sum(number for number, _ in totals.values())
    total = sum(size for _, size in totals.values())
    order: Sequence[str | None] = (*STATES, None)
    parts = []
    for state in order:
        if state in totals:
            number, size = totals[state]
            parts.append(f"{number} {state or 'not known'}{f' ({size:#x})' if size else ''}")
    line = f"{count} chunks, {total:#x} bytes"
    return f"{line}: {', '.join(parts)}" if parts else line


def row_limit(request: Any, in_text: int) -> int | None:
    """Return how many rows a listing shows: what was asked for, else *in_text*, in JSON all."""
    if request.all:
        return None
    if request.limit is not None:
        return int(request.limit)
    return None if request.json else in_text


def more_rows(count: int, limit: int | None) -> Lines:
    """Return the line behind a table that shows no more than *limit* of its rows."""
    over = 0 if limit is None else max(count - limit, 0)
    return Lines([[Tag(f"… {over} more (--all, or --limit N)")]] if over else [])


def finish(heap: Heap, command: str, parts: Iterable[Part]) -> Answer:
    """Return the answer of a command, with all that the target and the heap warn of.

    The list of warnings is the heap's own: what is found while rows are made still gets in.
    """
    heap.problems[:0] = heap.target.warnings
    return Answer(command, list(parts), heap.problems, heap.target.describe())


def printed(data: bytes) -> str:
    """Return bytes as text without the zeros behind; what is no plain text as \\xNN."""
    data = data.rstrip(b"\0")
    return "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02x}" for b in data)


def write_file(path: str, data: bytes) -> int:
    """Write a file that was asked for; return how many bytes it has.

    :raises BadRequest: if it cannot be written.
    """
    try:
        with open(path, "wb") as file:
            return file.write(data)
    except OSError as error:
        raise BadRequest(f"cannot write {path}: {error.strerror}") from error

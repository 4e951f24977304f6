"""`explain`: why the program ended in malloc, on one screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..analysis.explain import Explanation, explain_end
from ..heap.heap import Chunk, Heap
from ..heap.target import Target
from ..table import Address, Answer, Data, Lines, Part, Style, Tag
from .cells import chunk_data, finish, printed, row_limit
from .findings import (
    INDENT,
    cause_data,
    cause_lines,
    chunk_tags,
    finding_data,
    finding_lines,
    unsaid,
)

TEXT_ROWS = 2  # findings
SIGNALS = {4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV"}
FATAL = (6, 7, 11)
Line = list[Tag]


def explain(target: Target, request: Any) -> Answer:
    """Show which check of malloc's ended the program, on which chunk, and the likeliest cause."""
    heap = Heap(target)
    found = explain_end(heap, request.message)
    shown = found.checked.findings[: row_limit(request, TEXT_ROWS)]
    parts: list[Part] = [Lines(_lines(heap, found, len(shown))), *_data(heap, found)]
    parts.append(Data("findings", [finding_data(heap, finding) for finding in shown]))
    answer = finish(heap, "explain", parts)
    said = [*unsaid(answer.warnings, found.checked.findings), *found.checked.notes, *found.notes]
    answer.warnings[:] = said
    faults = found.said or found.checked.findings or found.chunk is not None
    answer.status = 1 if faults else 0
    return answer


def _data(heap: Heap, found: Explanation) -> Iterator[Part]:
    yield Data("message", None if found.text is None else printed(found.text.encode()))
    yield Data("message_how", found.how)
    check = found.check
    abort = {"function": check.function, "condition": check.condition} if check else None
    yield Data("abort", abort)
    stop = found.stop
    signal = stop and {
        "number": stop.signal,
        "address": None if stop.address is None else Address(stop.address),
        "pc": None if stop.pc is None else Address(stop.pc),
    }
    yield Data("signal", signal)
    yield Data("chunk", None if found.chunk is None else Address(found.chunk))
    yield Data("chunk_row", chunk_data(heap, _row(heap, found.chunk)))
    yield Data("cause", cause_data(found.cause))
    yield Data("candidates", [Address(chunk) for chunk in found.others])


def _row(heap: Heap, chunk: int | None) -> Chunk | None:
    place = None if chunk is None else heap.find(chunk)
    return heap.chunk_at(*place) if place is not None else None


def _lines(heap: Heap, found: Explanation, shown: int) -> Iterator[Line]:
    yield from _end(found)
    yield from _chunk(heap, found)
    if found.cause is not None:
        yield from cause_lines(found.cause)
    findings = found.checked.findings
    if not findings:
        yield [Tag("nothing else is broken in the heap", Style.DIM)]
        return
    for number, finding in enumerate(findings[:shown], 1):
        yield []
        yield from finding_lines(heap, finding, number, found.cause)
    if len(findings) > shown:
        yield [Tag(f"… {len(findings) - shown} more findings: heap check", Style.DIM)]


def _end(found: Explanation) -> Iterator[Line]:
    """Yield what ended the program."""
    if found.text is not None:
        source = "" if found.how == "__abort_msg" else f" ({found.how})"
        yield [Tag(printed(found.text.encode()), Style.BAD), Tag(source, Style.DIM)]
    if found.check is not None:
        yield [Tag(f"{INDENT}check    {found.check.function}: {found.check.condition}")]
    elif found.text is not None:
        yield [Tag(f"{INDENT}this is no text of malloc's; what follows is told by the heap alone")]
    if found.text is None:
        stop = found.stop
        if stop is not None and stop.signal in FATAL:
            at = "" if stop.address is None else f" at {stop.address:#x}"
            yield [Tag(f"{SIGNALS[stop.signal]}{at}, and malloc said nothing", Style.BAD)]
        else:
            yield [Tag("malloc has said nothing: the program did not end in one of its checks")]


def _chunk(heap: Heap, found: Explanation) -> Iterator[Line]:
    if found.chunk is None:
        if found.check is not None:
            yield [Tag(f"{INDENT}chunk    not found: no chunk is left for which that check fails")]
        return
    row = _row(heap, found.chunk)
    if row is not None and row.address == found.chunk:
        yield [Tag(f"{INDENT}chunk    "), *chunk_tags(heap, row)]
    else:
        mem = found.chunk + heap.layout.header
        yield [Tag(f"{INDENT}chunk    {found.chunk:#x}  mem {mem:#x}  no chunk of the heap")]
    if found.others:
        more = ", ".join(f"{chunk:#x}" for chunk in found.others[:4])
        yield [Tag(f"{INDENT}         the check also fails for {more}", Style.DIM)]

"""What `check` and `explain` share: findings as lines, and as objects for JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..analysis.check import Cause, Finding, Outcome
from ..errors import MemoryFault
from ..glibc.layout import flag_letters
from ..heap.heap import Chunk, Heap
from ..table import Absent, Address, Style, Tag
from .cells import chunk_data, state_cell

Line = list[Tag]
AROUND = 32  # bytes on both sides of a damaged word that are shown
CALLS = 4  # calls that would notice, in text
INDENT = "    "
NAMES = re.compile(r"(?:tcache|fast|small|large)\[0x[0-9a-f]+\]|0x[0-9a-f]+|unsorted")


def finding_data(heap: Heap, finding: Finding) -> dict[str, Any]:
    """Return a finding as an object for JSON."""
    start, data = _bytes(heap, finding)
    below, above = neighbours(heap, finding)
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        "address": Address(finding.address),
        "arena": None if finding.arena is None else Address(finding.arena),
        "message": finding.message,
        "glibc_abort": finding.abort,
        "evidence": {
            "words": [
                {
                    "address": Address(word.address),
                    "value": Address(word.value),
                    "what": word.what,
                    "expected": word.expected or None,
                }
                for word in finding.words
            ],
            "list": finding.list_label or None,
            "below": chunk_data(heap, below),
            "above": chunk_data(heap, above),
            "skipped": None if finding.skipped is None else [Address(a) for a in finding.skipped],
            "bytes": {"address": Address(start), "hex": data.hex()} if data else None,
            "calls": [outcome_data(outcome) for outcome in finding.outcomes],
        },
        "cause": cause_data(finding.cause),
    }


def cause_data(cause: Cause | None) -> dict[str, Any] | None:
    """Return a cause as an object for JSON."""
    if cause is None:
        return None
    culprit = None if cause.culprit is None else Address(cause.culprit)
    return {"kind": cause.kind, "culprit": culprit, "text": cause.text, "why": list(cause.why)}


def outcome_data(outcome: Outcome) -> dict[str, Any]:
    """Return what glibc would do at a call as an object for JSON."""
    return {"call": outcome.call, "says": outcome.says, "abort": outcome.abort}


def unsaid(warnings: Sequence[str], findings: Sequence[Finding]) -> list[str]:
    """Return the warnings that are not about what a finding says."""
    said = {f"{one.address:#x}" for one in findings}
    said |= {one.list_label for one in findings if one.list_label}
    said |= {f"{word.address:#x}" for one in findings for word in one.words}
    return [text for text in warnings if said.isdisjoint(NAMES.findall(text))]


def neighbours(heap: Heap, finding: Finding) -> tuple[Chunk | None, Chunk | None]:
    """Return the chunks below and above the one of a finding."""
    if not finding.is_chunk:
        return None, None
    segment = heap.segment_of(finding.address)
    if segment is None:
        return None, None
    columns = segment.columns
    row = columns.row_from(finding.address)
    past = finding.address if finding.next is None else finding.next - 1
    above = columns.row_from(past + 1)
    return (
        heap.chunk_at(segment, row - 1) if row else None,
        heap.chunk_at(segment, above) if above < len(columns) else None,
    )


def finding_lines(
    heap: Heap, finding: Finding, number: int, told: Cause | None = None
) -> Iterator[Line]:
    """Yield a finding as lines: what is wrong, what lies around it, why, what glibc would say.

    *told*: a cause that was shown already.
    """
    style = Style.BAD if finding.severity == "error" else Style.WARN
    yield [
        Tag(f"{number:>2}  "),
        Tag(finding.severity, style),
        Tag(f"  {finding.rule}  "),
        Tag(f"{finding.address:#x}", Style.STRONG),
    ]
    yield [Tag(f"{INDENT}{finding.message}")]
    yield from _around(heap, finding)
    for word in finding.words:
        expected = f", expected {word.expected}" if word.expected else ""
        name = f"{word.what} at {word.address:#x}"
        yield [Tag(f"{INDENT}word     {name}: {word.value:#x}{expected}")]
    if finding.is_chunk:
        yield from _dump(heap, finding)
    if finding.cause != told:
        yield from cause_lines(finding.cause)
    yield from _calls(finding.outcomes)


def cause_lines(cause: Cause | None) -> Iterator[Line]:
    """Yield the likeliest cause, and what speaks for it."""
    if cause is None:
        return
    yield [Tag(f"{INDENT}cause    "), Tag(cause.kind, Style.NOTE), Tag(f": {cause.text}")]
    for reason in cause.why:
        yield [Tag(f"{INDENT}         {reason}", Style.DIM)]


def _around(heap: Heap, finding: Finding) -> Iterator[Line]:
    for name, chunk in zip(("below", "above"), neighbours(heap, finding)):
        if chunk is not None:
            yield [Tag(f"{INDENT}{name:9}"), *chunk_tags(heap, chunk)]


def chunk_tags(heap: Heap, chunk: Chunk) -> Line:
    """Return a chunk in one line."""
    state = state_cell(chunk.state)
    shown = state if isinstance(state, Tag) else Tag(Absent.UNKNOWN.value)
    where = f"  {chunk.listed.label}" if chunk.listed else ""
    owner = f"  the allocator's own ({chunk.owner})" if chunk.owner else ""
    mem = chunk.address + heap.layout.header
    flags = flag_letters(chunk.size_field) or "-"
    text = f"{chunk.address:#x}  mem {mem:#x}  size {chunk.size:#x}  {flags}  "
    return [Tag(text), shown, Tag(f"{where}{owner}")]


def _calls(outcomes: Sequence[Outcome]) -> Iterator[Line]:
    for number, outcome in enumerate(outcomes[:CALLS]):
        name = "glibc" if not number else ""
        yield [Tag(f"{INDENT}{name:9}{outcome.call}: {outcome.says}")]


# --- bytes ----------------------------------------------------------------------------------------


def _bytes(heap: Heap, finding: Finding) -> tuple[int, bytes]:
    """Return where the bytes around a damaged word begin, and those that are known."""
    at = finding.words[0].address if finding.words else finding.address
    line = 2 * heap.words.size
    start, end = (at & -line) - AROUND, (at & -line) + line + AROUND
    start = max(start, 0)
    for low, high in ((start, end), (at & -line, end), (at & -line, (at & -line) + line)):
        try:
            return low, heap.target.memory.read(low, high - low)
        except MemoryFault:
            continue
    return at, b""


def _dump(heap: Heap, finding: Finding) -> Iterator[Line]:
    start, data = _bytes(heap, finding)
    bad = {word.address for word in finding.words}
    yield from dump_lines(heap, start, data, bad)


def dump_lines(heap: Heap, start: int, data: bytes, bad: set[int]) -> Iterator[Line]:
    """Yield bytes as words, two a line, with their text; those in *bad* stand out."""
    word = heap.words.size
    order = heap.words.order
    for at in range(0, len(data) - 2 * word + 1, 2 * word):
        line: Line = [Tag(f"{INDENT}  {start + at:#x}")]
        for offset in (at, at + word):
            value = int.from_bytes(data[offset : offset + word], order)
            style = Style.BAD if start + offset in bad else Style.PLAIN
            line += [Tag("  "), Tag(f"{value:0{2 * word}x}", style)]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data[at : at + 2 * word])
        yield [*line, Tag(f"  {text}", Style.DIM)]

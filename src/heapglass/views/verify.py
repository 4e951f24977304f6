"""`verify`: the model beside the memory, the first difference from both sides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..analysis.verify import Comparison, Difference, Side, cross_check, verify_trace
from ..analysis.whatif import make_overlay
from ..errors import MallocAbort, MemoryFault
from ..heap.heap import Heap
from ..heap.target import Target
from ..table import (
    Absent,
    Address,
    Answer,
    Column,
    Data,
    Fact,
    Facts,
    Kind,
    Lines,
    Part,
    Table,
    Tag,
)
from .cells import address, finish, more_rows, row_limit

TEXT_LIMIT = 20
_COLUMNS = (
    Column("what", "what"),
    Column("address", "address", Kind.ADDRESS),
    Column("where", "where"),
    Column("model", "the model"),
    Column("memory", "memory"),
    Column("model_words", "", Kind.LIST, in_text=False),
    Column("memory_words", "", Kind.LIST, in_text=False),
)


def verify(target: Target, request: Any) -> Answer:
    """Compare the model with the memory: a trace played, or both readings of this memory."""
    heap = Heap(target)
    found = verify_trace(request.trace, heap) if request.trace else _crossed(heap)
    limit = row_limit(request, TEXT_LIMIT)
    shown = found.differences[:limit]
    said = ", ".join(f"{count} {what}" for what, count in found.compared.items())
    parts: list[Part] = [
        Facts("", [Fact("", "compared", said or "nothing")]),
        Data("compared", found.compared),
        Table("differences", _COLUMNS, map(_row, shown), "differences", "the model has the same"),
        more_rows(len(found.differences), limit),
        Lines(_first(found)),
    ]
    answer = finish(heap, "verify", parts)
    answer.status = 1 if found.differences else 0
    return answer


def _crossed(heap: Heap) -> Comparison:
    """Compare both readings; where the model cannot go on, that is the difference."""
    overlay = make_overlay(heap, heap.target.threads)
    try:
        return cross_check(heap, overlay)
    except (MallocAbort, MemoryFault) as error:
        heap.problems.append(f"the model cannot read this heap to its end: {error}")
        return Comparison(
            differences=[Difference("walk", str(error), None, Side("stops"), Side("goes on"))]
        )


def _row(one: Difference) -> tuple[Any, ...]:
    words = ([Address(word) for word in side.words] for side in (one.model, one.memory))
    where = one.where or Absent.NONE
    return (one.what, address(one.address), where, one.model.said, one.memory.said, *words)


def _first(found: Comparison) -> Iterator[list[Tag]]:
    """Give the words of the first difference, from both sides."""
    first = next((one for one in found.differences if one.model.words or one.memory.words), None)
    if first is None:
        return
    yield [Tag("")]
    yield [Tag(f"words at {first.address or 0:#x}")]
    for name, side in (("the model", first.model), ("memory", first.memory)):
        said = " ".join(f"{word:#x}" for word in side.words) or "cannot be read"
        yield [Tag(f"  {name:<10} {said}")]

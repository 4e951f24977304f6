"""Where a chunk came from, by the calls that were recorded."""

from __future__ import annotations

from ..heap.target import Target
from ..model.trace import origins, read_trace
from ..table import Fact


def origin_facts(target: Target, mem: int, trace: str | None) -> list[Fact]:
    """Return which calls gave a block and took it back: of a trace, else of what gdb records.

    :raises BadTarget: if the trace cannot be read.
    """
    if trace is None:
        return [Fact(name, f"{name} by", text) for name, text in target.origins(mem)]
    given, freed = origins(read_trace(trace), (mem,))[mem]
    if given is None:
        return [Fact("allocated", "allocated by", None, note="no call of the trace gave it")]
    facts = [Fact("allocated", "allocated by", given.text())]
    return facts if freed is None else [*facts, Fact("freed", "freed by", freed.text())]

"""`replay`: a trace played by the model, call by call beside what was recorded."""

from __future__ import annotations

from typing import Any

from ..heap.target import Target
from ..model.replay import Ending, Replay, replay
from ..model.trace import NOT_FRESH, Trace, read_trace
from ..table import Address, Answer, Column, Data, Fact, Facts, Kind, Part, Table
from .cells import write_file


def replay_trace(target: Target | None, request: Any) -> Answer:
    """Play a trace in the model and compare every recorded pointer and abort."""
    trace = read_trace(request.trace)
    played = replay(trace, bool(request.keep_going))
    image = _write_image(played, request.image) if request.image else None
    facts = [Fact("calls", "calls", played.calls, Kind.COUNT)]
    if played.abort:
        facts.append(Fact("", f"aborts at line {played.abort.line}", played.abort.message))
    if played.fault:
        facts.append(Fact("", f"crashes at line {played.fault.line}", played.fault.message))
    if image is not None:
        facts.append(Fact("", "image", f"{image} bytes in {request.image}"))
    parts: list[Part] = [
        Facts("", facts),
        Table(
            "mismatches",
            (
                Column("line", "line", Kind.COUNT),
                Column("expected", "recorded"),
                Column("got", "the model"),
            ),
            [tuple(row) for row in played.mismatches],
            "differences",
            "everything as recorded",
        ),
        Data("pointers", [None if p is None else Address(p) for p in played.pointers]),
        Data("abort", _ending(played.abort)),
        Data("fault", _ending(played.fault)),
    ]
    layout = played.allocator.layout
    described = {"abi": layout.abi, "glibc": layout.release, "pid": None}
    return Answer("replay", parts, _warnings(trace), described, 1 if played.mismatches else 0)


def _warnings(trace: Trace) -> list[str]:
    return [] if trace.header.fresh else [NOT_FRESH]


def _ending(ending: Ending | None) -> dict[str, Any] | None:
    return None if ending is None else {"line": ending.line, "message": ending.message}


def _write_image(played: Replay, path: str) -> int:
    """Write the main heap's bytes to a file; return how many.

    :raises BadRequest: if the file cannot be written.
    """
    _, data = played.image()
    return write_file(path, data)

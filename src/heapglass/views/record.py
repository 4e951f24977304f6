"""`record`: a program run with the recorder, and the trace of what it asked of malloc."""

from __future__ import annotations

from typing import Any

from ..errors import BadRequest
from ..recorder import Converted, Recorded, convert, record
from ..table import Answer, Column, Fact, Facts, Kind, Part, Table

_COLUMNS = (
    Column("path", "trace"),
    Column("calls", "calls", Kind.COUNT),
    Column("threads", "threads", Kind.COUNT),
    Column("glibc", "glibc"),
    Column("abi", "ABI"),
    Column("ending", "died in a call of"),
)


def record_program(_: object, request: Any) -> Answer:
    """Run a program, or take a recording that was kept, and write the trace."""
    if not request.o:
        raise BadRequest("record needs a file", "record -o FILE -- PROGRAM …")
    if request.convert:
        recorded = Recorded(0, {request.o: convert(request.convert, request.o)})
        return _answer(recorded, [])
    if not request.program:
        raise BadRequest("record needs a program behind --", "record -o FILE -- PROGRAM …")
    recorded = record(request.program, request.o, bool(request.children), bool(request.json))
    status = Fact("status", "the program ended with", recorded.status, Kind.COUNT)
    if recorded.status < 0:
        status = status._replace(note=f"signal {-recorded.status}")
    return _answer(recorded, [Facts("", [status])])


def trace_elsewhere(_: object, request: Any) -> Answer:
    """Say where calls are recorded with breakpoints.

    :raises BadRequest: always.
    """
    raise BadRequest("trace works in gdb", "in a shell: heapglass record -o FILE -- PROGRAM …")


def _answer(recorded: Recorded, parts: list[Part]) -> Answer:
    rows = [_row(path, one) for path, one in recorded.files.items()]
    warnings = [text for one in recorded.files.values() for text in one.warnings]
    if recorded.others:
        warnings.append(f"{recorded.others} more processes were recorded: --children keeps them")
    return Answer("record", [*parts, Table("traces", _COLUMNS, rows)], warnings)


def _row(path: str, one: Converted) -> tuple[Any, ...]:
    header = one.header
    return path, one.calls, one.threads, header.glibc, header.abi, one.ending or None

"""`export`: the heap as tables in files, for DuckDB, pandas, Spark."""

from __future__ import annotations

from typing import Any

from ..errors import BadRequest
from ..export import FORMATS, read_tables, write_tables
from ..heap.heap import Heap
from ..heap.target import Target
from ..table import Answer, Column, Kind, Table
from .cells import finish

_COLUMNS = (
    Column("table", "table"),
    Column("rows", "rows", Kind.COUNT),
    Column("bytes", "bytes", Kind.BYTES),
    Column("path", "file"),
)


def export(target: Target, request: Any) -> Answer:
    """Write the heap's tables to files and say which."""
    if not request.o:
        raise BadRequest("export needs a folder", "export -o DIR")
    heap = Heap(target)
    heap.target.require_main_arena()
    tables = read_tables(heap)
    chosen = request.only.split(",") if request.only else list(tables)
    unknown = [name for name in chosen if name not in tables]
    if unknown:
        raise BadRequest(f"no table {unknown[0]!r}", f"there are {', '.join(tables)}")
    wanted = {name: tables[name] for name in chosen}
    written = list(write_tables(wanted, request.o, vars(request)["as"] or FORMATS[0]))
    rows = [(one.table, one.rows, one.bytes, one.path) for one in written]
    return finish(heap, "export", [Table("tables", _COLUMNS, rows)])

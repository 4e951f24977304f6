"""Tables into files: Parquet with pyarrow, JSON Lines and CSV with what Python has."""

from __future__ import annotations

import csv
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BadRequest
from .tables import BOOL, I64, SCHEMA, TEXT, U64, Batch, Tables

FORMATS = ("parquet", "jsonl", "csv")


class Written(NamedTuple):
    """A file of the export."""

    table: str
    rows: int
    path: str
    bytes: int


def write_tables(tables: Tables, folder: str, form: str) -> Iterator[Written]:
    """Write each table to a file of its name in a folder, which is made; yield what was written.

    :raises BadRequest: if pyarrow is needed and is not there, or a file cannot be written.
    """
    arrow = _arrow() if form == "parquet" else None
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for table, batches in tables.items():
            path = Path(folder) / f"{table}.{form}"
            unfinished = path.with_suffix(f".{form}.part")
            if arrow is not None:
                rows = _parquet(arrow, unfinished, table, batches())
            else:
                rows = (_jsonl if form == "jsonl" else _csv)(unfinished, table, batches())
            os.replace(unfinished, path)
            yield Written(table, rows, str(path), path.stat().st_size)
    except OSError as error:
        raise BadRequest(f"cannot write to {folder}: {error.strerror or error}") from error


# --- Parquet --------------------------------------------------------------------------------------


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BadRequest(
            "Parquet needs pyarrow, which this Python does not have",
            "pip install 'heapglass[export]', or --as jsonl or csv",
        ) from error
    return pyarrow


def _parquet(arrow: Any, path: Path, table: str, batches: Iterator[Batch]) -> int:
    kinds = {U64: arrow.uint64(), I64: arrow.int64(), BOOL: arrow.bool_()}
    kinds[TEXT] = arrow.dictionary(arrow.int32(), arrow.string())
    schema = arrow.schema([(name, kinds[kind]) for name, kind in SCHEMA[table].items()])
    rows = 0
    with arrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            columns = [_column(arrow, batch[field.name], field.type) for field in schema]
            made = arrow.record_batch(columns, schema=schema)
            rows += made.num_rows
            writer.write_batch(made)
    return rows


def _column(arrow: Any, values: Sequence[Any], kind: Any) -> Any:
    """Return a column; one of 64-bit integers as it is, without a copy."""
    if isinstance(values, array):
        return arrow.Array.from_buffers(kind, len(values), [None, arrow.py_buffer(values)])
    if arrow.types.is_dictionary(kind):
        return arrow.array(_writable(values), arrow.string()).dictionary_encode()
    return arrow.array(values, kind)


def _writable(texts: Sequence[str | None]) -> list[str | None]:
    """Return texts with the bytes of file names that are no UTF-8 as a backslash and digits."""
    return [text and text.encode("utf-8", "backslashreplace").decode() for text in texts]


# --- text -----------------------------------------------------------------------------------------


def _rows(table: str, batch: Batch) -> Iterator[tuple[Any, ...]]:
    """Yield the rows; addresses as "0x…"."""
    columns = []
    for name, kind in SCHEMA[table].items():
        values = batch[name]
        if name in ADDRESSES and kind == U64:
            columns.append([None if value is None else hex(value) for value in values])
        elif kind == TEXT:
            columns.append(_writable(values))
        else:
            columns.append(list(values))
    yield from zip(*columns)


ADDRESSES = {"address", "mem", "arena", "chunk", "top", "last_remainder", "source", "target"}


def _jsonl(path: Path, table: str, batches: Iterator[Batch]) -> int:
    count, names = 0, list(SCHEMA[table])
    with path.open("w", encoding="ascii") as file:
        for batch in batches:
            for row in _rows(table, batch):
                file.write(json.dumps(dict(zip(names, row))) + "\n")
                count += 1
    return count


def _csv(path: Path, table: str, batches: Iterator[Batch]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SCHEMA[table])
        for batch in batches:
            for row in _rows(table, batch):
                writer.writerow(["" if cell is None else cell for cell in row])
                count += 1
    return count

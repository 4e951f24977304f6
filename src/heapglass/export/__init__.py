"""A heap as tables for other programs: Parquet by pyarrow, CSV or JSON Lines without it."""

from .tables import SCHEMA, Batch, Tables, read_tables
from .write import FORMATS, write_tables

__all__ = ["FORMATS", "SCHEMA", "Batch", "Tables", "read_tables", "write_tables"]

"""Answers as text, JSON or records. Knows kinds of cells, not heaps; reads and prints nothing."""

from .document import json_pieces
from .pieces import in_blocks
from .records import FORMATS, listings, record_pieces
from .text import text_lines

__all__ = [
    "FORMATS",
    "in_blocks",
    "json_pieces",
    "listings",
    "record_pieces",
    "text_lines",
]

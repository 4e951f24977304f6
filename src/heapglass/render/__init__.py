"""Answers as text or JSON. Knows kinds of cells, not heaps; reads no memory, prints nothing."""

from .document import json_pieces
from .pieces import in_blocks
from .text import text_lines

__all__ = ["in_blocks", "json_pieces", "text_lines"]

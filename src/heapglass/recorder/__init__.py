"""The fast recorder: a library to preload, what it writes, and the trace that is made of it."""

from __future__ import annotations

from .convert import Converted, convert
from .run import Recorded, record

__all__ = ["Converted", "Recorded", "convert", "record"]

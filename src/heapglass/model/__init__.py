"""The allocator: glibc's malloc in Python, its whole state in simulated memory, byte for byte."""

from __future__ import annotations

from ..errors import MallocAbort
from .allocator import Allocator

__all__ = ["Allocator", "MallocAbort"]

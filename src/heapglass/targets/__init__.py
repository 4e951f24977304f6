"""Where bytes come from: ELF cores and processes, with their threads, mappings and files."""

from __future__ import annotations

from .core import CoreSource
from .open import open_target
from .options import OpenOptions
from .process import ProcessSource

__all__ = ["CoreSource", "OpenOptions", "ProcessSource", "open_target"]

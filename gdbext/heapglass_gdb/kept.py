"""What outlives a second `source` of heapglass: it is kept with gdb's own module."""

from __future__ import annotations

from typing import Any

import gdb

NAME = "_heapglass_kept"


def kept(what: str) -> dict[str, Any]:
    """Return the dict of that name, the same one each time that heapglass is sourced."""
    everything: dict[str, dict[str, Any]] = gdb.__dict__.setdefault(NAME, {})
    return everything.setdefault(what, {})

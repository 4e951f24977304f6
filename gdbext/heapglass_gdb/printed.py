"""Values printed as types of the program's debug information. Nothing in the program is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import gdb

from heapglass.errors import BadRequest

DEPTH = 4  # of nested structs
ELEMENTS = 64  # of arrays and strings
CALLS = "may-call-functions"


class GdbTypes:
    """gdb's types by name."""

    def size(self, name: str) -> int:
        """Return the bytes of a type.

        :raises BadRequest: if there is no such type.
        """
        return int(_lookup(name).sizeof)

    def text(self, name: str, address: int) -> str:
        """Return what stands at an address as a type; empty if it cannot be read."""
        pointer = gdb.Value(address).cast(_lookup(name).pointer())
        try:
            with _no_calls():
                value = pointer.dereference()
                return str(value.format_string(max_elements=ELEMENTS, max_depth=DEPTH))
        except (gdb.error, RuntimeError, ValueError):
            return ""


def _lookup(name: str) -> gdb.Type:
    for prefix in ("", "struct ", "class ", "union "):
        with suppress(gdb.error):
            return gdb.lookup_type(f"{prefix}{name}")
    raise BadRequest(
        f"no type {name!r} in the program's debug information",
        "ptype shows what gdb knows; load the program with its symbols",
    )


@contextmanager
def _no_calls() -> Iterator[None]:
    """Keep pretty printers from calling functions of the program, where gdb has a switch for it."""
    try:
        before = gdb.parameter(CALLS)
    except RuntimeError:
        before = None
    if before:
        gdb.execute(f"set {CALLS} off")
    try:
        yield
    finally:
        if before:
            gdb.execute(f"set {CALLS} on")

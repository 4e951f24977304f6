"""Errors that a user can meet: one line that names the place, and a hint what to do next."""

from __future__ import annotations


class HeapglassError(Exception):
    """The request or the target is at fault, not heapglass.

    `str()` is one line. *hint* says what the user can do next; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class MemoryFault(HeapglassError):
    """Bytes that the target does not have, or that the core left out."""

    def __init__(self, address: int, size: int = 1, why: str = "") -> None:
        reason = f" ({why})" if why else ""
        super().__init__(f"cannot read {size} bytes at {address:#x}{reason}")
        self.address = address
        self.size = size


class CorruptHeap(HeapglassError):
    """A word of the heap that malloc cannot have written."""

    def __init__(self, address: int, rule: str) -> None:
        super().__init__(f"{address:#x}: {rule}")
        self.address = address
        self.rule = rule


class MallocAbort(HeapglassError):
    """malloc ended the program; the message is glibc's own text, as that release prints it."""


class UnsupportedGlibc(HeapglassError):
    """A release outside of the tables: refused by name, never parsed as its neighbour."""


class BadTarget(HeapglassError):
    """A core, process or file that cannot be used as a target."""

    def __init__(self, name: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{name}: {reason}", hint)


class NotFound(HeapglassError):
    """Something that must be there and was not found: main_arena, the glibc release, …"""


class BadRequest(HeapglassError):
    """An argument or option that makes no sense; the message says what was expected."""

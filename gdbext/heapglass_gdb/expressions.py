"""Numbers that a user types in gdb: any expression of the program's language."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gdb

from heapglass.arguments import evaluate
from heapglass.errors import BadRequest

_BY_ADDRESS = (gdb.TYPE_CODE_ARRAY, gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION, gdb.TYPE_CODE_FUNC)
_REFERENCES = (gdb.TYPE_CODE_REF, gdb.TYPE_CODE_RVALUE_REF)
_PERMISSIONS = ("may-call-functions", "may-write-memory", "may-write-registers")


def evaluate_in_gdb(text: str) -> int:
    """Return the number that an expression means; of an array, struct or function, where it is.

    Nothing is called and nothing is written in the program by it.

    :raises BadRequest: if it cannot be evaluated.
    """
    try:
        return evaluate(text)
    except BadRequest:
        pass
    try:
        with _harmless():
            return _number(gdb.parse_and_eval(text))
    except (gdb.error, gdb.MemoryError, ValueError, OverflowError) as error:
        raise BadRequest(f"{text.strip()}: {error}") from error


def _number(value: gdb.Value) -> int:
    kind = value.type.strip_typedefs()
    if kind.code in _REFERENCES:
        value = value.referenced_value()
        kind = value.type.strip_typedefs()
    if kind.code in _BY_ADDRESS:
        if value.address is None:
            raise ValueError("it is not in memory")
        value = value.address
    return int(value)


@contextmanager
def _harmless() -> Iterator[None]:
    """Keep an expression from calling into the program or writing to it."""
    changed = [name for name in _PERMISSIONS if _switch_off(name)]
    try:
        yield
    finally:
        for name in changed:
            gdb.execute(f"set {name} on", to_string=True)


def _switch_off(name: str) -> bool:
    """Whether a permission was on and is off now; a gdb may not have it, or not let it go."""
    try:
        if not gdb.parameter(name):
            return False
        gdb.execute(f"set {name} off", to_string=True)
    except (gdb.error, RuntimeError):
        return False
    return True

"""Names of C++ as people write them: by the C++ library's own __cxa_demangle, where it is found."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

LIBRARIES = ("libstdc++.so.6", "libc++abi.so.1")
MOST_NAME = 2048  # bytes of a name that is given to it: the target made it, and it may recurse
MOST_KNOWN = 1 << 14
_OF = ("vtable for ", "typeinfo for ", "typeinfo name for ", "VTT for ")


@lru_cache(maxsize=1)
def _library() -> Any:
    for name in LIBRARIES:
        try:
            demangle = ctypes.CDLL(name).__cxa_demangle
        except (OSError, AttributeError):
            continue
        demangle.restype = ctypes.c_void_p
        demangle.argtypes = [ctypes.c_char_p, *[ctypes.c_void_p] * 3]
        return demangle
    return None


@lru_cache(maxsize=1)
def _free() -> Any:
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    return free


@lru_cache(maxsize=MOST_KNOWN)
def demangle(name: str) -> str:
    """Return a symbol's or a type's name as it is written; as it is, if that cannot be told.

    A type's name is what typeinfo has: "6Square", "St6vectorIiSaIiEE".
    """
    raw = name.encode("utf-8", "replace")
    known = _library() if 0 < len(raw) <= MOST_NAME and b"\0" not in raw else None
    if known is None or not name.startswith(("_Z", *"123456789NSKPAFMT")):
        return name
    status = ctypes.c_int(-1)
    found = known(raw, None, None, ctypes.byref(status))
    if not found:
        return name
    try:
        text = ctypes.string_at(found)
    finally:
        _free()(found)
    return text.decode("utf-8", "replace") if status.value == 0 else name


def of_what(name: str) -> str:
    """Return what a demangled name is about: "Square" for "vtable for Square"."""
    return next((name[len(kind) :] for kind in _OF if name.startswith(kind)), name)

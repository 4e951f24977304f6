"""What the C functions take for buffers and columns of ours."""

from __future__ import annotations

import ctypes
from array import array
from typing import Any

U64 = ctypes.c_uint64


class Span(ctypes.Structure):
    """Bytes of the target and the address of the first."""

    _fields_ = (("data", ctypes.c_void_p), ("length", U64), ("base", U64))


class _View(ctypes.Structure):
    """CPython's Py_buffer, which says where a read-only buffer's bytes are."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def address_of(data: memoryview) -> int | None:
    """Return where the bytes of a view are; it is good as long as the view is, unreleased."""
    view = _View()
    get, release = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release
    get(ctypes.py_object(data), ctypes.byref(view), 0)
    try:
        found: int | None = view.buf
        return found
    finally:
        release(ctypes.byref(view))


def column(values: array[int] | bytearray, first: int = 0) -> Any:
    """Return what C takes for a column of ours, from a row on; it cannot grow meanwhile."""
    width = 1 if isinstance(values, bytearray) else values.itemsize
    return (ctypes.c_char * 0).from_buffer(values, first * width)

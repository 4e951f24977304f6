"""What stands on a thread's stack, by gdb's frames and the variables it knows in them."""

from __future__ import annotations

from collections.abc import Iterator

import gdb

from .threads import selection_kept

MOST_FRAMES = 256
MOST_BLOCKS = 16  # nested ones of a frame
MOST_VARIABLES = 256  # of a block


def frame_at(thread: int, address: int) -> str:
    """Return what is at an address of a thread's stack: "line in main ()", or "main ()".

    Empty if gdb cannot unwind so far, or does not know the function.
    """
    with selection_kept():
        for known in gdb.selected_inferior().threads():
            pid, lwp, _ = known.ptid
            if (lwp or pid) == thread:
                known.switch()
                return _in_frames(address)
    return ""


def _in_frames(address: int) -> str:
    try:
        for frame in _frames():
            if address < _end(frame):
                name = frame.name() or ""
                variable = _variable(frame, address)
                where = f"{name} ()" if name else ""
                return f"{variable} in {where}" if variable and where else where
    except (gdb.error, RuntimeError):
        pass
    return ""


def _frames() -> Iterator[gdb.Frame]:
    frame: gdb.Frame | None = gdb.newest_frame()
    for _ in range(MOST_FRAMES):
        if frame is None:
            return
        if frame.type() != gdb.INLINE_FRAME:
            yield frame
        frame = frame.older()


def _end(frame: gdb.Frame) -> int:
    """Return where a frame's part of the stack ends: where its caller's stack pointer was."""
    older = frame.older()
    return int(older.read_register("sp")) if older is not None else 1 << 64


def _variable(frame: gdb.Frame, address: int) -> str:
    """Return the name of the variable of a frame that an address lies in; empty if none does."""
    try:
        block: gdb.Block | None = frame.block()
    except RuntimeError:  # no debug information
        return ""
    for _ in range(MOST_BLOCKS):
        if block is None:
            break
        for symbol in list(block)[:MOST_VARIABLES]:
            if (symbol.is_variable or symbol.is_argument) and _holds(symbol, frame, address):
                return str(symbol.name)
        if block.function is not None:
            break
        block = block.superblock
    return ""


def _holds(symbol: gdb.Symbol, frame: gdb.Frame, address: int) -> bool:
    """Whether a variable's bytes are at an address; one that is in a register has none."""
    try:
        value = symbol.value(frame) if symbol.needs_frame else symbol.value()
        if value.address is None:
            return False
        start = int(value.address)
        return start <= address < start + int(value.type.sizeof)
    except (gdb.error, RuntimeError, ValueError):
        return False

"""`open_target`: from what a user typed to a `Source`."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Union

from ..errors import BadTarget
from .compressed import unpack
from .core import CoreSource
from .options import OpenOptions
from .process import ProcessSource

if TYPE_CHECKING:
    from .trace import TraceSource

    OpenSource = Union[CoreSource, ProcessSource, TraceSource]
TRACE_MARK = b'"heapglass_trace"'


def open_target(spec: str, options: OpenOptions | None = None) -> OpenSource:
    """Open a process id, a core file or a trace; files may be compressed. Close the result.

    :raises BadTarget: if it cannot be used: one line that says what and what to do.
    """
    said = options or OpenOptions()
    if spec.isascii() and spec.isdigit():
        if len(spec) > 10 or not int(spec):
            raise BadTarget(spec, "no process has this id", "a file of that name is ./" + spec)
        return ProcessSource(int(spec), said)
    descriptor = _open_file(spec)
    try:
        start = os.pread(descriptor, 4096, 0)
        if TRACE_MARK in start.split(b"\n", 1)[0] or spec.endswith(".jsonl"):
            return _replayed(spec)
        unpacked = unpack(descriptor, spec, said)
        if unpacked is None:
            return CoreSource(descriptor, spec, said)
        with unpacked.file:
            if TRACE_MARK in os.pread(unpacked.file.fileno(), 4096, 0).split(b"\n", 1)[0]:
                return _replayed(spec)
            source = CoreSource(unpacked.file.fileno(), spec, said)
        source.warnings[:0] = unpacked.warnings
        return source
    finally:
        os.close(descriptor)


def _replayed(spec: str) -> TraceSource:
    """Open a trace: only then is the model loaded."""
    from .trace import open_trace

    return open_trace(spec)


def _open_file(spec: str) -> int:
    try:
        mode = os.stat(spec).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a plain file"
            raise BadTarget(spec, f"it is {kind}", "name a core file or a process id")
        return os.open(spec, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        hint = "name a core file or a process id; coredumpctl or core(5) tell where cores go"
        raise BadTarget(spec, "there is no such file", hint) from error
    except OSError as error:
        raise BadTarget(spec, f"it cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise BadTarget(ascii(spec), "this cannot be a file name") from error

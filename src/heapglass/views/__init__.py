"""One function a command: a target in, an answer out. Nothing here prints."""

from .bins import bins, tcache
from .check import check
from .chunks import chunk, chunks
from .explain import explain
from .export import export
from .info import info
from .leaks import leaks
from .map import map_
from .overview import arenas, heaps, mmapped, params
from .questions import find, link, size, whatis
from .record import record_program, trace_elsewhere
from .refs import refs
from .replay import replay_trace
from .stats import stats
from .try_ import try_
from .types import types
from .verify import verify
from .vis import vis

__all__ = [
    "arenas",
    "bins",
    "check",
    "chunk",
    "chunks",
    "explain",
    "export",
    "find",
    "heaps",
    "info",
    "leaks",
    "link",
    "map_",
    "mmapped",
    "params",
    "record_program",
    "refs",
    "replay_trace",
    "size",
    "stats",
    "tcache",
    "trace_elsewhere",
    "try_",
    "types",
    "verify",
    "vis",
    "whatis",
]

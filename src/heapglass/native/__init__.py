"""The hot loops: buffers in, columns filled, and where and why a loop stopped.

Compiled where the library was built, else in Python; both give the same answer. The environment
variable HEAPGLASS_NATIVE=0 turns the compiled ones off.
"""

from __future__ import annotations

import os

from . import compiled, loops
from .buffer import Buffer, Cells, Chain, Keep
from .hidden import Hidden
from .kinds import Group, Kinds, Requests
from .rows import BY_INTERIOR, BY_START, FROM_ROOT, MOST_ROWS, NOT_REACHED, Numbered, Rows

_compiled = None if os.environ.get("HEAPGLASS_NATIVE") == "0" else compiled.load()
_chosen = loops if _compiled is None else _compiled

IN_USE = "python" if _compiled is None else "native"  # which loops, as `info` says it
walk_sizes = _chosen.walk_sizes
walk_landmarks = _chosen.walk_landmarks
find_chain = _chosen.find_chain
judge_flags = _chosen.judge_flags
find_runs = _chosen.find_runs
add_cells = _chosen.add_cells
count_pairs = _chosen.count_pairs
select_rows = _chosen.select_rows
follow_ring = _chosen.follow_ring
words_between = _chosen.words_between
hidden_words = _chosen.hidden_words
make_graph = _chosen.make_graph
make_kinds = _chosen.make_kinds

__all__ = [
    "BY_INTERIOR",
    "BY_START",
    "FROM_ROOT",
    "IN_USE",
    "MOST_ROWS",
    "NOT_REACHED",
    "Buffer",
    "Cells",
    "Chain",
    "Group",
    "Hidden",
    "Keep",
    "Kinds",
    "Numbered",
    "Requests",
    "Rows",
    "add_cells",
    "count_pairs",
    "find_chain",
    "find_runs",
    "follow_ring",
    "hidden_words",
    "judge_flags",
    "make_graph",
    "make_kinds",
    "select_rows",
    "walk_landmarks",
    "walk_sizes",
    "words_between",
]

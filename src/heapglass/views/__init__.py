"""One function a command: a target in, an answer out. Nothing here prints.

A view's module is loaded when it is called: a command costs what it needs itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..table import Answer

MODULES = {
    "bins": (
        "bins",
        "tcache",
    ),
    "check": ("check",),
    "chunks": (
        "chunk",
        "chunks",
    ),
    "explain": ("explain",),
    "export": ("export",),
    "info": ("info",),
    "leaks": ("leaks",),
    "map": ("map_",),
    "overview": (
        "arenas",
        "heaps",
        "mmapped",
        "params",
    ),
    "questions": (
        "find",
        "link",
        "size",
        "whatis",
    ),
    "record": ("record_program", "trace_elsewhere"),
    "refs": ("refs",),
    "replay": ("replay_trace",),
    "snapshot": ("diff", "snapshot"),
    "stats": ("stats",),
    "try_": ("try_",),
    "types": ("types",),
    "verify": ("verify",),
    "vis": ("vis",),
}
_MODULE_OF = {name: module for module, names in MODULES.items() for name in names}


class View:
    """A view by its name."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, target: Any, request: Any) -> Answer:
        """Return what the view answers."""
        answer: Answer = getattr(import_module(f".{self.module}", __name__), self.name)(
            target, request
        )
        return answer


class Views:
    """All views, as attributes."""

    def __getattr__(self, name: str) -> View:
        try:
            return View(_MODULE_OF[name], name)
        except KeyError:
            raise AttributeError(name) from None


views = Views()

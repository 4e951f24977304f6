"""The target as it stopped: opened and read once, until gdb says that it may differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gdb

from .kept import kept

if TYPE_CHECKING:
    from .source import GdbSource

NO_TARGET = "no process or core: start one (run, attach) or open a core (core-file)"

# What may change bytes, registers, mappings or symbols; gdb 10 has fewer than gdb 16.
EVENTS = (
    "cont",
    "stop",
    "exited",
    "inferior_call",
    "memory_changed",
    "register_changed",
    "new_objfile",
    "clear_objfiles",
    "free_objfile",
    "inferior_deleted",
    "executable_changed",
    "connection_removed",
)


class Stopped:
    """Keeps the source of the last command. What gdb does not tell of is a `restore`."""

    def __init__(self) -> None:
        self._key: Any = None
        self._source: GdbSource | None = None
        self._listen()

    def open(self, memory_limit: int | None) -> GdbSource:
        """Return the target that gdb has selected, as it is now. Do not close it.

        :raises HeapglassError: if there is none, or it cannot be used.
        """
        from .source import open_selected, selected  # with the first command, not with gdb

        key = selected(memory_limit)
        if self._source is None or key != self._key:
            self.drop()
            self._source, self._key = open_selected(key), key
        return self._source

    def drop(self, _event: object = None) -> None:
        """Forget what was read."""
        source, self._source, self._key = self._source, None, None
        if source is not None:
            source.close()

    def _listen(self) -> None:
        """Hear of changes; who heard of them before heapglass was sourced again does no more."""
        mine = kept("stopped")
        before = mine.get("drop")
        mine["drop"] = self.drop
        for name in EVENTS:
            registry = getattr(gdb.events, name, None)
            if registry is None:
                continue
            if before is not None:
                registry.disconnect(before)
            registry.connect(self.drop)
        if before is not None:
            before()

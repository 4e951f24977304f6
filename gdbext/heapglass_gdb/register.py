"""The prefixes: `heapglass` always, `hg` for short, `heap` if nobody else has it."""

from __future__ import annotations

import sys

import gdb

from heapglass.commands import COMMANDS

from .commands import HeapCommand, Prefix, Runner
from .kept import kept
from .parameters import Settings
from .stopped import Stopped

NAME = "heapglass"
HERE = tuple(command for command in COMMANDS if command.door != "shell")
MARK = "(heapglass)"  # in the help of our prefixes: tells them from another extension's
HELP = f"""Heaps of glibc: chunks, bins, arenas, tcaches. {MARK}

On the process or core that gdb has open. `help {NAME} COMMAND` tells more of each command;
addresses and numbers may be any expression of the program's language."""
TAKEN = (
    "heapglass: `heap` belongs to another extension; use `heapglass` or `hg` "
    "(`set heapglass prefix heap` takes it)\n"
)


def register() -> None:
    """Define the commands and settings. May be called again: the new ones replace the old."""
    owner = _Owner()
    settings = Settings(owner.take)
    owner.define(NAME, settings)
    _alias("hg")
    if settings.prefix == "heap":  # from the time before
        owner.define("heap", settings)
    owner.begin(_alias("heap"))


def is_ours(name: str) -> bool:
    """Whether a prefix is heapglass's."""
    try:
        return MARK in gdb.execute(f"help {name}", to_string=True)
    except gdb.error:
        return False


def _alias(name: str) -> bool:
    """Make a short name, unless somebody has it; whether it is ours.

    It is marked as an abbreviation: lists of commands, by which extensions look for names that are
    taken, do not show it.
    """
    try:
        gdb.execute(f"alias -a {name} = {NAME}", to_string=True)
    except gdb.error:
        return is_ours(name)  # it may be there from the time before
    return True


class _Owner:
    """Knows who has `heap`, says once when another extension does, and takes it on demand."""

    def __init__(self) -> None:
        self._ours = True
        self._settings: Settings | None = None
        self._stopped = Stopped()
        self._table: dict[str, Runner] = kept("commands")

    def define(self, prefix: str, settings: Settings) -> None:
        """Define every command under a prefix; what gdb has from an earlier time only changes."""
        self._settings = settings
        if not is_ours(prefix):
            Prefix(prefix, HELP)
            for name in [name for name in self._table if name.startswith(f"{prefix} ")]:
                del self._table[name]  # they went with the prefix, when somebody else took it
        for command in HERE:
            name = f"{prefix} {command.name}"
            known = name in self._table
            self._table[name] = Runner(prefix, command, settings, self._stopped, self.look)
            if not known:
                HeapCommand(name, self._table)

    def begin(self, ours: bool) -> None:
        """Say who has `heap`, and look again before each prompt: others may be loaded later."""
        self._ours = ours
        if not ours:
            gdb.write(TAKEN, gdb.STDERR)
        gdb.events.before_prompt.connect(self._before_prompt)

    def _before_prompt(self) -> None:
        if getattr(sys.modules.get(__name__), "register", None) is not register:
            gdb.events.before_prompt.disconnect(self._before_prompt)  # heapglass was sourced again
        else:
            self.look()

    def look(self) -> None:
        """Say, once, that `heap` has gone to somebody else."""
        if self._ours and not is_ours("heap"):
            self._ours = False
            gdb.write(TAKEN, gdb.STDERR)

    def take(self) -> None:
        """Take `heap`, whoever has it: `set heapglass prefix heap`."""
        if self._settings is not None and not is_ours("heap"):
            self.define("heap", self._settings)
            self._ours = True

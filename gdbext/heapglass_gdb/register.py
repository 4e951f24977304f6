"""The prefixes: `heapglass` always, `hg` for short, `heap` if nobody else has it."""

from __future__ import annotations

import gdb

from heapglass.commands import COMMANDS
from heapglass.errors import BadRequest

from .commands import HeapCommand
from .parameters import Settings

NAME = "heapglass"
TAKEN = (
    "heapglass: `heap` belongs to another extension; use `heapglass` or `hg` "
    "(`set heapglass prefix heap` takes it)\n"
)


class _Prefix(gdb.Command):
    """The prefix of all commands; alone it lists them."""

    def __init__(self, name: str) -> None:
        lines = [f"  {name} {command.name:<9} {command.summary}" for command in COMMANDS]
        self.__doc__ = "\n".join(
            [
                "Heaps of glibc: chunks, bins, arenas, tcaches. (heapglass)",
                "",
                *lines,
                "",
                f"`help {name} NAME` tells more of each.",
            ]
        )
        super().__init__(name, gdb.COMMAND_DATA, gdb.COMPLETE_COMMAND, True)

    def invoke(self, line: str, _from_tty: bool) -> None:
        """Say what there is, or that what was asked for is not."""
        word = line.split(" ")[0]
        if word:
            raise gdb.GdbError(f'no command "{word}" in heapglass; try: help heapglass')
        gdb.write(f"{self.__doc__}\n")


def register() -> None:
    """Define the commands and settings. May be called again: the new ones replace the old."""
    free = _heap_is_free()
    settings = Settings(_take)
    _Prefix(NAME)
    for command in COMMANDS:
        HeapCommand(NAME, command, settings)
    _alias("hg")
    if free:
        _alias("heap")
    else:
        gdb.write(TAKEN)


def _heap_is_free() -> bool:
    """Whether nobody, or we ourselves, have the prefix `heap`. Asked before we define anything."""
    try:
        said = gdb.execute("help heap", to_string=True)
    except gdb.error:
        return True
    return "(heapglass)" in said


def _alias(name: str) -> None:
    """Make a short name. Marked as an abbreviation: lists of commands, by which extensions look
    for names that are taken, do not show it."""
    try:
        gdb.execute(f"alias -a {name} = {NAME}", to_string=True)
    except gdb.error:
        return  # it is there already, from the time before


def _take(prefix: str) -> None:
    """Take `heap`, whoever has it: `set heapglass prefix heap`.

    :raises BadRequest: for any other prefix.
    """
    if prefix == NAME:
        return
    if prefix != "heap":
        raise BadRequest(f"{prefix!r}: expected heap or heapglass")
    if "(heapglass)" not in gdb.execute("help heap", to_string=True):
        settings = Settings(_take)
        _Prefix("heap")
        for command in COMMANDS:
            HeapCommand("heap", command, settings)

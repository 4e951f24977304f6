"""Debian's suites on a mirror: by which names they go, and whether a name still means the suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from private_apt import AptError, PrivateApt

Got = TypeVar("Got")

OTHER_NAMES = {
    "bullseye": "oldoldstable",
    "bookworm": "oldstable",
    "trixie": "stable",
    "sid": "unstable",
}
CODENAMES = {"experimental": "rc-buggy"}  # what a Release says where it is not the suite's name


class NoArchitecture(Exception):
    """The suite does not have the architecture; nothing is wrong."""


def by_either_name(suite: str, ask: Callable[[str], Got]) -> Got:
    """Ask for a suite by its codename, or by its other name.

    A mirror in the middle of a change may have a suite whole under one name only.

    :raises AptError: if neither gives it; the codename's reason.
    """
    try:
        return ask(suite)
    except AptError as error:
        other = OTHER_NAMES.get(suite)
        if other is None:
            raise
        try:
            return ask(other)
        except AptError:
            raise error from None


def open_suite(apt: PrivateApt, name: str, codename: str, arch: str) -> None:
    """Fetch the index of what the mirror calls *name*, and hold it against what is meant.

    :raises AptError: if the name has moved on to another suite.
    :raises NoArchitecture: if the suite does not have the architecture.
    """
    apt.update()
    if apt.codename() != CODENAMES.get(codename, codename):
        raise AptError(f"the mirror's {name} is {apt.codename() or 'nothing'}, not {codename}")
    if not apt.has_architecture():
        raise NoArchitecture(f"{codename} does not have {arch}")

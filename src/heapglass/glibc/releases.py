"""Releases as tuples, and the range that the tables cover."""

from __future__ import annotations

import re

from ..errors import UnsupportedGlibc

Version = tuple[int, int]

OLDEST: Version = (2, 23)
NEWEST: Version = (2, 44)
BEFORE: Version = (0, 0)  # since for what was always there
NEVER: Version = (99, 0)  # until for what is still there


def parse_version(text: str) -> Version:
    """Return (2, 36) for "2.36", "2.36-9+deb12u14", "glibc 2.36".

    :raises UnsupportedGlibc: if no release is named, or one that the tables do not cover.
    """
    found = re.search(r"(?<![\d.])(2)\.(\d{1,3})(?!\d)", text[:200])
    if found is None:
        raise UnsupportedGlibc(
            f"no glibc release in {text[:40]!r}", "give one as 2.36 (2.23 to 2.44 are known)"
        )
    return require_known((int(found[1]), int(found[2])))


def require_known(version: Version) -> Version:
    """Return *version* if the tables cover it.

    :raises UnsupportedGlibc: if they do not; a neighbour's layout is never assumed.
    """
    if OLDEST <= version <= NEWEST:
        return version
    raise UnsupportedGlibc(
        f"glibc {name(version)} is outside of the tables, which cover "
        f"{name(OLDEST)} to {name(NEWEST)}",
        "to read it as a release that is covered, name that with --glibc VERSION "
        "(in gdb: set heapglass glibc VERSION)",
    )


def name(version: Version) -> str:
    """Return "2.36" for (2, 36)."""
    return f"{version[0]}.{version[1]}"


def releases() -> list[Version]:
    """Return every release that the tables cover, ascending."""
    return [(2, minor) for minor in range(OLDEST[1], NEWEST[1] + 1)]

"""Which release of glibc a target runs: the banner, the file's name, or what memory shows."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..glibc.releases import Version, parse_version
from ..source import Module, Source

BANNER = b"GNU C Library ("
_RELEASE = re.compile(rb"GNU C Library \(([^)\n]{0,120})\) \w+ release version (\d+\.\d+)")
_NAME = re.compile(r"/libc-(2\.\d+)\.so$")


class Banner(NamedTuple):
    """The release that a file says it is, and how it says so."""

    version: Version
    how: str


def read_banner(source: Source, module: Module) -> Banner | None:
    """Return the release that a loaded file names, None if it names none.

    :raises UnsupportedGlibc: if the tables do not cover it.
    """
    data = source.file_bytes(module, BANNER, 256)
    found = _RELEASE.search(data) if data else None
    if found:
        package = found[1].decode("ascii", "backslashreplace")
        version = parse_version(found[2].decode("ascii"))
        return Banner(version, f"banner of {module.path} ({package})")
    named = _NAME.search(module.path)
    if named:
        return Banner(parse_version(named[1]), f"file name {module.path}")
    return None

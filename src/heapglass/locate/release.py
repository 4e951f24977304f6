"""Which release of glibc a target runs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import NotFound
from ..glibc.releases import Version, parse_version
from ..source import Module, Source

BANNER = b"GNU C Library ("
_RELEASE = re.compile(rb"GNU C Library \(([^)\n]{0,120})\) \w+ release version (\d+\.\d+)")
_NAME = re.compile(r"/libc-(2\.\d+)\.so$")


def find_release(source: Source, said: str | None) -> tuple[Version, str]:
    """Return the release and how it is known.

    :raises NotFound: if nothing names it.
    :raises UnsupportedGlibc: if what names it is outside of the tables.
    """
    if said is not None:
        return parse_version(said), "user"
    modules = likely_libcs(source.modules())
    for module in modules:
        data = source.file_bytes(module, BANNER, 256)
        found = _RELEASE.search(data) if data else None
        if found:
            version = parse_version(found[2].decode("ascii"))
            package = found[1].decode("ascii", "backslashreplace")
            return version, f"banner of {module.path} ({package})"
    for module in modules:
        named = _NAME.search(module.path)
        if named:
            return parse_version(named[1]), f"file name {module.path}"
    raise NotFound(
        "the glibc release could not be found: no loaded file has glibc's banner",
        "name it with --glibc VERSION (in gdb: set heapglass glibc VERSION), or say where the "
        "target's files are with --sysroot DIR",
    )


def likely_libcs(modules: Sequence[Module]) -> list[Module]:
    """Return the modules that may hold malloc: C libraries by name first, then the program."""
    libc = [m for m in modules if re.search(r"/libc[.-][^/]*so[^/]*$", m.path)]
    return libc + [m for m in modules if m not in libc][:1]

"""The C libraries that were fetched: where they lie, and what lies in each.

A runtime is a folder ``<glibc>-<arch>`` with libc6 and libc6-dbg of Debian, unpacked, and a
``runtime.json`` that says what it is; without that file it is not finished.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "runtimes"
MANIFEST = "runtime.json"
STATIC = "static"  # folder of a runtime that has libc.a and crt1.o, where they were asked for
# The dynamic loader of each architecture: what a program of it names as its interpreter.
LOADERS = {
    "amd64": "ld-linux-x86-64.so.2",
    "i386": "ld-linux.so.2",
    "arm64": "ld-linux-aarch64.so.1",
    "armhf": "ld-linux-armhf.so.3",
    "ppc64el": "ld64.so.2",
    "riscv64": "ld-linux-riscv64-lp64d.so.1",
    "s390x": "ld64.so.1",
}


class BadRuntime(Exception):
    """A runtime, or a package, that is not what it should be; one line."""


@dataclass(frozen=True)
class Runtime:
    """A C library of one release and architecture. Paths are relative to *folder*."""

    folder: Path
    glibc: str  # the release, "2.36"
    package: str  # Debian's version, "2.36-9+deb12u14"
    suite: str
    arch: str  # Debian's name
    loader: str
    libdir: str  # has libc.so.6
    debug_dir: str
    also_in: tuple[str, ...] = ()  # suites that had the same release when they were asked

    @property
    def name(self) -> str:
        """As its folder is called: ``2.36-amd64``."""
        return f"{self.glibc}-{self.arch}"

    @property
    def libc(self) -> Path:
        """The library itself."""
        return self.folder / self.libdir / "libc.so.6"

    def serves(self, suite: str) -> bool:
        """Whether this is what was found for a suite."""
        return suite == self.suite or suite in self.also_in

    def to_json(self) -> str:
        """What ``runtime.json`` holds."""
        fields = {**asdict(self), "also_in": list(self.also_in)}
        del fields["folder"]
        return json.dumps(fields, indent=1) + "\n"


def glibc_of(package: str) -> str:
    """Return the release of a package's version, "2.36" of "2.36-9+deb12u14".

    :raises BadRuntime: if the version does not begin with a release.
    """
    found = re.match(r"(?:\d+:)?(\d+\.\d+)(?![\d])", package)
    if found is None:
        raise BadRuntime(f"{package!r} is no version of glibc")
    return found[1]


def describe(folder: Path, package: str, suite: str, arch: str) -> Runtime:
    """Find loader, libraries and debug files in a folder with both packages unpacked.

    :raises BadRuntime: if one of them is not there.
    """
    debug_dir = Path("usr") / "lib" / "debug"
    libraries = sorted(
        (path.relative_to(folder) for path in folder.rglob("libc.so.6") if path.is_file()),
        key=lambda path: (len(path.parts), path),
    )
    if not libraries:
        raise BadRuntime(f"{folder}: expected a libc.so.6 in libc6 {package} for {arch}")
    libdir = libraries[0].parent
    loader = libdir / LOADERS[arch]
    if not (folder / loader).is_file():
        raise BadRuntime(f"{folder / loader} is missing: expected the dynamic loader of libc6")
    if not (folder / debug_dir / ".build-id").is_dir():
        raise BadRuntime(f"{folder / debug_dir}: expected debug files by build id")
    return Runtime(
        folder,
        glibc_of(package),
        package,
        suite,
        arch,
        str(loader),
        str(libdir),
        str(debug_dir),
    )


def read_runtime(folder: Path) -> Runtime | None:
    """Return the runtime in a folder, None if none is finished there.

    :raises BadRuntime: if its manifest is not one.
    """
    path = folder / MANIFEST
    try:
        said = json.loads(path.read_text())
        runtime = Runtime(folder=folder, **{**said, "also_in": tuple(said.get("also_in", ()))})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, AttributeError):
        raise BadRuntime(f"{path} is not a runtime's manifest: remove {folder}") from None
    return runtime if runtime.libc.is_file() else None


def _order(runtime: Runtime) -> tuple[list[int], str]:
    return ([int(part) for part in runtime.glibc.split(".")], runtime.arch)


def runtimes(cache: Path = CACHE) -> list[Runtime]:
    """Return the finished runtimes of a cache folder, by release and architecture.

    :raises BadRuntime: if a manifest is not one.
    """
    found = [read_runtime(path.parent) for path in cache.glob(f"[!.]*/{MANIFEST}")]
    return sorted((runtime for runtime in found if runtime is not None), key=_order)

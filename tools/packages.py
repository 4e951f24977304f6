"""A folder of ``.deb`` files, and what a ``.deb`` says of itself."""

from __future__ import annotations

import functools
import hashlib
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from runtimes import BadRuntime, glibc_of

WANTED = ("libc6", "libc6-dbg")
LIBC_DEV = "libc6-dev"  # has libc.a
SUMS = "SHA256SUMS"
FILE_NAME = re.compile(r"([a-z0-9][a-z0-9+.-]+)_([^_/]+)_([a-z0-9-]+)\.deb")


class Package(NamedTuple):
    """A ``.deb`` file."""

    path: Path
    name: str
    version: str
    arch: str


def from_name(path: Path) -> Package | None:
    """Read name, version and architecture from a file's name, None if it is not a package's."""
    found = FILE_NAME.fullmatch(path.name)
    return Package(path, found[1], found[2].replace("%3a", ":"), found[3]) if found else None


def from_control(path: Path) -> Package:
    """Read name, version and architecture from the package itself.

    :raises BadRuntime: if it is not a package.
    """
    fields = ("Package", "Version", "Architecture")
    command = ["dpkg-deb", "-f", str(path), *fields]
    done = _run(command)
    said = dict(re.findall(r"^([\w-]+): (\S+)$", done.stdout, re.M))
    if done.returncode or not said.keys() >= set(fields):
        raise BadRuntime(f"{path}: expected a Debian package; remove it or bring it anew")
    return Package(path, said["Package"], said["Version"], said["Architecture"])


def in_folder(folder: Path) -> list[Package]:
    """Return the packages of a folder that are wanted; a file with another name is asked.

    :raises BadRuntime: if a ``.deb`` with another name is not a package.
    """
    found = [from_name(path) or from_control(path) for path in sorted(folder.glob("*.deb"))]
    return [package for package in found if package.name in WANTED]


def newest_pair(packages: Iterable[Package], glibc: str, arch: str) -> list[Package]:
    """Return libc6 and libc6-dbg of the newest version of a release that has both, or nothing."""
    versions: dict[str, dict[str, Package]] = {}
    for package in packages:
        if package.arch == arch and glibc_of(package.version) == glibc:
            versions.setdefault(package.version, {})[package.name] = package
    whole = [version for version, pair in versions.items() if len(pair) == len(WANTED)]
    if not whole:
        return []
    newest = max(whole, key=functools.cmp_to_key(_compare))
    return [versions[newest][name] for name in WANTED]


def _compare(left: str, right: str) -> int:
    """Compare versions as dpkg does."""
    if left == right:
        return 0
    return 1 if _run(["dpkg", "--compare-versions", left, "gt", right]).returncode == 0 else -1


def read_sums(folder: Path) -> dict[str, str] | None:
    """Return file name -> SHA-256 of a folder's SHA256SUMS, None if there is no such file.

    :raises BadRuntime: if a line is not one of sha256sum's.
    """
    path = folder / SUMS
    if not path.is_file():
        return None
    sums: dict[str, str] = {}
    for line in path.read_text(errors="replace").splitlines():
        found = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line)
        if found is None:
            raise BadRuntime(f"{path}: expected lines of sha256sum, found {line[:80]!r}")
        sums[found[2]] = found[1].lower()
    return sums


def verify(package: Package, sums: dict[str, str]) -> None:
    """Hold a file against its folder's SHA256SUMS.

    :raises BadRuntime: if it is not named there, or is another file.
    """
    said = sums.get(package.path.name)
    if said is None:
        raise BadRuntime(f"{package.path} is not in {SUMS}: remove one or complete the other")
    digest = hashlib.sha256()
    with package.path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != said:
        raise BadRuntime(f"{package.path} is not the file that {SUMS} names: bring it anew")


def unpack(packages: Iterable[Package], folder: Path) -> None:
    """Unpack into a folder, after a look whether each package is what it is called.

    :raises BadRuntime: if one is not, or cannot be unpacked.
    """
    for package in packages:
        if from_control(package.path) != package:
            raise BadRuntime(f"{package.path} is not the package that it is called: remove it")
        done = _run(["dpkg-deb", "-x", str(package.path), str(folder)])
        if done.returncode:
            raise BadRuntime(f"{package.path}: {' '.join(done.stderr.split())[:200]}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError:
        raise BadRuntime(f"{command[0]} is missing: this needs a machine with dpkg") from None

"""Files of the target's machine, as far as they are on this one: mapped files, debug files.

A path comes out of a target and is not trusted: only plain files are opened, read only.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from typing import NamedTuple

from ..memory import Region
from .elf import BadElf, build_id_of_file, read_header, read_sections
from .options import OpenOptions

DELETED = " (deleted)"  # what the kernel puts behind the path
MOST_OPEN = 4096  # distinct files looked into; a core that names more is not a program's


class Found(NamedTuple):
    """A file at hand for a path of the target, or why there is none."""

    path: str  # on this machine; empty: none
    build_id: str = ""  # hex; empty if the file has none
    other: str = ""  # a file that is there, but has another build id


class DebugLink(NamedTuple):
    """What `.gnu_debuglink` says: the debug file's name and the CRC of its bytes."""

    name: str
    crc: int


def map_file(path: str) -> mmap | None:
    """Map a plain file, read only; None if it is not one, is empty, or cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None  # a device or pipe may do something when it is opened
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return mmap(descriptor, 0, access=ACCESS_READ)
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)


def identity(path: str) -> tuple[int, int, int, int] | None:
    """Return what tells a file from another one: device, inode, size, time. None if not there."""
    try:
        said = os.stat(path)
    except (OSError, ValueError):
        return None
    return (said.st_dev, said.st_ino, said.st_size, said.st_mtime_ns)


class FileFinder:
    """Finds the files of one target.

    *folder* is ``/proc/PID`` for a process of this machine, empty for all else. What was opened is
    kept for as long as the finder is, by the file's identity.
    """

    def __init__(self, options: OpenOptions, folder: str = "") -> None:
        self.options = options
        self._folder = folder
        self._root = f"{folder}/root" if folder else ""  # as the process sees it
        self._maps: dict[tuple[int, int, int, int], mmap | None] = {}
        self._build_ids: dict[tuple[int, int, int, int], str | None] = {}

    def open(self, path: str) -> mmap | None:
        """Return a file's bytes, mapped; None if it cannot be had."""
        key = identity(path)
        if key is None:
            return None
        if key not in self._maps:
            self._maps[key] = map_file(path) if len(self._maps) < MOST_OPEN else None
        return self._maps[key]

    def close(self) -> None:
        """Let the files go, but those that somebody still has a view of."""
        for data in self._maps.values():
            if data is not None:
                close_map(data)
        self._maps.clear()

    def build_id(self, path: str) -> str | None:
        """Return a file's build id, empty if it has none; None if it is no ELF file at hand."""
        key = identity(path)
        if key is None:
            return None
        if key not in self._build_ids:
            data = map_file(path)
            self._build_ids[key] = _build_id(data)
            if data is not None:
                close_map(data)
        return self._build_ids[key]

    def candidates(self, path: str) -> Iterator[str]:
        """Yield where a path of the target may be on this machine, the likeliest first."""
        if not path.startswith("/"):
            return
        path = os.path.normpath(path.removesuffix(DELETED))
        if self.options.sysroot:
            for name in (path, _other_usr(path)):
                yield os.path.join(self.options.sysroot, name.lstrip("/"))
            return
        if self._root:
            yield self._root + path
        yield path

    def mapped(self, region: Region) -> str:
        """Return where a mapped file can be had though it was deleted; empty if nowhere."""
        if not self._folder or not region.path.endswith(DELETED):
            return ""
        return f"{self._folder}/map_files/{region.start:x}-{region.end:x}"

    def find(self, path: str, build_id: str, first: str = "") -> Found:
        """Return the file of a loaded module; *build_id* is the one in memory, empty: unknown.

        *first* is a place on this machine to look at before the others.
        """
        other = ""
        for place in (first, *self.candidates(path)) if first else self.candidates(path):
            has = self.build_id(place)
            if has is None:
                continue
            if not build_id or not has or has == build_id:
                return Found(place, has)
            other = other or place
        return Found("", other=other)

    def debug_file(self, file: str, path: str, build_id: str) -> str:
        """Return the separate debug file of a module; empty if none is at hand.

        *file* is the module on this machine (may be empty), *path* its name in the target.
        """
        dirs = list(self._debug_dirs())
        if len(build_id) > 2:
            name = f".build-id/{build_id[:2]}/{build_id[2:]}.debug"
            for place in (os.path.join(folder, name) for folder in dirs):
                if self.build_id(place) in (build_id, ""):
                    return place
        link = self._debug_link(file) if dirs else None
        if link is None:
            return ""
        folder, own = os.path.dirname(path), os.path.dirname(file)
        places = [os.path.join(own, link.name), os.path.join(own, ".debug", link.name)]
        places += [os.path.join(top, folder.lstrip("/"), link.name) for top in dirs]
        return next((p for p in places if self._fits(p, file, build_id, link)), "")

    def _debug_dirs(self) -> Iterator[str]:
        for folder in self.options.debug_dirs:
            yield folder
            for root in (self.options.sysroot, self._root):
                if root and os.path.isabs(folder):
                    yield os.path.join(root, folder.lstrip("/"))

    def _debug_link(self, file: str) -> DebugLink | None:
        data = self.open(file) if file else None
        if data is None:
            return None
        try:
            header = read_header(data)
            section = next(
                (s for s in read_sections(data, header) if s.name == ".gnu_debuglink"), None
            )
        except BadElf:
            return None
        if section is None or not 8 < section.size <= 4096:
            return None
        raw = data[section.offset : section.offset + section.size]
        name = raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        if not name or "/" in name or name in (".", ".."):
            return None
        little = header.machine.order == "little"
        return DebugLink(name, int.from_bytes(raw[-4:], "little" if little else "big"))

    def _fits(self, place: str, file: str, build_id: str, link: DebugLink) -> bool:
        """Whether a file is the debug file that a link means: by build id, else by the CRC."""
        key = identity(place)
        if key is None or key == identity(file):
            return False
        has = self.build_id(place)
        if has and build_id:
            return has == build_id
        data = self.open(place)
        return has is not None and data is not None and zlib.crc32(data) == link.crc


def _build_id(data: mmap | None) -> str | None:
    if data is None:
        return None
    try:
        return build_id_of_file(data)
    except BadElf:
        return None


def _other_usr(path: str) -> str:
    """Return the path with /usr put before it or taken off: one of them is a link, if merged."""
    return path[4:] if path.startswith("/usr/") else "/usr" + path


def close_map(data: mmap) -> None:
    """Close a mapping, unless somebody still has a view of it: then it goes with that view."""
    try:
        data.close()
    except BufferError:
        return

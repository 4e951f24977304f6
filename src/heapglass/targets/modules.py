"""Loaded ELF files: found by the mappings and by the ELF headers that stand in memory."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..errors import MemoryFault
from ..memory import Memory, Region
from ..source import Module, Part
from .elf import (
    MAGIC,
    PAGE,
    PT_DYNAMIC,
    PT_LOAD,
    PT_NOTE,
    PT_TLS,
    BadElf,
    Bytes,
    Header,
    Segment,
    build_id_of_notes,
    read_header,
    read_segments,
)
from .files import FileFinder

MOST_MODULES = 1 << 14
MOST_NOTE = 1 << 16  # bytes of a note segment that are looked at
MOST_SEARCHED = 1 << 30  # bytes of one segment
STEP = 4 << 20  # bytes of memory that are searched in one piece
_LIBC = re.compile(r"(^|/)libc[.-][^/]*so[^/]*$")
_LIBC_MALLOC_DEBUG = re.compile(r"(^|/)libc_malloc_debug\.so[^/]*$")


class Image(NamedTuple):
    """An ELF file as it was loaded."""

    header: Header
    loads: tuple[Segment, ...]  # its PT_LOADs, in the file's addresses
    bias: int  # what is added to them
    build_id: str  # as it is in memory; empty if it cannot be read there
    others: tuple[Segment, ...] = ()  # PT_TLS and PT_DYNAMIC

    @property
    def end(self) -> int:
        """The address behind its last segment."""
        return self.bias + max((load.vaddr + load.memsz for load in self.loads), default=0)


class ModuleFinder:
    """Finds the loaded ELF files of a target and what belongs to each.

    *memory* needs to have only what is surely the target's own bytes: it is asked for ELF headers
    and build ids. *inside* is an address in the program itself (AT_ENTRY or AT_PHDR), *exe* where
    the program is on this machine, if somebody said. *names* is asked for paths by load bias where
    the regions have none. *warnings* gets what the user should know, when modules() is first asked.
    """

    def __init__(
        self,
        memory: Memory,
        regions: Sequence[Region],
        files: FileFinder,
        inside: int | None = None,
        exe: str = "",
        names: Callable[[], dict[int, str]] | None = None,
        warnings: list[str] | None = None,
    ) -> None:
        self._memory = memory
        self._regions = regions
        self._files = files
        self._inside = inside
        self._exe = exe or files.options.exe
        self._names = names
        self._modules: tuple[Module, ...] | None = None
        self._images: tuple[tuple[Region, Image], ...] | None = None
        self._starts: list[int] | None = None  # of the images
        self._main: Module | None = None
        self._warnings = [] if warnings is None else warnings

    def images(self) -> Sequence[tuple[Region, Image]]:
        """Return the mappings that start with an ELF header, with what was loaded there."""
        if self._images is None:
            self._images = tuple(_apart(list(self._find_images())))
        return self._images

    def modules(self) -> Sequence[Module]:
        """Return the loaded ELF files, in the order of their addresses."""
        if self._modules is None:
            self._modules = tuple(self._find())
        return self._modules

    def module_at(self, address: int) -> Module | None:
        """Return the loaded file that an address lies in; None if it is in none."""
        modules = self.modules()
        number = self._image_before(address)
        if number < 0 or address >= self.images()[number][1].end:
            return None
        return modules[number]

    def _image_before(self, address: int) -> int:
        if self._starts is None:
            self._starts = [start.start for start, _ in self.images()]
        return bisect_right(self._starts, address) - 1

    def main(self) -> Module | None:
        """Return the program itself; None if it cannot be told."""
        self.modules()
        return self._main

    def rank(self, module: Module) -> int:
        """Return how likely a module is to hold malloc, 0 first.

        C libraries by name, then the program (it may be static), then the others; last is
        libc_malloc_debug, which has a main_arena of its own that is not the one in use.
        """
        if _LIBC.search(module.path):
            return 0
        if _LIBC_MALLOC_DEBUG.search(module.path):
            return 3
        return 1 if module == self.main() else 2

    def ranked(self) -> list[Module]:
        """Return the modules, the likeliest to hold malloc first."""
        return sorted(self.modules(), key=self.rank)

    def file_of(self, path: str) -> str | None:
        """Return the file behind mappings of *path*; None: it is no module, so nothing is known.

        Empty if it is a module whose file is not at hand, or is another one.
        """
        files = {module.file for module in self.modules() if module.path == path}
        return files.pop() if len(files) == 1 else ("" if files else None)

    def image(self, module: Module) -> Image | None:
        """Return how a module was loaded; None if it is none of these."""
        known = zip(self.modules(), self.images())
        return next((image for one, (_, image) in known if one == module), None)

    def parts(self, module: Module) -> list[Part]:
        """Return what a module's program headers say, at its place; empty if they are not known."""
        image = self.image(module)
        if image is None:
            return []
        kinds = {PT_LOAD: "load", PT_TLS: "tls", PT_DYNAMIC: "dynamic"}
        return [
            Part(kinds[s.type], image.bias + s.vaddr, image.bias + s.vaddr + s.memsz, s.perms)
            for s in (*image.loads, *image.others)
        ]

    def perms_of(self, region: Region) -> str:
        """Return what a program header allows where *region*, a part of a file, is mapped.

        "rw-" if that is not known: nothing that may have been written is taken for constant.
        """
        images, number = self.images(), self._image_before(region.start)
        if number < 0 or images[number][0].path != region.path:
            return "rw-"
        image = images[number][1]
        at = region.start - image.bias
        parts = (x for x in image.loads if x.vaddr & -PAGE <= at < x.vaddr + x.memsz)
        return next((load.perms for load in parts), "rw-")

    def search(self, module: Module, pattern: bytes, limit: int, memory: Memory) -> bytes | None:
        """Return up to *limit* bytes of what a module loaded read only, from *pattern* on."""
        image = self.image(module)
        for load in image.loads if image else ():
            if "w" in load.perms:
                continue
            start = (image.bias if image else 0) + load.vaddr
            found = _search(memory, start, start + min(load.memsz, MOST_SEARCHED), pattern, limit)
            if found is not None:
                return found
        return None

    # --- finding ---------------------------------------------------------------------------------

    def _find(self) -> Iterator[Module]:
        wrong: list[str] = []
        names: dict[int, str] | None = None
        for region, image in self.images():
            is_main = self._is_main(image)
            if region.anonymous and names is None:
                names = self._names() if self._names is not None else {}
            path = region.path or (names or {}).get(image.bias) or f"[{region.start:#x}]"
            first = self._exe if is_main else self._files.mapped(region)
            found = self._files.find(path, image.build_id, first)
            build_id = image.build_id or found.build_id
            debug = self._files.debug_file(found.path, path, build_id)
            module = Module(path, image.bias, build_id, found.path, debug)
            if found.other:
                wrong.append(found.other)
            if is_main:
                self._main = module
            yield module
        if wrong:
            self._warnings.append(_say_wrong(wrong))

    def _is_main(self, image: Image) -> bool:
        if self._inside is None:
            return False
        return any(
            image.bias + load.vaddr <= self._inside < image.bias + load.vaddr + load.memsz
            for load in image.loads
        )

    def _find_images(self) -> Iterator[tuple[Region, Image]]:
        named = any(not region.anonymous for region in self._regions)
        ends: dict[str, int] = {}  # of the image found last, by path
        count = 0
        for region in self._regions:
            if region.offset or (named and region.anonymous) or count >= MOST_MODULES:
                continue
            if region.start < ends.get(region.path, 0):
                continue  # the first page once more, as the start of small data
            image = self._image_in_memory(region) or self._image_of_file(region)
            if image is not None:
                count += 1
                ends[region.path] = image.end
                yield region, image

    def _image_in_memory(self, region: Region) -> Image | None:
        try:
            if self._memory.read(region.start, 4) != MAGIC:
                return None
            page = self._memory.read(region.start, min(PAGE, region.size))
            header = read_header(page)
            loads, others = _loads(page, header)
        except (MemoryFault, BadElf):
            return None
        bias = _bias(region.start, loads)
        if bias is None:
            return None
        return Image(header, loads, bias, self._build_id(page, header, bias), others)

    def _build_id(self, page: bytes, header: Header, bias: int) -> str:
        for note in read_segments(page, header):
            if note.type != PT_NOTE:
                continue
            try:
                data = self._memory.read(bias + note.vaddr, min(note.memsz, MOST_NOTE))
            except MemoryFault:
                continue
            found = build_id_of_notes(memoryview(data), header.prefix, note.align)
            if found:
                return found
        return ""

    def _image_of_file(self, region: Region) -> Image | None:
        """Return the image by the file: for a core that left even the ELF headers out."""
        try:
            self._memory.read(region.start, 4)
        except MemoryFault:
            pass
        else:
            return None  # it was readable, and was not an ELF header
        for place in self._files.candidates(region.path):
            if self._files.build_id(place) is None:
                continue
            data = self._files.open(place)
            if data is None:
                continue
            try:
                header = read_header(data)
                loads, others = _loads(data, header)
            except BadElf:
                continue
            bias = _bias(region.start, loads)
            return None if bias is None else Image(header, loads, bias, "", others)
        return None


def _apart(images: Sequence[tuple[Region, Image]]) -> Iterator[tuple[Region, Image]]:
    """Yield the images, none longer than to where the next one begins."""
    starts = [region.start for region, _ in images]
    for (region, image), behind in zip(images, [*starts[1:], 1 << 65]):
        if image.end > behind:
            clipped = (_clip(load, behind - image.bias) for load in image.loads)
            loads = tuple(load for load in clipped if load.memsz > 0)
            yield region, image._replace(loads=loads)
        else:
            yield region, image


def _clip(load: Segment, end: int) -> Segment:
    return load._replace(memsz=min(load.memsz, end - load.vaddr))


def _loads(data: Bytes, header: Header) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """Return the PT_LOADs, and PT_TLS and PT_DYNAMIC."""
    segments = read_segments(data, header)
    loads = tuple(s for s in segments if s.type == PT_LOAD)
    return loads, tuple(s for s in segments if s.type in (PT_TLS, PT_DYNAMIC))


def _bias(start: int, loads: Sequence[Segment]) -> int | None:
    """Return the load bias of a file whose first bytes are mapped at *start*."""
    for load in loads:
        if load.offset < PAGE:
            return start - (load.vaddr - load.offset)
    return None


def _say_wrong(files: Sequence[str]) -> str:
    first = next((f for f in files if _LIBC.search(f)), files[0])
    others = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return (
        f"{os.path.basename(first)}{others}: the file at hand ({first}) is not the one that the "
        "target has mapped, the build ids differ; it is not used. Say where the target's files "
        "are with --sysroot DIR"
    )


def _search(memory: Memory, start: int, end: int, pattern: bytes, limit: int) -> bytes | None:
    """Search the readable parts of a range; of a region, what comes before the first gap."""
    here, regions = start, memory.regions()
    while here < end:
        upto = min(here + STEP, end)
        try:
            data = bytes(memory.view(here, upto))
        except MemoryFault as fault:
            gap = fault.address if here < fault.address < upto else here
            data = memory.read(here, gap - here) if gap > here else b""
            number = bisect_right(regions, (gap, 1 << 65))
            upto = regions[number].start if number < len(regions) else end
        at = data.find(pattern)
        if at >= 0:
            return _up_to(memory, here + at, min(limit, end - here - at), data[at:])
        here = upto if upto >= end or len(data) < STEP else upto - len(pattern)
    return None


def _up_to(memory: Memory, address: int, size: int, known: bytes) -> bytes:
    """Return *size* bytes, or what is known of them if not all can be read."""
    try:
        return memory.read(address, size)
    except MemoryFault:
        return known[:size]

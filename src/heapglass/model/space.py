"""A simulated address space: mappings, and pages that come into being when they are touched.

With a base `Memory` behind it, it is a copy-on-write overlay: pages are read from there once, and
what is written stays here.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import HeapglassError, MemoryFault
from ..memory import Memory, Region

FRAME = 4096  # bytes of a frame, whatever the page size: it divides every page size
SHIFT = 12
MOST_FRAMES = 1 << 18  # that may be touched: 1 GiB
MANY = 1 << 16  # bytes of a read from which on frames are not kept for it
MOST_READ = 1 << 29  # bytes of one read
_CODES = {8: "Q", 4: "I", 2: "H", 1: "B"}

Load = Callable[[int], int]
Store = Callable[[int, int], None]


class Mapping:
    """A range of addresses with its permissions; *fresh*: made here, zero at first."""

    __slots__ = ("end", "fresh", "name", "perms", "start")

    def __init__(self, start: int, end: int, perms: str, name: str, fresh: bool = True) -> None:
        self.start, self.end, self.perms, self.name = start, end, perms, name
        self.fresh = fresh

    def piece(self, start: int, end: int, perms: str = "") -> Mapping:
        """Return a part of it, maybe with other permissions."""
        return Mapping(start, end, perms or self.perms, self.name, self.fresh)


class _Cells(dict[int, Any]):
    """Frame number to its buffer, made on demand; KeyError where nothing is mapped."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, number: int) -> Any:
        return self._make(number)


class Space:
    """Memory of one simulated process. It is a `Memory`, and can be written."""

    def __init__(self, word: int, order: str, base: Memory | None = None) -> None:
        self.word, self.order = word, order
        self.most = (1 << 8 * word) - 1  # the highest address
        self._base = base
        self._maps: list[Mapping] = []
        self._starts: list[int] = []
        self._frames: dict[int, bytearray] = {}
        self.written: set[int] = set()  # frames that somebody wrote to
        self._kept: dict[int, bytes] | None = None  # frames as they were; see `watch`
        self._readable = _Cells(lambda number: self._read_cell("", self._readable, number))
        self._writable = _Cells(lambda number: self._write_cell("", self._writable, number))
        self._cells: list[_Cells] = [self._readable, self._writable]
        self._know(list(_base_mappings(base, self.most)) if base else [])

    # --- mappings -----------------------------------------------------------------------------

    def map(self, start: int, end: int, perms: str, name: str = "") -> None:
        """Map fresh zeros at *start*; whatever was there is gone."""
        self.unmap(start, end)
        index = bisect_right(self._starts, start)
        self._maps.insert(index, Mapping(start, end, perms, name))
        self._starts.insert(index, start)

    def _know(self, maps: list[Mapping]) -> None:
        self._maps = maps
        self._starts = [one.start for one in maps]

    def unmap(self, start: int, end: int) -> None:
        """Take a range away, mapped or not."""
        kept: list[Mapping] = []
        for one in self._maps:
            if one.end <= start or one.start >= end:
                kept.append(one)
                continue
            if one.start < start:
                kept.append(one.piece(one.start, start))
            if one.end > end:
                kept.append(one.piece(end, one.end))
        self._know(kept)
        self._drop(start, end)

    def grow(self, one: Mapping, end: int) -> None:
        """Extend a mapping upwards; what is new is zero."""
        if not one.fresh:
            self.map(one.end, end, one.perms, one.name)
            return
        self._drop(one.end, end)
        one.end = end

    def protect(self, start: int, end: int, perms: str) -> None:
        """Change permissions; contents stay."""
        changed: list[Mapping] = []
        for one in self._maps:
            if one.end <= start or one.start >= end:
                changed.append(one)
                continue
            low, high = max(one.start, start), min(one.end, end)
            if one.start < low:
                changed.append(one.piece(one.start, low))
            changed.append(one.piece(low, high, perms))
            if one.end > high:
                changed.append(one.piece(high, one.end))
        self._know(changed)
        for number in self._at_hand(start, end):
            self._forget(number)

    def discard(self, start: int, end: int) -> None:
        """Make a range zero again, as MADV_DONTNEED does for anonymous memory."""
        zeros: list[Mapping] = []
        for one in self._maps:
            low, high = max(one.start, start), min(one.end, end)
            if one.fresh or low >= high:
                zeros.append(one)
                continue
            zeros += [
                one.piece(*part)
                for part in ((one.start, low), (high, one.end))
                if part[0] < part[1]
            ]
            zeros.append(Mapping(low, high, one.perms, one.name))
        self._know(sorted(zeros, key=lambda one: one.start))
        self._drop(start, end)

    def move(self, start: int, end: int, to: int, size: int) -> None:
        """Move a mapping with its contents to *to*, with a new size (mremap)."""
        held = [(n - (start >> SHIFT), bytes(self._frame(n))) for n in self._touched(start, end)]
        perms = next((m.perms for m in self._maps if m.start <= start < m.end), "rw-")
        self.unmap(start, end)
        self.map(to, to + size, "rw-")
        for offset, data in held:
            if offset << SHIFT < size:
                self.write(to + (offset << SHIFT), data)
        self.protect(to, to + size, perms)

    def _touched(self, start: int, end: int) -> list[int]:
        if self._base is not None:
            return list(self._numbers(start, end))
        return [number for number in self._at_hand(start, end) if number in self._frames]

    def _at_hand(self, start: int, end: int) -> Sequence[int]:
        """Return the numbers of a range's frames, at least those at hand; it may be far larger."""
        numbers = self._numbers(start, end)
        if len(numbers) <= sum(map(len, self._cells)) + len(self._frames):
            return numbers
        known = {*self._frames, *(number for cells in self._cells for number in cells)}
        return [number for number in known if number in numbers]

    def _numbers(self, start: int, end: int) -> range:
        return range(start >> SHIFT, (end + FRAME - 1) >> SHIFT)

    def _drop(self, start: int, end: int) -> None:
        for number in self._at_hand(start, end):
            frame = self._frames.pop(number, None)
            if frame is not None and self._kept is not None:
                self._kept.setdefault(number, bytes(frame))
            self._forget(number)

    def _forget(self, number: int) -> None:
        for cells in self._cells:
            cells.pop(number, None)

    def mapping_at(self, address: int) -> Mapping | None:
        """Return the mapping that holds an address."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._maps[index].end:
            return self._maps[index]
        return None

    def end_of(self, address: int) -> int:
        """Return where the mappings that follow each other from *address* on end; 0: none."""
        one, end = self.mapping_at(address), 0
        while one is not None:
            end = one.end
            one = self.mapping_at(end)
        return end

    def mappings(self) -> Iterator[Mapping]:
        """Yield the mappings, ascending."""
        return iter(self._maps)

    # --- frames -------------------------------------------------------------------------------

    def _frame(self, number: int) -> bytearray:
        """Return the bytes of a frame. KeyError: not mapped, or not readable."""
        frame = self._frames.get(number)
        if frame is None:
            if len(self._frames) >= MOST_FRAMES:
                raise HeapglassError("the model would hold more than 1 GiB of touched memory")
            frame = self._frames[number] = self._fetch(number)
        return frame

    def _fetch(self, number: int) -> bytearray:
        start, frame = number << SHIFT, bytearray(FRAME)
        for low, high in self._backed(start, start + FRAME):
            assert self._base is not None
            try:
                frame[low - start : high - start] = self._base.read(low, high - low)
            except MemoryFault:
                raise KeyError(number) from None
        return frame

    def _backed(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of a frame that the base has."""
        index = max(bisect_right(self._starts, start) - 1, 0)
        while index < len(self._maps) and self._maps[index].start < end:
            one = self._maps[index]
            low, high = max(one.start, start), min(one.end, end)
            if not one.fresh and low < high:
                yield low, high
            index += 1

    def _read_cell(self, code: str, cells: dict[int, Any], number: int) -> Any:
        right = number & self.most >> SHIFT
        if right != number:  # an address that wrapped around
            return cells[right]
        self._check(number, "r")
        return self._keep(code, cells, number)

    def _write_cell(self, code: str, cells: dict[int, Any], number: int) -> Any:
        right = number & self.most >> SHIFT
        if right != number:
            return cells[right]
        self._check(number, "w")
        self.written.add(number)
        if self._kept is not None and number not in self._kept:
            self._kept[number] = bytes(self._frame(number))
        return self._keep(code, cells, number)

    def _keep(self, code: str, cells: dict[int, Any], number: int) -> Any:
        frame = self._frame(number)
        cells[number] = cell = memoryview(frame).cast(code) if code else frame  # type: ignore[call-overload]
        return cell

    def _check(self, number: int, need: str) -> None:
        one = self.mapping_at(number << SHIFT)
        if one is None or need not in one.perms:
            raise KeyError(number)

    # --- what a call changes ------------------------------------------------------------------

    def watch(self) -> None:
        """From now on keep what each frame held before it was written to."""
        self._kept = {}
        for cells in self._cells:
            cells.clear()

    def changed(self) -> Iterator[int]:
        """Yield the addresses of the words that differ from what they were at `watch`."""
        code = _CODES[self.word]
        for number, before in (self._kept or {}).items():
            frame = self._frames.get(number)
            if frame is None or frame == before:
                continue
            start = number << SHIFT
            old_words, new_words = (memoryview(b).cast(code) for b in (before, frame))  # type: ignore[call-overload]
            pairs = zip(old_words, new_words)
            for at, (old, new) in enumerate(pairs):
                if old != new:
                    yield start + at * self.word

    def earlier(self, address: int) -> int | None:
        """Return a word, aligned, as it was at `watch`; None if it was not there."""
        number, at = address >> SHIFT, address & FRAME - 1
        frame: bytes | bytearray | None = (self._kept or {}).get(number)
        if frame is None:
            frame = self._frames.get(number)
        if frame is not None:
            data = bytes(frame[at : at + self.word])
        elif self._base is not None:
            try:
                data = self._base.read(address, self.word)
            except MemoryFault:
                return None
        else:
            return None
        return int.from_bytes(data, self.order)  # type: ignore[arg-type]

    # --- single values ------------------------------------------------------------------------

    def accessors(self, width: int) -> tuple[Load, Store]:
        """Return (load, store) for unsigned values of 8, 4, 2 or 1 bytes, for the hot loops.

        They take any address, aligned or not; store takes the value modulo its width. Both raise
        `MemoryFault`.
        """
        code = _CODES[width] if self.order == sys.byteorder else "B"
        read: _Cells = _Cells(lambda number: self._read_cell(code, read, number))
        write: _Cells = _Cells(lambda number: self._write_cell(code, write, number))
        self._cells += [read, write]
        if code == "B":
            return self._slow_accessors(width)
        shift, index, odd = width.bit_length() - 1, FRAME // width - 1, width - 1
        slow_load, slow_store = self._slow_accessors(width)

        def load(address: int) -> int:
            if address & odd:
                return slow_load(address)
            try:
                return read[address >> 12][address >> shift & index]  # type: ignore[no-any-return]
            except KeyError:
                raise MemoryFault(address & self.most, width) from None

        def store(address: int, value: int) -> None:
            try:
                if address & odd:
                    slow_store(address, value)
                else:
                    write[address >> 12][address >> shift & index] = value
            except ValueError:
                slow_store(address, value)
            except KeyError:
                raise MemoryFault(address & self.most, width) from None

        return load, store

    def _slow_accessors(self, width: int) -> tuple[Load, Store]:
        order, most = self.order, self.most
        mask = (1 << 8 * width) - 1

        def load(address: int) -> int:
            return int.from_bytes(self.read(address & most, width), order)  # type: ignore[arg-type]

        def store(address: int, value: int) -> None:
            data = (value & mask).to_bytes(width, order)  # type: ignore[arg-type]
            self.write(address & most, data)

        return load, store

    # --- bytes --------------------------------------------------------------------------------

    def _pieces(self, address: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Yield (frame number, first, behind the last) of a range."""
        while size > 0:
            first = address & FRAME - 1
            count = min(size, FRAME - first)
            yield address >> SHIFT, first, first + count
            address += count
            size -= count

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*; see `Memory.read`."""
        return bytes(self._gather(address, size))

    def _gather(self, address: int, size: int) -> bytearray:
        if size < 0:
            raise MemoryFault(address, size)
        if size > MOST_READ:
            raise MemoryFault(address, size, "more than the model gives in one piece")
        if size > MANY and self._fresh(address, address + size):
            return self._out_of_zeros(address, size)
        data = bytearray()
        for number, first, last in self._pieces(address, size):
            data += memoryview(self._piece(self._readable, number, first))[first:last]
        return data

    def _fresh(self, start: int, end: int) -> bool:
        """Whether all of a range is readable and was zero at first."""
        while start < end:
            one = self.mapping_at(start)
            if one is None or not one.fresh or one.perms[0] != "r":
                return False
            start = one.end
        return True

    def _out_of_zeros(self, address: int, size: int) -> bytearray:
        """Return a range that was zero at first; what is untouched stays so."""
        try:
            data, end = bytearray(size), address + size
        except MemoryError as error:
            raise MemoryFault(address, size, "more than this machine can hold") from error
        first, last = address >> SHIFT, (end - 1) >> SHIFT
        few = last - first < len(self._frames)
        for number in range(first, last + 1) if few else list(self._frames):
            frame = self._frames.get(number)
            if frame is None or not first <= number <= last:
                continue
            low, high = max(number << SHIFT, address), min((number + 1) << SHIFT, end)
            start = number << SHIFT
            data[low - address : high - address] = memoryview(frame)[low - start : high - start]
        return data

    def write(self, address: int, data: bytes) -> None:
        """Overwrite bytes, up to the first page that cannot be written.

        :raises MemoryFault: at that page.
        """
        done = 0
        for number, first, last in self._pieces(address, len(data)):
            piece = self._piece(self._writable, number, first)
            piece[first:last] = data[done : done + last - first]
            done += last - first

    def fill(self, address: int, value: int, size: int) -> None:
        """Overwrite with one byte, as memset does.

        :raises MemoryFault: at the first page that cannot be written.
        """
        for number, first, last in self._pieces(address, size):
            piece = self._piece(self._writable, number, first)
            piece[first:last] = bytes((value,)) * (last - first)

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy bytes, as memcpy does."""
        self.write(to, self.read(source, size))

    def _piece(self, cells: _Cells, number: int, first: int) -> bytearray:
        try:
            return cells[number]  # type: ignore[no-any-return]
        except KeyError:
            raise MemoryFault((number << SHIFT) + first) from None

    # --- Memory -------------------------------------------------------------------------------

    def regions(self) -> list[Region]:
        """Return what is mapped and readable, ascending."""
        return [Region(m.start, m.end, m.perms, m.name) for m in self._maps if m.perms[0] == "r"]

    def possibly_set(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of a range that may hold anything but zeros; see `Sparse`."""
        found: list[tuple[int, int]] = []
        touched = sorted(self._frames)
        for one in self._maps:
            low, high = max(one.start, start), min(one.end, end)
            if low >= high:
                continue
            if not one.fresh:
                found.append((low, high))
                continue
            first = bisect_left(touched, low >> SHIFT)
            for number in touched[first : bisect_left(touched, (high - 1 >> SHIFT) + 1)]:
                place = max(number << SHIFT, low), min((number + 1) << SHIFT, high)
                if found and found[-1][1] == place[0]:
                    place = found.pop()[0], place[1]
                found.append(place)
        return found

    def view(self, start: int, end: int) -> memoryview:
        """Return the bytes from *start* to *end* in one buffer: a copy."""
        return memoryview(self._gather(start, end - start)).toreadonly()


def _base_mappings(base: Memory, most: int) -> Iterator[Mapping]:
    """Yield the mappings of a base; if it does not know them, one that spans everything."""
    regions = base.regions()
    for region in regions:
        yield Mapping(region.start, region.end, region.perms, region.path, False)
    if not regions:
        yield Mapping(0, most + 1, "rw-", "", False)

"""`Layout`: what one build of glibc looks like. A value, passed along; two can exist at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..errors import UnsupportedGlibc
from . import features, structs
from .releases import NEWEST, Version, name, require_known
from .structs import NBINS, Shape, Struct

PREV_INUSE, IS_MMAPPED, NON_MAIN_ARENA = 1, 2, 4
SIZE_BITS = 7
_LETTERS = ((PREV_INUSE, "P"), (IS_MMAPPED, "M"), (NON_MAIN_ARENA, "A"))
NSMALLBINS = 64
UNSORTED = 1  # index of the unsorted bin
# Chunks of a large bin: (shift, largest shifted size, what is added), first match; largebin_index.
_LARGE_LP64 = ((6, 48, 48), (9, 20, 91), (12, 10, 110), (15, 4, 119), (18, 2, 124))
_LARGE_32_BIG = ((6, 45, 49), *_LARGE_LP64[1:])
_LARGE_32 = ((6, 38, 56), *_LARGE_LP64[1:])


def flag_letters(size_field: int) -> str:
    """Return the flags of a size word as the subset of "PMA" that is set."""
    return "".join(letter for bit, letter in _LETTERS if size_field & bit)


@dataclass(frozen=True)
class Layout:
    """Word, byte order, alignment, structs, features and constants of one build of glibc.

    Sizes are bytes. Chunk sizes include the header; requests do not.
    """

    version: Version
    word: int  # SIZE_SZ
    order: str  # "little" or "big"
    alignment: int  # MALLOC_ALIGNMENT
    abi: str
    structs: Mapping[str, Struct] = field(hash=False)
    features: frozenset[str]
    constants: Mapping[str, int] = field(hash=False)
    as_of: tuple[tuple[str, Version], ...] = ()  # backports that this build is taken to have

    def has(self, feature: str) -> bool:
        """Whether this build has a feature of `features.FEATURES`."""
        return feature in self.features

    @property
    def release(self) -> str:
        """The release as text, "2.36"."""
        return name(self.version)

    @property
    def header(self) -> int:
        """CHUNK_HDR_SZ: from a chunk to its mem."""
        return 2 * self.word

    @property
    def min_chunk(self) -> int:
        """MINSIZE: the smallest chunk."""
        return (4 * self.word + self.alignment - 1) & -self.alignment

    @property
    def state(self) -> Struct:
        """Struct malloc_state: an arena."""
        return self.structs["malloc_state"]

    @property
    def tcache(self) -> Struct:
        """Struct tcache_perthread_struct."""
        return self.structs["tcache_perthread_struct"]

    @property
    def max_address(self) -> int:
        """The highest address of the word size."""
        return (1 << 8 * self.word) - 1

    @property
    def address_mask(self) -> int:
        """What of a pointer is the address; the rest is a tag that the machine ignores."""
        return self.max_address >> features.IGNORED_TOP_BITS.get(self.abi, 0)

    @property
    def mmap_offset(self) -> int:
        """Bytes from a mapping's start to the chunk in it, before memalign moved it."""
        return self.alignment - self.header if self.alignment > self.header else 0

    def request2size(self, request: int) -> int:
        """Return the chunk size for a request; the limits on requests are not applied."""
        mask = self.alignment - 1
        return max((request + self.word + mask) & ~mask, self.min_chunk)

    def usable(self, size: int, mmapped: bool = False) -> int:
        """Return malloc_usable_size of an in-use chunk."""
        if mmapped and not self.has("mmap_header_apart"):
            return size - self.header
        return size - self.word

    def max_request(self) -> int:
        """Return the largest request that is not refused outright (PTRDIFF_MAX since 2.30)."""
        return self.max_address >> 1

    # --- bins -------------------------------------------------------------------------------

    @property
    def min_large(self) -> int:
        """MIN_LARGE_SIZE: the smallest chunk of a large bin."""
        return (NSMALLBINS - self._smallbin_correction) * self.alignment

    @property
    def _smallbin_correction(self) -> int:
        return 1 if self.alignment > self.header else 0

    def bin_index(self, size: int) -> int:
        """Return bin_at's index, 2 to 126, for a free chunk of this size."""
        if size < self.min_large:
            return size // self.alignment + self._smallbin_correction
        for shift, most, base in self._large_rows:
            if size >> shift <= most:
                return base + (size >> shift)
        return 126

    @property
    def _large_rows(self) -> tuple[tuple[int, int, int], ...]:
        if self.word == 8:
            return _LARGE_LP64
        return _LARGE_32_BIG if self.alignment == 16 else _LARGE_32

    def bin_range(self, index: int) -> tuple[int, int | None] | None:
        """Return the smallest and largest chunk size of a bin; largest None: no limit.

        None for a bin that no size falls into (the unsorted bin, 127, 95 on i386).
        """
        if not 2 <= index <= 126:
            return None
        if index < NSMALLBINS:
            size = (index - self._smallbin_correction) * self.alignment
            return (size, size) if size >= self.min_chunk else None
        if index == 126:
            return (self._first_size_from(126), None)
        first, after = self._first_size_from(index), self._first_size_from(index + 1)
        return (first, after - self.alignment) if after > first else None

    def _first_size_from(self, index: int) -> int:
        """Return the smallest size whose bin is *index* or above."""
        low, high = self.min_large // self.alignment, (1 << 20) // self.alignment
        while low < high:
            middle = (low + high) // 2
            if self.bin_index(middle * self.alignment) < index:
                low = middle + 1
            else:
                high = middle
        return low * self.alignment

    def fastbin_index(self, size: int) -> int:
        """Return the index into fastbinsY for a chunk of this size; may be past its end."""
        return (size >> (4 if self.word == 8 else 3)) - 2

    def fastbin_size(self, index: int) -> int:
        """Return the chunk size of a fastbin."""
        return (index + 2) << (4 if self.word == 8 else 3)

    @property
    def nfastbins(self) -> int:
        """NFASTBINS, 0 where there are no fastbins."""
        field_ = self.state.fields.get("fastbinsY")
        return field_.length if field_ else 0

    @property
    def default_max_fast(self) -> int:
        """global_max_fast before any mallopt: the largest fast chunk; 0 without fastbins."""
        mxfast = self.constants.get("DEFAULT_MXFAST", 0)
        return (mxfast + self.word) & -self.alignment if mxfast else 0

    # --- tcache -----------------------------------------------------------------------------

    @property
    def tcache_small_max(self) -> int:
        """The chunk size of the last small tcache bin."""
        return self.min_chunk + (self.constants["TCACHE_SMALL_BINS"] - 1) * self.alignment

    @property
    def _large_tcache_bits(self) -> int:
        largest = self.tcache_small_max
        if self.has("tcache_maxsmall_usable"):
            largest -= self.word  # 2.42: MAX_TCACHE_SMALL_SIZE is a usable size
        return largest.bit_length()

    def tcache_index(self, size: int) -> int | None:
        """Return the tcache bin for a chunk size, None if there is none; limits are mp_'s."""
        small = self.constants.get("TCACHE_SMALL_BINS")
        if small is None or size < self.min_chunk:
            return None
        if size <= self.tcache_small_max:
            return (size - self.min_chunk) // self.alignment
        large = self.constants.get("TCACHE_LARGE_BINS", 0)
        index = small + size.bit_length() - self._large_tcache_bits
        return index if index < small + large else None

    def tcache_range(self, index: int) -> tuple[int, int] | None:
        """Return the smallest and largest chunk size of a tcache bin; None if no size fits."""
        small = self.constants["TCACHE_SMALL_BINS"]
        if index < small:
            size = self.min_chunk + index * self.alignment
            return (size, size)
        bits = index - small + self._large_tcache_bits
        low = max(1 << (bits - 1), self.tcache_small_max + self.alignment)
        high = (1 << bits) - self.alignment
        return (low, high) if low <= high else None

    @property
    def tcache_default_max(self) -> int:
        """The largest chunk that the tcache takes with no tunable set."""
        if self.has("tcache_maxsmall_usable"):
            return self.tcache_small_max - self.alignment  # 1024 in 2.42: the last bin is unused
        return self.tcache_small_max

    def heap_max_size(self, hp_pagesize: int = 0) -> int:
        """HEAP_MAX_SIZE: size and alignment of the reservation of a non-main heap."""
        if hp_pagesize and self.has("heap_max_follows_hugetlb"):
            return 4 * hp_pagesize
        return self.constants["HEAP_MAX_SIZE"]

    def bin_at(self, arena: int, index: int) -> int:
        """Return the address of a bin's pseudo chunk: its fd and bk are the bin's two words."""
        return arena + self.state.offset("bins") + 2 * (index - 1) * self.word - self.header


def alignment_of(abi: str, version: Version) -> int:
    """Return MALLOC_ALIGNMENT of a port in a release.

    :raises UnsupportedGlibc: if the port is not in the tables.
    """
    for row in features.ALIGNMENTS:
        if row.abi == abi and row.since <= version < row.until:
            return row.alignment
    known = ", ".join(sorted({row.abi for row in features.ALIGNMENTS}))
    raise UnsupportedGlibc(f"no table for the ABI {abi}", f"known: {known}")


def word_of(abi: str) -> int:
    """Return the bytes of a pointer of a port.

    :raises UnsupportedGlibc: if the port is not in the tables.
    """
    alignment_of(abi, NEWEST)
    return next(row.word for row in features.ALIGNMENTS if row.abi == abi)


def layout_for(
    version: Version,
    word: int = 8,
    order: str = "little",
    alignment: int | None = None,
    abi: str = "",
    as_of: tuple[tuple[str, Version], ...] = (),
) -> Layout:
    """Return the layout of a release.

    *alignment* defaults to the port's (*abi*), without a port to 2 * word; *as_of* names groups
    (structs, "safe_linking", "tcache_key") that follow another release: distributions backport.

    :raises UnsupportedGlibc: if the tables do not cover the release or the port.
    """
    require_known(version)
    abi = abi or {8: "x86_64", 4: "i386"}[word]
    if alignment is None:
        alignment = alignment_of(abi, version)
    shape, follows = Shape(word, alignment), dict(as_of)
    return Layout(
        version=version,
        word=word,
        order=order,
        alignment=alignment,
        abi=abi,
        structs={n: structs.lay_out(n, follows.get(n, version), shape) for n in structs.ROWS},
        features=_features(version, follows),
        constants={
            row.name: row.lp64 if word == 8 else row.ilp32
            for row in features.CONSTANTS
            if row.since <= version < row.until
        },
        as_of=as_of,
    )


def _features(version: Version, follows: Mapping[str, Version]) -> frozenset[str]:
    groups = features.FEATURE_GROUPS
    return frozenset(
        row.name
        for row in features.FEATURES
        if row.since <= follows.get(groups.get(row.name, ""), version) < row.until
    )


def backported(layout: Layout) -> Iterator[Layout]:
    """Yield the layouts that a branch or a distribution is known to ship under this release."""
    for row in features.BACKPORTS:
        if row.version == layout.version and row.as_of != layout.as_of:
            yield layout_for(
                row.version, layout.word, layout.order, layout.alignment, layout.abi, row.as_of
            )


def with_alignment(layout: Layout, alignment: int) -> Layout:
    """Return the same build with another MALLOC_ALIGNMENT."""
    return layout_for(
        layout.version, layout.word, layout.order, alignment, layout.abi, layout.as_of
    )


__all__ = [
    "NBINS",
    "Layout",
    "alignment_of",
    "backported",
    "layout_for",
    "with_alignment",
    "word_of",
]

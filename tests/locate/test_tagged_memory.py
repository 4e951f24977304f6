"""malloc with memory tagging (glibc.mem.tagging on aarch64, 2.33 to 2.43), as far as it shows."""

from __future__ import annotations

import pytest

from heapglass.heap.heap import Heap
from heapglass.locate import locate
from heapglass.model import Allocator
from heapglass.source import Symbol
from tests.locate.modelled import ModelSource, Played
from tests.views.asked import document

MTE = 1 << 18  # HWCAP2_MTE
REQUEST = 5000


class Tagging(ModelSource):
    """A process on aarch64 with the symbol and the capabilities that a test wants."""

    def __init__(
        self,
        played: Played,
        hwcap2: int | None,
        enabled: int | None,
        tag_ctl: int | None = None,
    ) -> None:
        super().__init__(played, played.allocator.layout.release)
        self._threads = [thread._replace(tag_ctl=tag_ctl) for thread in self._threads]
        self._vector = {} if hwcap2 is None else {26: hwcap2}
        self._at = played.allocator.places.end()  # the padding behind libc's variables
        self._symbol = enabled is not None
        if enabled is not None:
            played.allocator.write(self._at, bytes([enabled]))

    def auxv(self) -> dict[int, int]:
        return self._vector

    def symbols(self, name: str) -> list[Symbol]:
        if name == "mtag_enabled" and self._symbol:
            return [Symbol(name, self._at, 1, "symbol", "")]
        return []


def made(release: str = "2.41", abi: str = "aarch64", sbrk: bool = False) -> tuple[Played, int]:
    """A process whose main heap is from mmap, as it is with tags; and a block of REQUEST bytes."""
    allocator = Allocator(release, abi, ncpu=4)
    allocator.machine.kernel.brk_blocked = not sbrk
    block = allocator.malloc(REQUEST)
    return Played(allocator, [allocator]), block


def usable(source: ModelSource, block: int) -> tuple[int | None, list[str]]:
    target = locate(source)
    (row,) = [
        row for row in document(target, "chunks --all")["chunks"] if row["user"] == hex(block)
    ]
    return row["usable"], document(target, "chunks --all")["warnings"]


@pytest.mark.parametrize(
    ("hwcap2", "enabled", "spared"),
    [(MTE, 1, 16), (MTE, 0, 8), (None, 1, 16), (None, 0, 8), (0, None, 8), (~MTE, None, 8)],
)
def test_a_block_ends_where_its_own_memory_ends_if_tags_are_in_use(hwcap2, enabled, spared):
    played, block = made()

    size = played.allocator.layout.request2size(REQUEST)
    assert usable(Tagging(played, hwcap2, enabled), block) == (size - spared, [])


@pytest.mark.parametrize("tag_ctl", [0, 1])  # 1: tagged addresses in system calls, as HWASan asks
def test_a_thread_that_asked_the_kernel_for_no_tags_has_none(tag_ctl):
    played, block = made()

    size = played.allocator.layout.request2size(REQUEST)
    assert usable(Tagging(played, MTE, None, tag_ctl), block) == (size - 8, [])


@pytest.mark.parametrize("tag_ctl", [2, 0x7FFF3])  # what qemu and what the kernel says
def test_tags_may_be_the_programs_own(tag_ctl):
    played, block = made()

    assert usable(Tagging(played, MTE, None, tag_ctl), block)[0] is None


@pytest.mark.parametrize("hwcap2", [MTE, None])
def test_where_nothing_tells_whether_tags_are_in_use_it_is_said(hwcap2):
    played, block = made()

    found, warnings = usable(Tagging(played, hwcap2, None), block)

    assert found is None
    assert [text for text in warnings if "glibc.mem.tagging" in text] == warnings != []


@pytest.mark.parametrize(
    ("release", "abi", "sbrk"),
    [("2.41", "aarch64", True), ("2.44", "aarch64", False), ("2.41", "x86_64", False)],
    ids=["sbrk serves", "no such release", "no such machine"],
)
def test_where_there_can_be_no_tags_nothing_is_asked(release, abi, sbrk):
    played, block = made(release, abi, sbrk)

    size = played.allocator.layout.request2size(REQUEST)
    assert usable(Tagging(played, None, None), block) == (size - 8, [])


def test_a_mapping_of_its_own_has_no_next_chunk_to_spare_a_word_of():
    played, _ = made("2.41")
    played.allocator.malloc(1 << 20)

    heap = Heap(locate(Tagging(played, MTE, 1)))

    (chunk,) = heap.mmapped
    assert heap.usable(chunk.size, mmapped=True) == chunk.size - 16

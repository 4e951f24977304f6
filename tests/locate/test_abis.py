"""Every ABI and page size, on processes that the model made: as a source, and as a core by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heapglass.cli import main
from heapglass.heap.heap import Heap
from heapglass.heap.mmapped import read_mmapped
from heapglass.locate import Overrides, locate
from tests.locate.modelled import ModelSource, Played, play
from tests.locate.modelled_core import core_of

ABIS = ("x86_64", "x32", "i386", "aarch64", "arm", "riscv64", "ppc64le", "ppc64", "s390x")
RELEASES = ("2.31", "2.36", "2.41", "2.44")
PAGES = (4096, 65536)
TAG = 0xB4 << 56  # as Android's allocator has it on every pointer


class Process:
    """A process of the model, and what is in use in it."""

    def __init__(self, abi: str, release: str, page_size: int) -> None:
        self.played: Played = play(release, abi, 3, page_size=page_size)
        model = self.played.allocator
        self.live = {model.malloc(33), model.malloc(300000), model.memalign(1 << 15, 300001)}
        self.live.add(model.realloc(model.malloc(500000), 900000))
        self.gone = model.malloc(777)
        model.malloc(33)
        model.free(self.gone)

    def used_by_model(self) -> dict[str, int]:
        """Return each block that is in use by the model's account, and its usable size."""
        model = self.played.allocator
        return {hex(mem): model.malloc_usable_size(mem) for mem in self.live}


@pytest.fixture
def process(abi: str, release: str, page_size: int) -> Process:
    return Process(abi, release, page_size)


def shell(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Return what the shell door answers, which must find no fault."""
    status = main([*words, "--json", "--debug-dir", "/nonexistent", "--sysroot", "/nonexistent"])
    said = capsys.readouterr()
    assert (status, said.err) == (0, "")
    found: dict[str, Any] = json.loads(said.out)
    return found


over_all = pytest.mark.parametrize(
    ("abi", "release", "page_size"),
    [(abi, release, page) for abi in ABIS for release in RELEASES for page in PAGES],
)


@over_all
def test_a_core_of_it_shows_the_models_blocks(process, abi, page_size, tmp_path, capsys):
    core = tmp_path / "core"
    core.write_bytes(core_of(process.played))

    info = shell(capsys, "info", str(core))
    rows = shell(capsys, "chunks", str(core), "--all")["chunks"]

    model = process.played.allocator
    assert info["target"]["abi"] == abi
    assert info["main_arena"]["address"] == hex(model.machine.main)
    assert [row["tcache_state"] for row in info["threads"]] == ["active"] * 3
    assert info["missing"] == []
    usable = {row["user"]: row["usable"] for row in rows if row["state"] in ("used", "mmapped")}
    assert process.used_by_model().items() <= usable.items()
    assert hex(process.gone) not in usable
    assert {row["state"] for row in rows} >= {"used", "free", "tcache", "top", "mmapped"}
    assert {row["state"] for row in rows} & {None, "corrupt"} == set()
    tops = [int(row["address"], 16) + row["size"] for row in rows if row["state"] == "top"]
    assert [end % page_size for end in tops] == [0] * 3


@over_all
def test_the_page_size_is_the_kernels(process, page_size):
    heap = Heap(locate(ModelSource(process.played)))

    assert heap.page_size == page_size
    assert [chunk.start % page_size for chunk in heap.mmapped] == [0] * 3
    assert [chunk.length % page_size for chunk in heap.mmapped] == [0] * 3
    assert heap.problems == []


def test_of_small_pages_nothing_is_taken_for_a_mapping_where_pages_are_large():
    process = Process("aarch64", "2.36", 65536)
    model, header = process.played.allocator, 16
    mapped = model.malloc(1 << 20)
    fake = mapped + 8 * 4096 - header  # looks as an mmapped chunk would with pages of 4 KiB
    model.write(fake, (0).to_bytes(8, "little") + (4 * 4096 | 2).to_bytes(8, "little"))

    heap = Heap(locate(ModelSource(process.played)))

    assert read_mmapped(heap.words, fake, 4096) is not None
    assert read_mmapped(heap.words, fake, heap.page_size) is None
    assert heap.find_mmapped(fake).address == mapped - header  # type: ignore[union-attr]


def test_mremaps_account_may_be_off_by_up_to_a_page_of_64_kib():
    """Since 2.43 each mremap adds a header to mmapped_mem: here more than 4 KiB of them."""
    model = (process := Process("ppc64le", "2.44", 65536)).played.allocator
    block = model.malloc(1 << 20)
    for turn in range(300):
        block = model.realloc(block, (1 << 20) + 65536 * (1 + turn % 2))

    heap = Heap(locate(ModelSource(process.played)))

    assert len(heap.mmapped) == 4
    assert heap.problems == []


# --- tags in the top byte -------------------------------------------------------------------------


@pytest.fixture
def tagged(tmp_path: Path) -> tuple[Process, str]:
    """A process of aarch64 whose blocks point to each other with tags, and its core."""
    process = Process("aarch64", "2.41", 4096)
    first, second, *_ = sorted(process.live)
    process.played.allocator.write(first, (second | TAG).to_bytes(8, "little"))
    core = tmp_path / "core"
    core.write_bytes(core_of(process.played))
    return process, str(core)


def test_a_tagged_address_is_looked_up_without_its_tag(tagged, capsys):
    process, core = tagged
    block = min(process.live)

    for line in ("chunk", "whatis"):
        with_tag = shell(capsys, line, core, hex(block | TAG))
        assert with_tag == shell(capsys, line, core, hex(block))
    rows = shell(capsys, "chunks", core, "--from", hex(block | TAG), "--to", hex(block | TAG))
    assert [row["user"] for row in rows["chunks"]] == [hex(block)]
    arena = hex(process.played.allocator.machine.main | TAG)
    assert shell(capsys, "bins", core, "--arena", arena)["bins"]


def test_tagged_pointers_lead_into_the_chunk_that_they_mean(tagged, capsys):
    process, core = tagged
    first, second, *_ = sorted(process.live)

    hits = shell(capsys, "find", core, "--into", hex(second | TAG))["hits"]

    assert (hex(first), hex(second | TAG)) in {(hit["address"], hit["value"]) for hit in hits}


def test_what_a_user_says_of_the_allocator_may_have_a_tag():
    source = ModelSource(play("2.41", "aarch64"))
    plain = locate(source)
    assert plain.main_arena
    assert plain.mp
    cache = plain.threads[0].tcache
    said = Overrides(
        "2.41", plain.main_arena.address | TAG, plain.mp.address | TAG, {1: cache | TAG}
    )

    told = locate(source, said)

    assert told.main_arena
    assert told.mp
    assert told.main_arena[:2] == (plain.main_arena.address, "user")
    assert told.mp[:2] == (plain.mp.address, "user")
    assert (told.threads[0].tcache, told.threads[0].tcache_how) == (cache, "user")

"""The other commands on heaps made by hand: what they say, and what they refuse."""

from __future__ import annotations

import json
import platform
import xml.etree.ElementTree as ET

import pytest

from heapglass import __version__
from heapglass.errors import BadRequest, NotFound, UnsupportedGlibc
from heapglass.glibc.safelink import protect
from heapglass.heap.target import HeapThread, Loaded, Place, Target

from ..heap.made import ARENA, BASE, MP, MadeHeap
from ..heap.recorded import RELEASES, load
from .asked import document, lines

CACHES = ("tcache[0x20]", "fast[0x20]")
SMALLEST = ("tcache[0x10]", "fast[0x10]")


@pytest.fixture
def made() -> MadeHeap:
    heap = MadeHeap([0x21, 0x411, 0x31, 0x21])
    heap.link(1, [heap.chunks[1]])
    return heap


def test_info_says_where_everything_is_and_how_it_was_found(made):
    found = document(made.target, "info")

    assert found["glibc"]["version"] == "2.36"
    assert found["abi"] == "x86_64"
    assert found["main_arena"] == {
        "address": hex(ARENA),
        "how": "symbol",
        "checks": [],
        "runners_up": [],
    }
    assert found["mp_"]["address"] == hex(MP)
    assert found["threads"][0]["id"] == 7
    assert found["missing"] == []


def test_info_shows_the_evidence_and_what_was_not_taken(made):
    place = Place(ARENA, "scan", "/lib/libc.so.6", ("it is round", "it is green"), ("0x1 of a",))
    made.target.main_arena = place
    made.target.names = {"narenas": Place(0x1234, "symbol")}

    text = lines(made.target, "info")

    at = text.index("evidence")
    assert [line[18:] for line in text[at + 1 : at + 4]] == [
        "it is round",
        "it is green",
        "not taken: 0x1 of a",
    ]
    assert "narenas           0x1234, by its symbol" in text


def test_a_release_that_is_not_known_is_null_with_those_that_are_possible(made):
    made.target.releases = ((2, 35), (2, 36))

    found = document(made.target, "info")

    assert found["glibc"]["version"] is None
    assert found["glibc"]["possible"] == ["2.35", "2.36"]
    assert found["target"]["glibc"] is None
    assert lines(made.target, "info")[0].startswith("glibc       2.35 to 2.36")
    assert "constants of glibc 2.35 to 2.36, as in 2.36" in lines(made.target, "params")


def test_the_page_for_a_bug_report_has_versions_files_and_layout(made):
    made.target.tools = {"gdb": "13.1"}
    made.target.files = (Loaded("/lib/libc.so.6", "abcd", True, False),)
    made.target.missing = ["the moon"]
    made.memory.write(made.chunks[0] + 16, b"secret of the user")

    found = document(made.target, "info --why")
    text = "\n".join(lines(made.target, "info --why"))

    assert found["versions"]["heapglass"] == __version__
    assert found["versions"]["gdb"] == "13.1"
    assert found["versions"]["python"].startswith(platform.python_version())
    assert found["files"] == [
        {"path": "/lib/libc.so.6", "build_id": "abcd", "at_hand": True, "debug_file": False}
    ]
    assert found["layout"]["malloc_state"] == made.layout.state.size
    assert found["loops"] in ("python", "native")
    for piece in ("13.1", "abcd", "the moon", f"malloc_state            {0x898:#x} bytes"):
        assert piece in text
    assert "secret" not in text + json.dumps(found)
    assert "versions" not in document(made.target, "info")


def test_info_of_a_target_where_nothing_was_found(made):
    made.target.main_arena = None
    made.target.missing = ["main_arena was not found: no symbols"]

    found = document(made.target, "info")

    assert found["main_arena"] is None
    assert found["warnings"] == ["main_arena was not found: no symbols"]
    with pytest.raises(NotFound, match="no symbols"):
        document(made.target, "arenas")


def test_arenas_have_what_the_contract_names(made):
    (row,) = document(made.target, "arenas")["arenas"]

    assert row["address"] == hex(ARENA)
    assert (row["main"], row["top"]) == (True, hex(made.top))
    assert row["threads"] == [7]
    assert row["heaps"] == [{"start": hex(BASE), "end": hex(BASE + 0x8000), "size": 0x8000}]
    assert row["totals"]["free"] == {"count": 1, "bytes": 0x410}
    assert row["top_size"] == BASE + 0x8000 - made.top


def test_heaps(made):
    (row,) = document(made.target, "heaps")["heaps"]

    assert (row["kind"], row["size"], row["chunks"]) == ("brk", 0x8000, 5)


def test_bins_and_the_empty_ones_on_request(made):
    (row,) = document(made.target, "bins")["bins"]
    every = document(made.target, "bins --all")["bins"]

    assert (row["kind"], row["index"], row["count"]) == ("unsorted", 1, 1)
    assert row["chunks"] == [hex(made.chunks[1])]
    assert len([bin_ for bin_ in every if bin_["kind"] == "small"]) == 62
    assert len([bin_ for bin_ in every if bin_["kind"] == "large"]) == 63
    assert document(made.target, "bins small")["bins"] == []


def test_an_unknown_kind_of_bin_is_refused(made):
    with pytest.raises(BadRequest) as caught:
        document(made.target, "bins medium")
    assert "medium" in str(caught.value)


def test_a_tcache_that_was_not_found_is_missing_not_empty(made):
    made.target.threads = [HeapThread(7)]

    said = lines(made.target, "tcache")

    assert any("the tcache of thread 7 was not found" in line for line in said)
    assert "?" in said[1]


def test_a_release_without_a_tcache_says_so():
    made = MadeHeap([0x21], version=(2, 25))

    assert any("has no tcache" in line for line in lines(made.target, "tcache"))


def test_params(made):
    made.set_word(MP + made.layout.structs["malloc_par"].offset("mmap_threshold"), 0x20000)

    found = document(made.target, "params")

    assert found["params"]["mmap_threshold"] == 0x20000
    assert found["params"]["sbrk_base"] == hex(BASE)
    assert found["constants"]["MINSIZE"] == 0x20
    assert found["variables"]["global_max_fast"] is None
    assert "safe_linking" in found["features"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (ARENA + 0x60, ("variable", "main_arena+0x60")),
        (MP + 8, ("variable", "mp_+0x8")),
        (BASE + 0x18, ("state", "used")),
        (BASE + 0x40, ("state", "free")),
    ],
)
def test_whatis(made, address, said):
    found = document(made.target, f"whatis {address:#x}")

    assert found[said[0]] == said[1]


def test_whatis_of_nothing_known(made):
    found = document(made.target, "whatis 0x10")

    assert found["chunk"] is None
    assert found["warnings"] == ["0x10 is in no mapping, arena or chunk that is known"]


# --- find -----------------------------------------------------------------------------------------


def test_find_a_value_by_chunk(made):
    made.set_word(made.chunks[2] + 0x18, 0xDEADBEEF)

    (hit,) = document(made.target, "find 0xdeadbeef")["hits"]

    assert hit["address"] == hex(made.chunks[2] + 0x18)
    assert (hit["chunk"], hit["offset"], hit["state"]) == (hex(made.chunks[2]), 8, "used")


def test_find_a_string_bytes_and_an_unaligned_value(made):
    made.memory.write(made.chunks[2] + 0x13, b"secret")

    assert len(document(made.target, "find --string secret")["hits"]) == 1
    assert len(document(made.target, "find --hex 736563")["hits"]) == 1
    assert document(made.target, f"find {0x6573:#x} --size 2")["hits"] == []
    assert len(document(made.target, f"find {0x6573:#x} --size 2 --unaligned")["hits"]) == 1


def test_find_pointers_into_a_chunk(made):
    target = made.chunks[1]
    made.set_word(made.chunks[2] + 0x10, target + 0x123)

    hits = document(made.target, f"find --into {target:#x}")["hits"]

    assert {hit["value"] for hit in hits} == {hex(target + 0x123)}


@pytest.mark.parametrize("line", ["find", "find 1 --string a", "find --hex xyz", "find 1 --size 3"])
def test_find_refuses_what_is_no_question(made, line):
    with pytest.raises(BadRequest):
        document(made.target, line)


# --- link, size -----------------------------------------------------------------------------------


def test_link_reveals_makes_and_guesses(made):
    mem = made.chunks[0] + 0x10
    stored = protect(mem, made.chunks[2])
    made.set_word(mem, stored)

    read = document(made.target, f"link {mem:#x}")
    guessed = document(made.target, f"link --word {stored:#x}")
    word = document(made.target, f"link {mem:#x} --make {made.chunks[2]:#x}")

    assert read["pointer"] == hex(made.chunks[2])
    assert guessed["pointer"] == hex(made.chunks[2])
    assert word["stored"] == hex(stored)


def test_link_says_that_old_releases_have_none():
    made = MadeHeap([0x21], version=(2, 31))

    found = document(made.target, f"link {made.chunks[0] + 0x10:#x}")

    assert "2.32" in found["warnings"][0]


@pytest.mark.parametrize("line", ["link", "link --make 0x10"])
def test_link_needs_something_to_go_by(made, line):
    with pytest.raises(BadRequest):
        document(made.target, line)


@pytest.mark.parametrize(
    ("line", "size", "usable", "bins"),
    [
        ("size 24 --glibc 2.36", 0x20, 0x18, [*CACHES, "unsorted", "small[0x20]"]),
        ("size 24 --glibc 2.23", 0x20, 0x18, ["fast[0x20]", "unsorted", "small[0x20]"]),
        ("size 24 --glibc 2.44", 0x20, 0x18, ["tcache[0x20]", "small[0x20]"]),
        ("size 1032 --glibc 2.42", 0x410, 0x408, ["unsorted", "large[0x400]"]),
        ("size 1032 --glibc 2.43", 0x410, 0x408, ["tcache[0x410]", "unsorted", "large[0x400]"]),
        ("size 12 --glibc 2.36 --abi arm", 0x10, 0xC, [*SMALLEST, "unsorted", "small[0x10]"]),
        ("size 12 --glibc 2.36 --abi i386", 0x10, 0xC, [*SMALLEST, "unsorted", "small[0x10]"]),
        ("size 12 --glibc 2.25 --abi i386", 0x10, 0xC, ["fast[0x10]", "unsorted", "small[0x10]"]),
    ],
)  # fmt: skip
def test_size_on_any_release(line, size, usable, bins):
    found = document(None, line)

    assert (found["size"], found["usable"]) == (size, usable)
    assert [row["bin"] for row in found["bins"]] == bins


def test_size_follows_the_target(made):
    assert document(made.target, "size 24")["target"]["glibc"] == "2.36"


def test_size_refuses_what_malloc_refuses():
    with pytest.raises(BadRequest, match="ENOMEM"):
        document(None, f"size {1 << 63}")
    with pytest.raises(UnsupportedGlibc):
        document(None, "size 24 --glibc 2.99")


# --- stats, vis -----------------------------------------------------------------------------------


def test_stats(made):
    found = document(made.target, "stats")

    assert found["totals"]["used"] == {"count": 3, "bytes": 0x70}
    assert {"size": 0x410, "state": "free", "count": 1, "bytes": 0x410} in found["histogram"]
    assert found["memory"]["largest_free"] == 0x410
    assert found["memory"]["fragmentation"] == 0.0


@pytest.mark.parametrize("release", RELEASES)
def test_malloc_info_is_xml_whose_figures_add_up(release):
    recorded = load(release, "random-1")

    text = document(recorded.heap.target, "stats --malloc-info")["malloc_info"]

    root = ET.fromstring(text)
    heaps = root.findall("heap")
    assert len(heaps) == 1
    rows = [*heaps[0].findall("sizes/size"), *heaps[0].findall("sizes/unsorted")]
    totals = {total.get("type"): total for total in root.findall("total")}
    count = sum(int(row.get("count", "")) for row in rows)
    tops = 1 if recorded.layout.has("malloc_info_counts_top") else 0
    assert count + tops == sum(int(totals[k].get("count", "")) for k in totals if k != "mmap")
    assert ("fast" in totals) == recorded.layout.has("fastbins")
    assert ("\t\t  " in text) == (not recorded.layout.has("malloc_info_counts_top"))


def test_vis_draws_frames_marks_and_folds(made):
    said = lines(made.target, f"vis {made.chunks[0]:#x} 3")

    heads = [line for line in said if line.startswith("╭─")]
    assert heads[0] == f"╭─ {made.chunks[0]:#x}  size 0x20  P  used"
    assert heads[1] == f"╭─ {made.chunks[1]:#x}  size 0x410  P  free  ← unsorted 1/1"
    assert any("the same" in line and "more" in line for line in said)
    assert any(line.endswith("fd, bk") for line in said)


def test_vis_without_folding(made):
    said = lines(made.target, f"vis {made.chunks[1]:#x} 1 --all")

    assert len([line for line in said if line.startswith("│ ")]) == 0x410 // 16


def test_vis_of_no_chunk(made):
    with pytest.raises(NotFound):
        document(made.target, "vis 0x10")


def test_warnings_of_the_target_come_first(made):
    made.target.warnings = ["the process is not stopped"]

    assert document(made.target, "arenas")["warnings"] == ["the process is not stopped"]


def test_a_target_describes_itself_the_same_through_every_door(made):
    assert isinstance(made.target, Target)
    assert document(made.target, "bins")["target"] == {"abi": "x86_64", "glibc": "2.36", "pid": 7}

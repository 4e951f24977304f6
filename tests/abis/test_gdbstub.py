"""Programs on other machines than x86, under qemu, read live through its gdb server.

With the releases' debug files, with them from an emulator that tells no mappings (qemu before 8.2),
and without any symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from machines import MACHINES, PROGRAMS, WAYS, LiveSession, run_live
from programs import find_runtime
from session import XML, blocks_in_use

Record = Callable[[str, object], None]

FOUND_BY = {"live": "symbol", "unmapped": "dwarf", "bare": "scan"}
WARNINGS = {"live": [], "unmapped": ["the remote target does not tell its mappings"], "bare": []}

ADDRESS = (1 << 56) - 1  # of a pointer with a tag

every_program = pytest.mark.parametrize(
    ("arch", "glibc", "program"),
    [(m.arch, glibc, p) for m in MACHINES.values() for glibc in m.releases for p in PROGRAMS],
)
every_way = pytest.mark.parametrize("way", WAYS)


@every_way
@every_program
def test_the_used_chunks_are_the_programs_and_the_librarys_own(
    live: LiveSession, arch: str, glibc: str, way: str, record_property: Record
):
    for name, value in (("arch", arch), ("glibc", glibc), ("way", way)):
        record_property(name, value)

    chunks = live.answers[way].document("chunks --all")

    assert blocks_in_use(chunks) == live.report.blocks()
    assert None not in {row["state"] for row in chunks["chunks"]}
    assert chunks["warnings"] == WARNINGS[way]
    record_property("chunks", len(chunks["chunks"]))


@every_way
@every_program
def test_every_thread_is_known(live: LiveSession, arch: str, glibc: str, way: str):
    info = live.answers[way].document("info")

    assert info["source"]["kind"] == "remote"
    assert info["abi"] == MACHINES[arch].abi
    if way == "unmapped":  # then no file's banner is known: what memory shows is said
        assert glibc in info["glibc"]["possible"]
    else:
        assert info["glibc"]["version"] == glibc
    assert info["main_arena"]["how"] == FOUND_BY[way]
    assert [row["id"] for row in info["threads"]] == [t.tid for t in live.report.threads]
    assert {row["tcache_state"] for row in info["threads"]} <= {"active", "none"}
    assert info["missing"] == []


@every_program
def test_without_symbols_the_same_is_found(live: LiveSession):
    with_symbols, without = (live.answers[way].document("info") for way in ("live", "bare"))

    for name in ("main_arena", "mp_"):
        assert without[name]["address"] == with_symbols[name]["address"]
    for one, other in zip(without["threads"], with_symbols["threads"]):
        assert {**one, "tcache_how": None} == {**other, "tcache_how": None}


@every_way
@every_program
def test_malloc_info_is_what_the_program_printed(live: LiveSession, way: str):
    warnings = "".join(f"! {text}\n" for text in WARNINGS[way])

    assert live.answers[way].text[XML] == live.report.malloc_info + warnings


@pytest.mark.parametrize("program", ["threads", "mmapped"])
def test_where_malloc_tags_memory_all_is_read_but_what_only_a_symbol_tells(
    program: str, tmp_path: Path
):
    tagged = run_live(MACHINES["arm64"], find_runtime("2.41", "arm64"), program, tmp_path, True)
    blocks = tagged.report.blocks()
    held = {mem & ADDRESS: usable for mem, usable in blocks.items()}

    found = {way: tagged.answers[way].document("chunks --all") for way in WAYS}

    assert set(held) != set(blocks)
    assert blocks_in_use(found["live"]) == held
    assert found["live"]["warnings"] == []
    bare = blocks_in_use(found["bare"])
    assert set(bare) == set(held)
    assert {mem for mem, usable in bare.items() if usable != held[mem]} == {
        mem for mem, usable in bare.items() if usable is None
    }
    assert [text for text in found["bare"]["warnings"] if "mtag_enabled" not in text] == []
    for way in ("live", "bare"):
        threads = tagged.answers[way].document("info")["threads"]
        assert {row["tcache_state"] for row in threads} == {"active"}

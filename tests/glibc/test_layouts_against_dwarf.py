"""The tables against fixtures/layouts: every field of every struct, as real builds have them.

The files were read from the DWARF of Debian's libc6-dbg by tools/read_layouts.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heapglass.glibc.layout import Layout, layout_for
from heapglass.glibc.releases import parse_version
from heapglass.glibc.threads import CONTROL_BLOCKS

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "layouts"
BUILDS = sorted(path.stem for path in FOLDER.glob("*.json"))
ABIS = {  # Debian's name -> ours
    "amd64": "x86_64",
    "i386": "i386",
    "arm64": "aarch64",
    "armhf": "arm",
    "ppc64el": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
# A field has one name in the tables. glibc's, where it is another: (struct, name) -> the tables'.
OUR_NAMES = {
    ("malloc_chunk", "mchunk_prev_size"): "prev_size",
    ("malloc_chunk", "mchunk_size"): "size",
    ("malloc_par", "tcache_small_bins"): "tcache_bins",
}
# Where tcbhead_t lies, seen from the thread pointer, in bytes by its size. On the other ports the
# thread pointer is struct pthread's address, and that begins with tcbhead_t.
HEAD_FROM_THREAD_POINTER = {
    "arm64": lambda size: 0,
    "armhf": lambda size: 0,
    "riscv64": lambda size: -size,
    "ppc64el": lambda size: -0x7000 - size,
}
EXPECTED = (
    *(
        f"{glibc}-{arch}"
        for glibc in ("2.31", "2.36", "2.41", "2.43", "2.44")
        for arch in ("amd64", "i386", "arm64", "armhf")
    ),
    *(
        f"{glibc}-{arch}"
        for glibc in ("2.36", "2.41", "2.43", "2.44")
        for arch in ("ppc64el", "s390x")
    ),
    *(f"{glibc}-riscv64" for glibc in ("2.41", "2.43", "2.44")),
)


def read(build: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{build}.json").read_text())
    return found


def tables(found: dict[str, Any]) -> Layout:
    return layout_for(
        parse_version(found["glibc"]), found["word"], found["order"], abi=ABIS[found["arch"]]
    )


def by_our_names(struct: str, fields: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    """name -> offset, bytes of an element, elements; an array of none is no field."""
    return {
        OUR_NAMES.get((struct, name), name): (field["offset"], field["size"], field["count"])
        for name, field in fields.items()
        if field["count"]
    }


def test_every_release_is_there_for_every_architecture_that_its_suite_has() -> None:
    assert sorted(EXPECTED) == BUILDS


@pytest.mark.parametrize("build", BUILDS)
def test_the_tables_have_the_words_of_the_port(build: str) -> None:
    found = read(build)

    layout = tables(found)

    assert (layout.word, layout.order) == (found["word"], found["order"])
    assert f"{found['glibc']}-{found['arch']}" == build


@pytest.mark.parametrize("build", BUILDS)
def test_every_struct_of_the_tables_is_in_the_file(build: str) -> None:
    found = read(build)

    assert set(found["structs"]) - {"pthread", "tcbhead_t"} == set(tables(found).structs)


@pytest.mark.parametrize("struct", sorted(layout_for((2, 36)).structs))
@pytest.mark.parametrize("build", BUILDS)
def test_fields_are_where_the_compiler_put_them(build: str, struct: str) -> None:
    found = read(build)
    real = found["structs"][struct]

    ours = tables(found).structs[struct]

    assert {
        name: (field.offset, field.size, field.length) for name, field in ours.fields.items()
    } == by_our_names(struct, real["fields"])
    assert ours.size == real["size"]


@pytest.mark.parametrize("build", BUILDS)
def test_the_static_variables_have_the_size_of_their_struct(build: str) -> None:
    found = read(build)

    layout = tables(found)

    assert found["symbols"]["main_arena"]["size"] == layout.state.size
    assert found["symbols"]["mp_"]["size"] == layout.structs["malloc_par"].size
    assert found["symbols"]["tcache"]["size"] == layout.word


@pytest.mark.parametrize(
    ("symbol", "feature"),
    [
        ("tcache", "tcache"),
        ("tcache_key", "tcache_key_random"),
        ("__tcache_dummy", "tcache_dummy"),
        ("global_max_fast", "fastbins"),
    ],
)
@pytest.mark.parametrize("build", BUILDS)
def test_a_build_has_the_variables_of_its_features(build: str, symbol: str, feature: str) -> None:
    found = read(build)

    assert (symbol in found["symbols"]) == tables(found).has(feature)


@pytest.mark.parametrize("build", [b for b in BUILDS if tables(read(b)).has("fastbins")])
def test_global_max_fast_is_a_byte_or_a_word(build: str) -> None:
    found = read(build)

    layout = tables(found)

    size = found["symbols"]["global_max_fast"]["size"]
    assert size == (1 if layout.has("max_fast_byte") else layout.word)


@pytest.mark.parametrize("build", BUILDS)
def test_a_tcache_that_begins_as_the_dummy_has_an_initial_value(build: str) -> None:
    found = read(build)

    section = found["symbols"]["tcache"]["section"]

    assert section == (".tdata" if tables(found).has("tcache_dummy") else ".tbss")


@pytest.mark.parametrize("build", BUILDS)
def test_a_name_that_the_tables_change_is_the_release_s_own(build: str) -> None:
    structs = read(build)["structs"]

    small_bins = "tcache_small_bins" in structs["malloc_par"]["fields"]

    assert small_bins == (parse_version(build) >= (2, 42))
    assert {"mchunk_prev_size", "mchunk_size"} <= structs["malloc_chunk"]["fields"].keys()


@pytest.mark.parametrize("build", BUILDS)
def test_the_dtv_is_where_the_control_block_says(build: str) -> None:
    found = read(build)
    head = found["structs"]["tcbhead_t"]
    place = HEAD_FROM_THREAD_POINTER.get(found["arch"])

    block = CONTROL_BLOCKS[ABIS[found["arch"]]]

    if place is None:
        fields = found["structs"]["pthread"]["fields"]
        assert block.dtv == fields["header.dtv"]["offset"] == head["fields"]["dtv"]["offset"]
        assert block.self_pointers == tuple(
            fields[f"header.{name}"]["offset"] for name in ("tcb", "self")
        )
    else:
        assert block.dtv == place(head["size"]) + head["fields"]["dtv"]["offset"]
        assert block.self_pointers == ()


@pytest.mark.parametrize("build", [b for b in BUILDS if CONTROL_BLOCKS[ABIS[b[5:]]].tid])
def test_the_thread_id_is_where_the_control_block_says(build: str) -> None:
    found = read(build)

    block = CONTROL_BLOCKS[ABIS[found["arch"]]]

    assert block.tid == found["structs"]["pthread"]["fields"]["tid"]["offset"]

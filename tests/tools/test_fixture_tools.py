"""The tools that make fixtures and put the release table into the README."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from release_table import MARKER, with_table
from tiny_debug import KINDS, Libc, Symbol, tiny_debug

BUILD_ID = "00112233445566778899aabbccddeeff00112233"
SYMBOLS = (
    Symbol("main_arena", 0x1F0AC0, 2112, KINDS["STT_OBJECT"], ".data"),
    Symbol("tcache", 0x20, 8, KINDS["STT_TLS"], ".tbss"),
    Symbol("__tcache_dummy", 0x1ADBC0, 768, KINDS["STT_OBJECT"], ".rodata"),
)


def segment(kind: str, vaddr: int, memsz: int) -> dict[str, object]:
    values = {"vaddr": vaddr, "paddr": vaddr, "memsz": memsz, "align": 8, "flags": 4}
    return {"p_type": kind, **{f"p_{key}": value for key, value in values.items()}}


@pytest.mark.parametrize(("wide", "machine"), [(True, "EM_X86_64"), (False, "EM_386")])
def test_a_tiny_debug_file_reads_as_elf(wide: bool, machine: str) -> None:
    segments = (segment("PT_LOAD", 0, 0x27A90), segment("PT_TLS", 0x1ECB98, 0x80))
    libc = Libc(wide, {"EM_X86_64": 62, "EM_386": 3}[machine], BUILD_ID, segments, SYMBOLS)

    elf = ELFFile(io.BytesIO(tiny_debug(libc)))

    note = next(elf.get_section_by_name(".note.gnu.build-id").iter_notes())
    rows = list(elf.get_section_by_name(".symtab").iter_symbols())[1:]
    assert note["n_desc"] == BUILD_ID
    assert elf.header["e_machine"] == machine
    assert [(s["p_type"], s["p_vaddr"], s["p_memsz"]) for s in elf.iter_segments()] == [
        ("PT_LOAD", 0, 0x27A90),
        ("PT_TLS", 0x1ECB98, 0x80),
    ]
    assert [
        (row.name, row["st_value"], row["st_size"], elf.get_section(row["st_shndx"]).name)
        for row in rows
    ] == [(s.name, s.value, s.size, s.section) for s in SYMBOLS]
    assert [row["st_info"]["type"] for row in rows] == ["STT_OBJECT", "STT_TLS", "STT_OBJECT"]


def test_the_release_table_replaces_what_stood_between_the_markers() -> None:
    text = f"# heapglass\n{MARKER}old\n{MARKER}more\n"

    once = with_table(text, "| a |\n")

    assert once == f"# heapglass\n{MARKER}\n| a |\n\n{MARKER}more\n"
    assert with_table(once, "| a |\n") == once


@pytest.mark.parametrize("markers", [0, 1, 3])
def test_the_release_table_wants_two_markers(markers: int) -> None:
    with pytest.raises(ValueError, match=f"found {markers}"):
        with_table("a\n" + MARKER * markers, "| a |")

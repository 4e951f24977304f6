"""Structs and symbols from the DWARF of a small library made here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from dwarf_layouts import Member, NoLayout, Shape, _top_level, describe
from read_layouts import main, text
from runtimes import Runtime

# The shapes that glibc's structs take: typedefs, arrays without elements, unions without a name,
# a head inside of one, bit fields, qualifiers.
MALLOC = r"""
#include <stddef.h>
#define USED __attribute__((used))
struct malloc_chunk { size_t mchunk_prev_size, mchunk_size; struct malloc_chunk *fd; };
typedef struct malloc_chunk *mfastbinptr;
struct malloc_state {
    int mutex; const volatile int flags; mfastbinptr fastbinsY[10];
    struct malloc_chunk *bins[3][2]; _Atomic unsigned int binmap[4];
};
enum mode { never, always };
struct malloc_par { unsigned long trim_threshold; enum mode thp_mode; char *sbrk_base; };
typedef struct _heap_info { struct malloc_state *ar_ptr; char pad[0]; } heap_info;
typedef struct tcache_entry { struct tcache_entry *next; unsigned long key; } tcache_entry;
typedef struct tcache_perthread_struct {
    unsigned short counts[64]; tcache_entry *entries[64];
} tcache_perthread_struct;
struct pthread;
struct pthread *self;
USED static struct malloc_state main_arena = { .mutex = 0, .flags = 1 };
USED static struct malloc_par mp_ = { .trim_threshold = 1 };
USED static __thread tcache_perthread_struct *tcache;
USED static heap_info *no_dot;
extern void *malloc_like(void);
void *malloc_like(void) {
    USED static unsigned long narenas_limit;
    static struct malloc_chunk chunk;
    return &chunk;
}
"""
THREADS = r"""
typedef struct { void *tcb, *dtv, *self; unsigned first : 3, second : 7; } tcbhead_t;
struct list { void *next, *prev; };
struct pthread {
    union { tcbhead_t header; void *__padding[24]; };
    struct list list;
    struct { int tid; union { int pid; char lid; }; };
    void (*start)(void);
    char end_padding[];
};
static struct pthread first;
void *create(void); void *create(void) { return &first; }
"""


class Built(NamedTuple):
    library: Path
    debug_dir: Path


def build(folder: Path, version: int, sources: dict[str, str]) -> Built:
    """Compile a library and put its debug file where its build id says."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        (folder / name).write_text(source)
    whole, library = folder / "whole.so", folder / "libc.so.6"
    compiler = ["gcc", "-O1", f"-gdwarf-{version}", "-shared"]
    flags = ["-fPIC", "-nostdlib", "-w", "-Wl,--build-id=0xabcdef01", "-o", str(whole)]
    subprocess.run([*compiler, *flags, *sources], check=True, cwd=folder)
    debug_dir = folder / "debug"
    place = debug_dir / ".build-id" / "ab" / "cdef01.debug"
    place.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["objcopy", "--only-keep-debug", str(whole), str(place)], check=True)
    subprocess.run(["strip", "-o", str(library), str(whole)], check=True)
    return Built(library, debug_dir)


WHOLE = {"malloc.c": MALLOC, "pthread_create.c": THREADS}


@pytest.fixture(scope="module", params=[4, 5])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("built"), request.param, WHOLE)


def test_structs_are_read_field_by_field(built: Built) -> None:
    found = describe(built.library, built.library, built.debug_dir)

    assert (found.build_id, found.word) == ("abcdef01", 8)
    assert found.order == sys.byteorder
    assert found.structs["malloc_state"] == Shape(
        0x98,
        (
            Member("mutex", 0, 4),
            Member("flags", 4, 4),
            Member("fastbinsY", 8, 8, 10),
            Member("bins", 0x58, 8, 6),
            Member("binmap", 0x88, 4, 4),
        ),
    )
    assert found.structs["malloc_par"].members[1] == Member("thp_mode", 8, 4)
    assert found.structs["heap_info"] == Shape(8, (Member("ar_ptr", 0, 8), Member("pad", 8, 1, 0)))
    assert found.structs["tcache_perthread_struct"] == Shape(
        0x280, (Member("counts", 0, 2, 64), Member("entries", 0x80, 8, 64))
    )


def test_members_of_what_has_no_name_are_the_struct_s_own(built: Built) -> None:
    members = describe(built.library, built.library, built.debug_dir).structs["pthread"].members

    assert members == (
        Member("header.tcb", 0, 8),
        Member("header.dtv", 8, 8),
        Member("header.self", 16, 8),
        Member("header.first", 24, 4, 1, (0, 3)),
        Member("header.second", 24, 4, 1, (3, 7)),
        Member("__padding", 0, 8, 24),
        Member("list", 192, 16),
        Member("tid", 208, 4),
        Member("pid", 212, 4),
        Member("lid", 212, 1),
        Member("start", 216, 8),
        Member("end_padding", 224, 1, 0),
    )


def test_the_variables_are_malloc_c_s_own(built: Built) -> None:
    symbols = describe(built.library, built.library, built.debug_dir).symbols

    assert symbols["main_arena"] == (0x98, "OBJECT", ".data")
    assert symbols["mp_"] == (24, "OBJECT", ".data")
    assert symbols["tcache"] == (8, "TLS", ".tbss")
    assert symbols["narenas_limit"] == (8, "OBJECT", ".bss")  # narenas_limit.0 in .symtab
    assert "first" not in symbols  # of another file
    assert list(symbols) == sorted(symbols)


def test_what_the_library_does_not_have_is_looked_for_in_the_loader(tmp_path: Path) -> None:
    library = build(tmp_path / "library", 5, {"malloc.c": MALLOC})
    folder = tmp_path / "loader"
    loader = build(folder, 5, {"rtld.c": THREADS})
    with pytest.raises(NoLayout, match="expected pthread, tcbhead_t in its debug file"):
        describe(library.library, library.library, library.debug_dir)

    # one debug directory for both, as in a package
    place = library.debug_dir / ".build-id" / "12" / "34.debug"
    place.parent.mkdir(parents=True)
    note = tmp_path / "note"
    note.write_bytes(b"\4\0\0\0\2\0\0\0\3\0\0\0GNU\0\x12\x34\0\0")
    section = f"--update-section=.note.gnu.build-id={note}"
    shutil.copy(next((folder / "debug").rglob("*.debug")), place)
    subprocess.run(["objcopy", section, str(loader.library)], check=True)

    structs = describe(library.library, loader.library, library.debug_dir).structs
    assert structs["pthread"].size == 224
    assert structs["malloc_chunk"].size == 24


def test_a_library_without_the_allocator_is_refused(tmp_path: Path) -> None:
    made = build(tmp_path, 5, {"pthread_create.c": THREADS})

    with pytest.raises(NoLayout, match="expected heap_info, malloc_chunk, malloc_par"):
        describe(made.library, made.library, made.debug_dir)


def test_a_missing_debug_file_is_named(built: Built, tmp_path: Path) -> None:
    with pytest.raises(NoLayout, match=r"ab/cdef01\.debug is missing: expected the debug file"):
        describe(built.library, built.library, tmp_path)


def test_a_debug_file_without_dwarf_is_named(built: Built, tmp_path: Path) -> None:
    place = tmp_path / ".build-id" / "ab" / "cdef01.debug"
    place.parent.mkdir(parents=True)
    shutil.copy(built.library, place)

    with pytest.raises(NoLayout, match=r"cdef01\.debug: expected DWARF"):
        describe(built.library, built.library, tmp_path)


@pytest.mark.parametrize("name", ["../../.dwz/common.debug", "../../../outside"])
def test_what_dwz_made_common_must_be_under_the_debug_directory(
    built: Built, tmp_path: Path, name: str
) -> None:
    debug_dir = tmp_path / "debug"
    shutil.copytree(built.debug_dir, debug_dir)
    shutil.copy(built.library, tmp_path / "outside")
    link = tmp_path / "link"
    link.write_bytes(name.encode() + b"\0" + bytes(20))
    section = f"--add-section=.gnu_debugaltlink={link}"
    subprocess.run(["objcopy", section, str(next(debug_dir.rglob("*.debug")))], check=True)

    with pytest.raises(NoLayout, match=f"{Path(name).name} is missing: expected under .* dwz"):
        describe(built.library, built.library, debug_dir)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"noise" * 40])
def test_what_is_no_library_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "libc.so.6"
    path.write_bytes(content)

    with pytest.raises(NoLayout, match=r"libc\.so\.6"):
        describe(path, path, tmp_path)


class Unit:
    """A unit whose top imports another, as dwz makes them."""

    def __init__(self, offset: int, *children: Any) -> None:
        self.offset = offset
        self.children = list(children)

    def get_top_DIE(self) -> Unit:  # noqa: N802
        return self

    def iter_children(self) -> list[Any]:
        return self.children


class Import:
    tag = "DW_TAG_imported_unit"

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def get_DIE_from_attribute(self, name: str) -> Unit:  # noqa: N802
        assert name == "DW_AT_import"
        return self._unit


class Declared(NamedTuple):
    tag: str


def test_imported_units_are_part_of_the_unit_even_in_a_circle() -> None:
    partial = Unit(100, Declared("b"))
    unit = Unit(0, Declared("a"), Import(partial), Declared("c"))
    partial.children.append(Import(unit))

    assert [die.tag for die in _top_level(unit)] == ["a", "c", "b"]


def runtime(built: Built, cache: Path) -> Runtime:
    """A runtime in a cache, made of the library that was built."""
    folder = cache / "2.36-amd64"
    (folder / "lib").mkdir(parents=True)
    for name in ("libc.so.6", "loader"):
        shutil.copy(built.library, folder / "lib" / name)
    shutil.copytree(built.debug_dir, folder / "debug")
    made = Runtime(folder, "2.36", "2.36-9", "bookworm", "amd64", "lib/loader", "lib", "debug")
    (folder / "runtime.json").write_text(made.to_json())
    return made


def test_a_layout_s_file(built: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runtime(built, tmp_path / "cache")

    assert main(["--cache", str(tmp_path / "cache"), "--to", str(tmp_path / "to")]) == 0

    written = (tmp_path / "to" / "2.36-amd64.json").read_text()
    said = json.loads(written)
    assert (said["glibc"], said["package"], said["arch"]) == ("2.36", "2.36-9", "amd64")
    assert (said["word"], said["build_id"]) == (8, "abcdef01")
    assert said["structs"]["tcache_entry"] == {
        "size": 16,
        "fields": {
            "next": {"offset": 0, "size": 8, "count": 1},
            "key": {"offset": 8, "size": 8, "count": 1},
        },
    }
    assert said["structs"]["tcbhead_t"]["fields"]["second"]["bits"] == [3, 7]
    assert '    "key": {"offset": 8, "size": 8, "count": 1}\n' in written
    assert sorted(p.name for p in (tmp_path / "to").iterdir()) == ["2.36-amd64.json"]
    assert "symbols" in capsys.readouterr().out


def test_a_runtime_that_cannot_be_read_is_said_in_a_line(
    built: Built, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(runtime(built, tmp_path / "cache").folder / "debug")

    assert main(["--cache", str(tmp_path / "cache"), "--to", str(tmp_path / "to")]) == 1

    said = capfd.readouterr().err
    assert said.startswith("2.36-amd64: ")
    assert said.count("\n") == 1
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize(("names", "said"), [([], "has no runtime"), (["2.36-x"], "not 2.36-x")])
def test_runtimes_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: list[str], said: str
) -> None:
    assert main([*names, "--cache", str(tmp_path)]) == 1

    assert f"{said}: run tools/fetch_runtimes.py --layouts first" in capsys.readouterr().err


def test_json_has_a_line_for_each_field() -> None:
    value = {"a": 1, "b": {"c": {"d": [1, 2]}, "e": {}}}

    assert text(value) == '{\n "a": 1,\n "b": {\n  "c": {"d": [1, 2]},\n  "e": {}\n }\n}'
    assert json.loads(text(value)) == value

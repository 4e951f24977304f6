"""Loaded files, their debug files, and symbols by name."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from heapglass.source import Symbol
from heapglass.targets import CoreSource, OpenOptions
from heapglass.targets.elf import Header, read_header
from heapglass.targets.nearest import Nearest
from heapglass.targets.symbols import MOST_FOUND, SymbolTable, read_tables

from .build import MACHINES, PAGE, SHAPES, Core, Load, open_bytes
from .library import BASE, BUILD_ID, PATH, Library, loaded

NOWHERE = OpenOptions(sysroot="/nonexistent", debug_dirs=())


def core_of(file: Path, folder: Path, options: OpenOptions, headers: bool = True) -> CoreSource:
    core = Core()
    core.loads, rows = loaded(file, headers=headers)
    core.notes = core.status(1, bytes(216)) + core.files(*rows)
    return open_bytes(core.build(), folder, options)


def options(folder: Path, *debug_dirs: Path) -> OpenOptions:
    return OpenOptions(sysroot=str(folder), debug_dirs=tuple(str(d) for d in debug_dirs))


def test_a_module_has_bias_build_id_and_file(library: Library, tmp_path: Path) -> None:
    root = library.in_root(tmp_path, library.full)
    with core_of(library.full, tmp_path, options(root)) as source:
        (module,) = source.modules()
        assert module == (PATH, BASE, BUILD_ID, str(root / PATH[1:]), "")
        assert source.warnings == []


def test_symbols_of_the_file_itself(library: Library, tmp_path: Path) -> None:
    root = library.in_root(tmp_path, library.full)
    with core_of(library.full, tmp_path, options(root)) as source:
        where = BASE + library.value("main_arena")
        assert source.symbols("main_arena") == [Symbol("main_arena", where, 32, "symbol", PATH)]
        assert source.memory.read(where, 16) == struct.pack("<QQ", 1, 2)
        (tcache,) = source.symbols("tcache")
        assert (tcache.value, tcache.tls) == (library.value("tcache"), True)
        assert [s.how for s in source.symbols("visible")] == ["symbol"]
        assert source.symbols("arena") == []  # only the end of a name
        assert source.symbols("main_aren") == []  # only its start
        assert source.symbols("library.c") == []  # the name of a file
        assert source.symbols("") == []


def test_a_stripped_library_has_its_debug_file_by_build_id(
    library: Library, tmp_path: Path
) -> None:
    root, debug = library.in_root(tmp_path, library.stripped), library.debug_dir(tmp_path)
    with core_of(library.full, tmp_path, options(root)) as source:
        assert source.symbols("main_arena") == []
        assert [s.how for s in source.symbols("visible")] == ["dynsym"]
    with core_of(library.full, tmp_path, options(root, tmp_path / "none", debug)) as source:
        (module,) = source.modules()
        assert module.debug_file.startswith(str(debug / ".build-id"))
        (symbol,) = source.symbols("main_arena")
        assert symbol == (
            "main_arena",
            BASE + library.value("main_arena"),
            32,
            "symbol",
            PATH,
            False,
        )


def test_the_build_id_in_memory_is_enough_for_the_debug_file(
    library: Library, tmp_path: Path
) -> None:
    where = options(Path("/nonexistent"), library.debug_dir(tmp_path))
    with core_of(library.full, tmp_path, where) as source:
        (module,) = source.modules()
        assert (module.file, module.build_id) == ("", BUILD_ID)
        assert [s.value for s in source.symbols("main_arena")] == [
            BASE + library.value("main_arena")
        ]


def test_a_debug_file_of_another_build_is_not_taken(library: Library, tmp_path: Path) -> None:
    debug = library.debug_dir(tmp_path)
    for place in debug.glob(".build-id/*/*"):
        place.write_bytes(library.other.read_bytes())
    with core_of(library.full, tmp_path, options(Path("/nonexistent"), debug)) as source:
        assert source.modules()[0].debug_file == ""


def test_a_file_of_another_build_is_not_used_and_said(library: Library, tmp_path: Path) -> None:
    root = library.in_root(tmp_path, library.other)
    with core_of(library.full, tmp_path, options(root)) as source:
        (module,) = source.modules()
        assert (module.file, module.build_id) == ("", BUILD_ID)
        assert len(source.warnings) == 1
        assert "libc.so.6: the file at hand" in source.warnings[0]
        assert "--sysroot DIR" in source.warnings[0]
        assert source.symbols("main_arena") == []
        text = source.memory.regions()[1]
        assert "x" in text.perms
        with pytest.raises(Exception, match="not at hand"):
            source.memory.read(text.start, 4)


def test_text_that_was_left_out_comes_from_the_file_of_that_build(
    library: Library, tmp_path: Path
) -> None:
    root = library.in_root(tmp_path, library.full)
    with core_of(library.full, tmp_path, options(root)) as source:
        text = source.memory.regions()[1]
        expected = library.full.read_bytes()[text.offset : text.offset + 64]
        assert source.memory.read(text.start, 64) == expected


def test_pages_that_only_nt_file_names_have_what_the_file_allows(
    library: Library, tmp_path: Path
) -> None:
    root = library.in_root(tmp_path, library.full)
    core = Core()
    loads, rows = loaded(library.full)
    core.loads = [load for load in loads if load.data]  # as gdb's gcore does
    assert len(core.loads) < len(loads)
    core.notes = core.files(*rows)
    with open_bytes(core.build(), tmp_path, options(root)) as source:
        regions = source.memory.regions()
        assert [(r.start, r.perms) for r in regions] == [(x.start, x.perms) for x in loads]
        for region in regions:
            expected = library.full.read_bytes()[region.offset :][: region.size]
            if "w" not in region.perms:
                assert source.memory.read(region.start, 64) == expected[:64]


@pytest.mark.parametrize("place", ["beside", ".debug", "debug-dir"])
def test_a_debuglink_is_followed(place: str, library: Library, tmp_path: Path) -> None:
    root = library.in_root(tmp_path, library.linked)
    folder = {
        "beside": root / "usr/lib",
        ".debug": root / "usr/lib/.debug",
        "debug-dir": tmp_path / "debug/usr/lib",
    }[place]
    folder.mkdir(parents=True, exist_ok=True)
    debug = folder / library.nameless_debug.name
    debug.write_bytes(library.nameless_debug.read_bytes())
    where = options(root, tmp_path / "debug")
    with core_of(library.nameless, tmp_path, where) as source:
        (module,) = source.modules()
        assert (module.build_id, module.debug_file) == ("", str(debug))
        assert [s.how for s in source.symbols("main_arena")] == ["symbol"]
    debug.write_bytes(library.debug.read_bytes())  # another build: the CRC differs
    with core_of(library.nameless, tmp_path, where) as source:
        assert source.modules()[0].debug_file == ""


def test_without_debug_dirs_no_debuglink_is_followed(library: Library, tmp_path: Path) -> None:
    root = library.in_root(tmp_path, library.linked)
    beside = root / "usr/lib" / library.nameless_debug.name
    beside.write_bytes(library.nameless_debug.read_bytes())
    with core_of(library.nameless, tmp_path, options(root)) as source:
        assert source.modules()[0].debug_file == ""


def test_a_compressed_symbol_table_in_the_file(library: Library, tmp_path: Path) -> None:
    root = library.in_root(tmp_path, library.mini)
    with core_of(library.full, tmp_path, options(root)) as source:
        assert [s.how for s in source.symbols("main_arena")] == ["symbol"]
        assert [s.how for s in source.symbols("visible")] == ["symbol"]


def test_a_core_without_elf_headers_is_read_by_the_files(library: Library, tmp_path: Path) -> None:
    root = library.in_root(tmp_path, library.full)
    with core_of(library.full, tmp_path, options(root), headers=False) as source:
        assert source.modules() == ((PATH, BASE, BUILD_ID, str(root / PATH[1:]), ""),)
        assert [s.value for s in source.symbols("main_arena")] == [
            BASE + library.value("main_arena")
        ]
    with core_of(library.full, tmp_path, NOWHERE, headers=False) as source:
        assert source.modules() == ()


def test_a_file_mapped_as_data_is_no_module(tmp_path: Path) -> None:
    core = Core(loads=[Load(BASE, b"DATA" * 1024), Load(BASE + 2 * PAGE, b"\x7fELF" + bytes(60))])
    core.notes = core.files(
        (BASE, BASE + PAGE, 0, "/data"), (BASE + 2 * PAGE, BASE + 3 * PAGE, 0, "/broken")
    )
    with open_bytes(core.build(), tmp_path) as source:
        assert source.modules() == ()


def test_a_first_page_that_is_mapped_twice_is_one_module(library: Library, tmp_path: Path) -> None:
    core = Core()
    core.loads, rows = loaded(library.full)
    middle = core.loads[1].start
    core.loads = [core.loads[0], Load(middle, core.loads[0].data, PAGE), *core.loads[2:]]
    core.notes = core.files(rows[0], (middle, middle + PAGE, 0, PATH), *rows[2:])
    with open_bytes(core.build(), tmp_path, NOWHERE) as source:
        assert [m.base for m in source.modules()] == [BASE]


def test_the_c_library_is_asked_first_and_malloc_debug_last(
    library: Library, tmp_path: Path
) -> None:
    paths = ("/bin/program", "/lib/libc_malloc_debug.so.0", "/lib/libother.so", "/lib/libc-2.31.so")
    core, rows = Core(), []
    bases = dict(zip(paths, range(BASE, BASE + 0x4000_0000, 0x1000_0000)))
    for path, base in bases.items():
        file = tmp_path / "root" / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(library.full.read_bytes())
        loads, more = loaded(library.full, base, path)
        core.loads = [*core.loads, *loads]
        rows += more
    core.notes = core.files(*rows) + core.auxv((9, bases["/bin/program"] + 0x1000))
    with open_bytes(core.build(), tmp_path, options(tmp_path / "root")) as source:
        assert [m.path for m in source.modules()] == list(paths)
        assert [s.module for s in source.symbols("main_arena")] == [paths[3], paths[0]]
        for path in (paths[3], paths[0]):
            (tmp_path / "root" / path[1:]).write_bytes(library.stripped.read_bytes())
    with open_bytes(core.build(), tmp_path, options(tmp_path / "root")) as source:
        assert [s.module for s in source.symbols("main_arena")] == [paths[2], paths[1]]


def test_the_program_may_be_somewhere_else(library: Library, tmp_path: Path) -> None:
    core = Core()
    core.loads, rows = loaded(library.full, path="/bin/program")
    core.notes = core.files(*rows) + core.auxv((9, BASE + 0x1000))
    said = OpenOptions(exe=str(library.full), sysroot="/nonexistent", debug_dirs=())
    with open_bytes(core.build(), tmp_path, said) as source:
        assert [m.file for m in source.modules()] == [str(library.full)]
    wrong = OpenOptions(exe=str(library.other), sysroot="/nonexistent", debug_dirs=())
    with open_bytes(core.build(), tmp_path, wrong) as source:
        assert [m.file for m in source.modules()] == [""]
        assert str(library.other) in source.warnings[-1]


# --- bytes of a module -----------------------------------------------------------------------


def test_the_banner_is_found_in_the_file_and_else_in_memory(
    library: Library, tmp_path: Path
) -> None:
    root = library.in_root(tmp_path, library.stripped)
    text = b"GNU C Library (Tests) stable release version 2.99."
    with core_of(library.full, tmp_path, options(root)) as source:
        (module,) = source.modules()
        assert source.file_bytes(module, b"GNU C Library (", len(text)) == text
        assert source.file_bytes(module, b"not in there", 10) is None
    with core_of(library.full, tmp_path, NOWHERE) as source:
        (module,) = source.modules()
        assert source.file_bytes(module, b"GNU C Library (", 64) is None  # left out
    core = Core()
    core.loads, rows = loaded(library.full)
    core.loads = [  # a core of everything
        Load(x.start, library.full.read_bytes()[row[2] :][: x.size], x.size, x.perms)
        for x, row in zip(core.loads, rows)
    ]
    core.notes = core.files(*rows)
    with open_bytes(core.build(), tmp_path, NOWHERE) as source:
        (module,) = source.modules()
        assert source.file_bytes(module, b"GNU C Library (", len(text)) == text
        assert source.file_bytes(module._replace(base=1), b"GNU C", 4) is None


# --- names from the linker's chain -----------------------------------------------------------


def linked_core(library: Library, abi: str = "x86_64") -> Core:
    """A core without NT_FILE: a program whose DT_DEBUG leads to a chain of two."""
    core = Core(abi)
    word, at = core.word, 0x40_0000
    phdr = at + 64
    rows = core.pack("IIQQQQQQ", 6, 4, 0, 64, 0, 0, 0, 8) + core.pack(
        "IIQQQQQQ", 2, 6, 0, 0x200, 0, 0, 0, 8
    )
    rows += core.pack("IIQQQQQQ", 1, 4, 0, 0, 0, PAGE, PAGE, PAGE)
    page = bytearray(PAGE)
    page[:64] = Core(abi, type=3).file_header(3, 0)
    page[64 : 64 + len(rows)] = rows
    dynamic = core.pack("WWWWWW", 1, 1, 21, at + 0x300, 0, 0)
    page[0x200 : 0x200 + len(dynamic)] = dynamic
    page[0x300 : 0x300 + 2 * word] = core.pack("WW", 1, at + 0x400)
    page[0x400:0x420] = core.pack("WWWW", at, at + 0x500, 0, at + 0x440)
    page[0x440:0x460] = core.pack("WWWW", BASE, at + 0x510, 0, at + 0x440)  # a loop
    page[0x510 : 0x510 + len(PATH)] = PATH.encode()
    page[0x600:0x60C] = b"/bin/program"
    loads, _ = loaded(library.full)
    core.loads = [Load(at, bytes(page)), *loads]
    core.notes = core.auxv((3, phdr), (5, 3), (9, at), (31, at + 0x600))
    return core


def test_names_come_from_the_linker_where_the_core_has_none(
    library: Library, tmp_path: Path
) -> None:
    root = library.in_root(tmp_path, library.full)
    with open_bytes(linked_core(library).build(), tmp_path, options(root)) as source:
        assert [(m.path, m.base, bool(m.file)) for m in source.modules()] == [
            ("/bin/program", 0x40_0000, False),
            (PATH, BASE, True),
        ]
        assert [s.module for s in source.symbols("main_arena")] == [PATH]


@pytest.mark.parametrize("auxv", [(), ((3, 0x1234), (5, 2)), ((3, 0x400040), (5, 1))])
def test_without_the_chain_a_module_is_named_by_its_address(
    auxv: tuple[tuple[int, int], ...], library: Library, tmp_path: Path
) -> None:
    core = linked_core(library)
    core.notes = core.auxv(*auxv)
    with open_bytes(core.build(), tmp_path, NOWHERE) as source:
        _, module = source.modules()
        assert (module.path, module.build_id) == (f"[{BASE:#x}]", BUILD_ID)


# --- tables ----------------------------------------------------------------------------------


def header_of(abi: str) -> Header:
    return read_header(Core(abi).build())


@pytest.mark.parametrize("abi", SHAPES)
def test_symbol_tables_of_both_word_sizes_and_byte_orders(abi: str) -> None:
    core = Core(abi)
    names = b"?" * 5 + b"\0one\0two\0tail_two\0three@@V_1\0one\0"

    def entry(name: bytes, value: int, kind: int = 1, section: int = 3, skip: int = 0) -> bytes:
        at = -1
        for _ in range(skip + 1):
            at = names.index(name, at + 1)
        if core.word == 8:
            return core.pack("IBBHQQ", at - 5, kind, 0, section, value, 16)
        return core.pack("IIIBBH", at - 5, value, 16, kind, 0, section)

    rows = [
        entry(b"\0", 0),
        entry(b"one\0", 0x100),
        entry(b"two\0", 0x200, 6),
        entry(b"two\0", 0x250, 6, skip=1),  # the end of "tail_two", as linkers merge them
        entry(b"three", 0x300),
        entry(b"one\0", 0x400, skip=1),
        entry(b"one\0", 0x500, section=0),  # only wanted there
        entry(b"one\0", 0x600, 4),  # a file's name
    ]
    table = SymbolTable(
        memoryview(b"".join(rows) + b"rest"), names, (5, len(names)), header_of(abi)
    )
    assert sorted(table.find("one")) == [(0x100, 16, 1), (0x400, 16, 1)]
    assert sorted(table.find("two")) == [(0x200, 16, 6), (0x250, 16, 6)]
    assert table.find("three") == [(0x300, 16, 1)]
    assert table.find("tail_two") == []
    assert table.find("hree") == []


def test_a_name_that_stands_everywhere_is_bounded() -> None:
    names = b"\0" + b"a\0" * 9000
    rows = b"".join(struct.pack("<IBBHQQ", 1 + 2 * n, 1, 0, 1, n, 0) for n in range(9000))
    table = SymbolTable(memoryview(rows), names, (0, len(names)), header_of("x86_64"))
    assert len(table.find("a")) == MOST_FOUND


def test_every_symbol_is_found_as_pyelftools_finds_it(library: Library) -> None:
    found = read_tables(library.full.read_bytes())
    assert [how for how, _ in found] == ["symbol", "dynsym"]
    with open(library.full, "rb") as stream:
        symbols = list(ELFFile(stream).get_section_by_name(".symtab").iter_symbols())
    names = {s.name for s in symbols if s.name}
    for name in names:
        expected = {
            s["st_value"]
            for s in symbols
            if s.name == name
            and s["st_shndx"] != "SHN_UNDEF"
            and s["st_info"]["type"] not in ("STT_FILE", "STT_SECTION")
        }
        assert {entry.value for entry in found[0].table.find(name)} == expected
    assert len(names) > 5


def test_a_damaged_file_has_symbols_or_none_and_no_traceback(library: Library) -> None:
    whole = library.full.read_bytes()
    with open(library.full, "rb") as stream:
        sections = ELFFile(stream)["e_shoff"]
    for at in [*range(4, 64), *range(sections, len(whole), 3)]:
        for value in (0, 0xFF):
            data = whole[:at] + bytes([value]) + whole[at + 1 :]
            for _, table in read_tables(data):
                table.find("main_arena")
    for length in range(0, len(whole), 97):
        for _, table in read_tables(whole[:length]):
            table.find("main_arena")


def test_every_abi_has_its_word_and_order() -> None:
    for abi, (_, word, order) in MACHINES.items():
        assert header_of(abi).machine == (abi, word, order)


def test_symbols_by_address(library: Library, tmp_path: Path) -> None:
    root = library.in_root(tmp_path, library.full)
    with core_of(library.full, tmp_path, options(root)) as source:
        where = BASE + library.value("main_arena")
        arena = Symbol("main_arena", where, 32, "symbol", PATH)
        assert source.symbol_at(where) == source.symbol_at(where + 31) == arena
        assert source.symbol_at(where + 32) != arena
        assert source.symbol_at(BASE - 1) is None
        assert source.symbol_at(1 << 62) is None
        assert source.frame_at(1, where) == ""


@pytest.mark.parametrize("abi", SHAPES)
def test_symbols_of_a_table_by_their_addresses(abi: str) -> None:
    core = Core(abi)
    names = b"\0one\0two@@V2\0three\0tls\0"
    rows = b""
    for name, value, size, kind in (
        *((b"three", 0x3000, 0, 1), (b"one", 0x1000, 0x10, 1), (b"two", 0x1010, 0x20, 2)),
        (b"tls", 0x1000, 0x1000, 6),
    ):
        at = names.index(name)
        if core.word == 8:
            rows += core.pack("IBBHQQ", at, kind, 0, 3, value, size)
        else:
            rows += core.pack("IIIBBH", at, value, size, kind, 0, 3)
    index = Nearest(SymbolTable(memoryview(rows), names, (0, len(names)), header_of(abi)))
    assert index.find(0x1000) == index.find(0x100F) == ("one", 0x1000, 0x10)
    assert index.find(0x1010) == index.find(0x102F) == ("two", 0x1010, 0x20)
    assert index.find(0x1030) is None
    assert index.find(0x2FFF) is None
    assert index.find(0x3000) == index.find(0x3000 + 0x8000) == ("three", 0x3000, 0)
    assert index.find(0x3000 + 0x20000) is None
    assert index.find(0) is None

"""What the tests' C library is, and how it is put into a core as if it had been loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from elftools.elf.elffile import ELFFile

from .build import PAGE, Load

SOURCE = """
static long main_arena[4] = {1, 2, 3, 4};
static __thread void *volatile tcache;
static __thread void *volatile thread_arena;
const char banner[] = "GNU C Library (Tests) stable release version 2.99.\\n";
long *visible(void) { tcache = main_arena; thread_arena = main_arena; return main_arena; }
"""
BUILD_ID = "1122334455667788"
BASE = 0x7F00_0000_0000
PATH = "/usr/lib/libc.so.6"  # as the target names it


class Library:
    """The files: with .symtab, stripped, debug file, and so on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.full = folder / "full.so"
        self.stripped = folder / "stripped.so"
        self.debug = folder / "full.debug"
        self.other = folder / "other.so"  # the same code, another build id
        self.nameless = folder / "nameless.so"  # no build id
        self.nameless_debug = folder / "nameless.debug"
        self.linked = folder / "linked.so"  # stripped, no build id, .gnu_debuglink
        self.mini = folder / "mini.so"  # stripped, .gnu_debugdata

    def value(self, name: str) -> int:
        """Return st_value, as pyelftools reads it."""
        with open(self.full, "rb") as stream:
            table = ELFFile(stream).get_section_by_name(".symtab")
            return int(table.get_symbol_by_name(name)[0]["st_value"])

    def debug_dir(self, folder: Path, build_id: str = BUILD_ID) -> Path:
        """Make a folder with the debug file under its build id."""
        place = folder / "debug" / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(self.debug.read_bytes())
        return folder / "debug"

    def in_root(self, folder: Path, form: Path) -> Path:
        """Make a root directory that has one of the forms at PATH."""
        place = folder / "root" / PATH[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(form.read_bytes())
        return folder / "root"


def loaded(
    file: Path, base: int = BASE, path: str = PATH, headers: bool = True
) -> tuple[list[Load], list[tuple[int, int, int, str]]]:
    """Return segments and NT_FILE rows, as the kernel dumps them by default.

    Read-only pages are left out, but (*headers*) the first one; writable ones are there.
    """
    loads, rows = [], []
    with open(file, "rb") as stream:
        for segment in ELFFile(stream).iter_segments("PT_LOAD"):
            low = segment["p_vaddr"] & -PAGE
            high = (segment["p_vaddr"] + segment["p_memsz"] + PAGE - 1) & -PAGE
            offset = segment["p_offset"] & -PAGE
            perms = "".join(c if segment["p_flags"] & b else "-" for c, b in zip("rwx", (4, 2, 1)))
            data = file.read_bytes()[offset : offset + high - low]
            if "w" not in perms:
                data = data[:PAGE] if headers and not offset else b""
            loads.append(
                Load(
                    base + low,
                    data.ljust(high - low if "w" in perms else 0, b"\0"),
                    high - low,
                    perms,
                )
            )
            rows.append((base + low, base + high, offset, path))
    return loads, rows


def end_of(loads: Sequence[Load]) -> int:
    return max(load.start + (load.size or 0) for load in loads)

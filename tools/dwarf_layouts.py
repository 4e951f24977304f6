"""Structs and symbols of the allocator, as a C library's debug file describes them.

Only the unit of malloc.c is read whole; units before it are looked at by name. A struct that it
only declares, as struct pthread may be, is looked for in the units of the thread library.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from elftools.common.exceptions import DWARFError, ELFError
from elftools.dwarf.dwarf_expr import DWARFExprParser
from elftools.elf.elffile import ELFFile

NOTE = ".note.gnu.build-id"
MALLOC = "malloc.c"
# Name in DWARF, struct tag or typedef -> ours.
STRUCTS = {
    "malloc_chunk": "malloc_chunk",
    "malloc_state": "malloc_state",
    "malloc_par": "malloc_par",
    "_heap_info": "heap_info",
    "tcache_perthread_struct": "tcache_perthread_struct",
    "tcache_entry": "tcache_entry",
    "pthread": "pthread",
    "tcbhead_t": "tcbhead_t",
}
ELSEWHERE = frozenset({"pthread", "tcbhead_t"})  # not the allocator's; same name in both
# Units that have them whole: each handles its own thread.
THREAD_UNITS = frozenset({"pthread_create.c", "libc-start.c", "dl-tls.c", "rtld.c"})
EXPANDED = frozenset({"header"})  # members of struct pthread whose own members are wanted
STRUCT, UNION, TYPEDEF = "DW_TAG_structure_type", "DW_TAG_union_type", "DW_TAG_typedef"
TRANSPARENT = frozenset({TYPEDEF, *(f"DW_TAG_{n}_type" for n in ("const", "volatile", "atomic"))})
POINTERS = frozenset({"DW_TAG_pointer_type", "DW_TAG_reference_type"})
VARIABLE = re.compile(r"[A-Za-z_]\w*")  # arm's mapping symbols begin with a $
NO_VARIABLES = frozenset({"__PRETTY_FUNCTION__", "__func__"})
MAX_DEPTH = 64  # of types of types; DWARF that goes deeper is damaged


class NoLayout(Exception):
    """A debug file that does not say what it should; one line."""


class Member(NamedTuple):
    """A field of a struct."""

    name: str
    offset: int  # bytes from the struct's start
    size: int  # bytes of one element
    length: int = 1  # elements; 0: an array without any
    bits: tuple[int, int] | None = None  # first bit, counted from *offset*, and how many


class Shape(NamedTuple):
    """A struct."""

    size: int
    members: tuple[Member, ...]


class Symbol(NamedTuple):
    """A static variable of malloc.c."""

    size: int
    kind: str  # "OBJECT" or "TLS"
    section: str  # ".data", ".bss", ".tbss"


class Description(NamedTuple):
    """What a C library's debug file says."""

    build_id: str
    machine: str
    word: int
    order: str
    structs: Mapping[str, Shape]
    symbols: Mapping[str, Symbol]


def describe(library: Path, loader: Path, debug_dir: Path) -> Description:
    """Read the debug file of a library, which is found by build id.

    Struct pthread and tcbhead_t may be in the dynamic loader's only.

    :raises NoLayout: if there is none, or the allocator is not in it.
    """
    with _debug_file(library, debug_dir) as (build_id, elf):
        structs = read_structs(_dwarf(elf, debug_dir))
        said = (
            elf.header["e_machine"],
            elf.elfclass // 8,
            "little" if elf.little_endian else "big",
        )
        symbols = dict(read_symbols(elf))
    missing = set(STRUCTS.values()) - structs.keys()
    if missing and missing <= ELSEWHERE:
        with _debug_file(loader, debug_dir) as (_, elf):
            structs = {**read_structs(_dwarf(elf, debug_dir)), **structs}
        missing -= structs.keys()
    if missing:
        raise NoLayout(f"{library}: expected {', '.join(sorted(missing))} in its debug file")
    return Description(build_id, *said, structs, symbols)


@contextlib.contextmanager
def _debug_file(library: Path, debug_dir: Path) -> Iterator[tuple[str, Any]]:
    """Open the debug file of a library; what is wrong in it becomes a NoLayout."""
    try:
        with library.open("rb") as stream:
            build_id = read_build_id(ELFFile(stream))
        path = debug_dir / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
        if not path.is_file():
            raise NoLayout(f"{path} is missing: expected the debug file of {library}")
        with contextlib.closing(ELFFile.load_from_path(str(path))) as elf:
            if not any(map(elf.get_section_by_name, (".debug_info", ".zdebug_info"))):
                raise NoLayout(f"{path}: expected DWARF")
            yield build_id, elf
    except (ELFError, DWARFError, KeyError) as error:
        raise NoLayout(f"{library} and its debug file: {error or type(error).__name__}") from None


def _dwarf(elf: Any, debug_dir: Path) -> Any:
    """Return a file's DWARF, with that of the file into which dwz moved what several share.

    pyelftools opens that file only below the first one's folder, where dwz never puts it.
    """
    dwarf = elf.get_dwarf_info(follow_links=False)
    link = elf.get_section_by_name(".gnu_debugaltlink")
    if link is not None:
        name = link.data().partition(b"\0")[0].decode(errors="replace")
        path = (Path(elf.stream.name).parent / name).resolve()
        if debug_dir.resolve() not in path.parents or not path.is_file():
            raise NoLayout(f"{path} is missing: expected under {debug_dir} what dwz made common")
        common = ELFFile(io.BytesIO(path.read_bytes()))
        dwarf.supplementary_dwarfinfo = common.get_dwarf_info(follow_links=False)
    return dwarf


def read_build_id(elf: Any) -> str:
    """Return an ELF file's build id in hexadecimal.

    :raises NoLayout: if it has none.
    """
    section = elf.get_section_by_name(NOTE)
    for note in section.iter_notes() if section is not None else ():
        if note["n_type"] == "NT_GNU_BUILD_ID":
            return str(note["n_desc"])
    raise NoLayout(f"expected a section {NOTE} with a build id")


# --- symbols ------------------------------------------------------------------------------------


def read_symbols(elf: Any) -> Iterator[tuple[str, Symbol]]:
    """Yield malloc.c's own variables from .symtab: local symbols after their file's name."""
    table = elf.get_section_by_name(".symtab")
    if table is None:
        return
    source = ""
    found: dict[str, Symbol] = {}
    for row in table.iter_symbols():
        kind, binding = row["st_info"]["type"], row["st_info"]["bind"]
        if kind == "STT_FILE":
            source = row.name
        elif binding == "STB_LOCAL" and source == MALLOC and kind in ("STT_OBJECT", "STT_TLS"):
            home = row["st_shndx"]
            name = re.sub(r"\.\d+$", "", row.name)  # the compiler numbers statics of functions
            if isinstance(home, int) and VARIABLE.fullmatch(name) and name not in NO_VARIABLES:
                section = elf.get_section(home).name
                found[name] = Symbol(row["st_size"], kind[len("STT_") :], section)
    yield from sorted(found.items())


# --- structs ------------------------------------------------------------------------------------


def read_structs(dwarf: Any) -> dict[str, Shape]:
    """Return the structs of STRUCTS by our name; those that are nowhere whole are left out."""
    found: dict[str, Shape] = {}
    asked: set[str] = set()
    for unit in dwarf.iter_CUs():
        source = _name(unit.get_top_DIE()).rpartition("/")[2]
        if source == MALLOC:
            found = {**found, **_structs_of(unit, set(STRUCTS) - found.keys())}
            asked.add(MALLOC)
        elif source in THREAD_UNITS:
            found = {**_structs_of(unit, set(ELSEWHERE) - found.keys()), **found}
        if MALLOC in asked and found.keys() >= set(STRUCTS.values()):
            break
    return found


def _structs_of(unit: Any, wanted: set[str]) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    for die in _top_level(unit):
        if die.tag not in (STRUCT, TYPEDEF) or _name(die) not in wanted:
            continue
        struct = die if die.tag == STRUCT else _type_of(die)
        if struct is not None and struct.tag == STRUCT and not _has(struct, "DW_AT_declaration"):
            found.setdefault(STRUCTS[_name(die)], _shape(struct))
    return found


def _top_level(unit: Any) -> Iterator[Any]:
    """Yield what a unit declares, with the partial units that it imports."""
    waiting, seen = [unit.get_top_DIE()], set()
    while waiting:
        top = waiting.pop()
        if top.offset in seen:
            continue
        seen.add(top.offset)
        for die in top.iter_children():
            if die.tag == "DW_TAG_imported_unit":
                waiting.append(die.get_DIE_from_attribute("DW_AT_import"))
            else:
                yield die


def _shape(struct: Any) -> Shape:
    return Shape(_value(struct, "DW_AT_byte_size"), tuple(_members(struct, 0, "", 0)))


def _members(struct: Any, base: int, prefix: str, depth: int) -> Iterator[Member]:
    """Yield the members; those of one without a name are the struct's own."""
    if depth > MAX_DEPTH:
        raise NoLayout(f"struct at {struct.offset:#x}: nested deeper than {MAX_DEPTH}")
    for die in struct.iter_children():
        if die.tag != "DW_TAG_member":
            continue
        name = _name(die)
        offset = base + _offset(die)
        inner = _type_of(die)
        nested = inner is not None and inner.tag in (STRUCT, UNION)
        if nested and not name:
            yield from _members(inner, offset, prefix, depth + 1)
        elif nested and name in EXPANDED:
            yield from _members(inner, offset, f"{prefix}{name}.", depth + 1)
        elif name:
            size, count = _extent(inner)
            yield Member(prefix + name, offset, size, count, _bits(die, offset - base))


def _offset(member: Any) -> int:
    """Return a member's offset in bytes; those of a union have none."""
    if not _has(member, "DW_AT_data_member_location"):
        return _value(member, "DW_AT_data_bit_offset", 0) // 8
    location = member.attributes["DW_AT_data_member_location"].value
    if isinstance(location, int):
        return location
    operation = DWARFExprParser(member.cu.structs).parse_expr(location)[0]
    if operation.op_name != "DW_OP_plus_uconst":
        raise NoLayout(f"member at {member.offset:#x}: expected an offset, found {operation}")
    return int(operation.args[0])


def _bits(member: Any, offset: int) -> tuple[int, int] | None:
    """Return a bit field's first bit and length, None for another member."""
    if not _has(member, "DW_AT_bit_size"):
        return None
    length = _value(member, "DW_AT_bit_size")
    if not _has(member, "DW_AT_bit_offset"):
        return (_value(member, "DW_AT_data_bit_offset", 8 * offset) - 8 * offset, length)
    # DWARF 2 to 4 may count from the most significant bit of the declared type
    from_top = _value(member, "DW_AT_bit_offset")
    if not member.cu.structs.little_endian:
        return (from_top, length)
    return (8 * _extent(_type_of(member))[0] - from_top - length, length)


def _extent(die: Any) -> tuple[int, int]:
    """Return the bytes of one element and how many elements a type has."""
    count = 1
    for _ in range(MAX_DEPTH):
        if die is None:
            return (0, count)
        if die.tag != "DW_TAG_array_type":
            break
        for part in die.iter_children():
            if part.tag == "DW_TAG_subrange_type":
                count *= _elements(part)
        die = _type_of(die)
    if die.tag in POINTERS and not _has(die, "DW_AT_byte_size"):
        return (die.cu["address_size"], count)
    return (_value(die, "DW_AT_byte_size"), count)


def _elements(subrange: Any) -> int:
    if _has(subrange, "DW_AT_count"):
        return _value(subrange, "DW_AT_count")
    if not _has(subrange, "DW_AT_upper_bound"):
        return 0
    last = _value(subrange, "DW_AT_upper_bound")
    # An array of no elements ends at -1, which some forms cannot say but as all ones.
    return 0 if last in (-1, (1 << 32) - 1, (1 << 64) - 1) else last + 1


def _type_of(die: Any) -> Any:
    """Return the type of a member, an array or a typedef, without names and qualifiers; or None."""
    for _ in range(MAX_DEPTH):
        if not _has(die, "DW_AT_type"):
            return None  # void
        die = die.get_DIE_from_attribute("DW_AT_type")
        if die.tag not in TRANSPARENT:
            return die
    raise NoLayout(f"type at {die.offset:#x}: expected an end within {MAX_DEPTH} steps")


def _has(die: Any, attribute: str) -> bool:
    return attribute in die.attributes


def _value(die: Any, attribute: str, default: int | None = None) -> int:
    if attribute not in die.attributes and default is not None:
        return default
    value = die.attributes[attribute].value
    if not isinstance(value, int):
        raise NoLayout(f"{attribute} at {die.offset:#x}: expected a number")
    return value


def _name(die: Any) -> str:
    attribute = die.attributes.get("DW_AT_name")
    return attribute.value.decode(errors="replace") if attribute is not None else ""

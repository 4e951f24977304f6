"""Make the small cores of fixtures/cores/foreign: programs on machines other than x86.

Each program of fixtures/programs runs on a real glibc under qemu's user mode. gdb stops it where
its heap is ready and writes the notes of a core (threads with their registers, auxiliary vector,
mapped files); the memory beside them is what a kernel would write: private memory that was written
to, and the first page of every file. For aarch64 the thread pointers are put in as the kernel does
it (NT_ARM_TLS); for 32-bit arm the kernel has no such note. Those of fixtures/cores/tagged are of
programs whose malloc tags memory, with the tags in their pointers. Beside each core lies a
``.json`` with what the program reported and where plain gdb finds main_arena, mp_ and each thread's
tcache.

Needs tools/fetch_cross.py, tools/fetch_runtimes.py --layouts and gdb-multiarch.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import shutil
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from make_cores import WORKSHOP, description, in_workshop

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "abis"), str(ROOT / "tests" / "live")]

from fetch_cross import MissingTool  # noqa: E402
from machines import MACHINES, Machine, build, run_gdb, served, to_heap_ready  # noqa: E402
from programs import (  # noqa: E402
    RUNTIMES,
    Case,
    MissingRuntime,
    Report,
    Runtime,
    find_runtime,
    read_report,
)
from tiny_debug import NOTE, debug_file  # noqa: E402

FOREIGN = ROOT / "fixtures" / "cores" / "foreign"
TAGGED = FOREIGN.with_name("tagged")
TAGGING_PROGRAMS = ("bins", "mmapped", "threads")
WANTED = {
    ("arm64", "2.41"): (
        "bins",
        "threads",
        "late",
        "bins-tagged",
        "mmapped-tagged",
        "threads-tagged",
    ),
    ("arm64", "2.44"): ("late",),
    ("arm64", "2.31"): ("threads",),
    ("armhf", "2.41"): ("bins", "threads", "late"),
    ("armhf", "2.44"): ("late",),
    ("armhf", "2.31"): ("threads",),
    ("riscv64", "2.41"): ("bins", "threads", "late"),
    ("riscv64", "2.44"): ("threads",),
    ("ppc64el", "2.41"): ("bins", "threads", "late"),
    ("ppc64el", "2.36"): ("threads",),
    ("s390x", "2.41"): ("bins", "threads", "late"),
    ("s390x", "2.36"): ("threads",),
}
# Notes that the kernel writes as well; gdb's registers of vectors and its own note are left out.
NT_PRSTATUS, NT_ARM_TLS, NT_ARM_TAGGED_ADDR_CTRL = 1, 0x401, 0x409
KEPT_NOTES = (NT_PRSTATUS, 3, 6, 0x46494C45)  # NT_PRPSINFO, NT_AUXV, NT_FILE
PT_LOAD, PT_NOTE = 1, 4
FLAGS = {"r": 4, "w": 2, "x": 1}


def notes_of(core: Path, said: Mapping[str, Any], arch: str) -> bytes:
    """The notes of gdb's core that are kept, with those of the thread pointers and of tags."""
    with core.open("rb") as stream:
        elf = ELFFile(stream)
        order = "<" if elf.little_endian else ">"
        segment = next(s for s in elf.iter_segments() if s["p_type"] == "PT_NOTE")
        data = segment.data()
        word = elf.elfclass // 8
    out = b""
    for name, kind, desc in _notes(data, order):
        if name != b"CORE\0" or kind not in KEPT_NOTES:
            continue
        out += _note(order, name, kind, desc)
        if kind == NT_PRSTATUS and arch == "arm64":
            tid = str(struct.unpack_from(order + "I", desc, 16 + 2 * word)[0])
            values = (NT_ARM_TLS, "pointers"), (NT_ARM_TAGGED_ADDR_CTRL, "tag_ctl")
            for number, key in values:
                out += _note(order, b"LINUX\0", number, struct.pack("<Q", said[key][tid]))
    return out


def _notes(data: bytes, order: str) -> Iterator[tuple[bytes, int, bytes]]:
    at = 0
    while at + 12 <= len(data):
        name_size, desc_size, kind = struct.unpack_from(order + "3I", data, at)
        name = data[at + 12 : at + 12 + name_size]
        desc_at = at + 12 + (name_size + 3 & -4)
        yield name, kind, data[desc_at : desc_at + desc_size]
        at = desc_at + (desc_size + 3 & -4)


def _note(order: str, name: bytes, kind: int, desc: bytes) -> bytes:
    head = struct.pack(order + "3I", len(name), len(desc), kind)
    return head + name + bytes(-len(name) % 4) + desc + bytes(-len(desc) % 4)


def compose(
    core: Path, notes: bytes, mappings: Sequence[Mapping[str, Any]], memory: bytes
) -> bytes:
    """A core with the ELF header of gdb's, these notes and this memory."""
    with core.open("rb") as stream:
        elf = ELFFile(stream)
        wide, order = elf.elfclass == 64, "<" if elf.little_endian else ">"
        flags = elf.header["e_flags"]
        stream.seek(0)
        start = stream.read(20)  # e_ident, e_type (ET_CORE), e_machine
    head, row = (64, 56) if wide else (52, 32)
    offset = head + row * (len(mappings) + 1)
    rows = [_segment(wide, order, PT_NOTE, 0, offset, 0, len(notes), 0)]
    offset += len(notes)
    for mapping in mappings:
        bits = sum(FLAGS.get(letter, 0) for letter in mapping["perms"])
        size = mapping["end"] - mapping["start"]
        place = mapping["start"], offset, size, mapping["kept"]
        rows.append(_segment(wide, order, PT_LOAD, bits, offset, place[0], place[3], size))
        offset += mapping["kept"]
    form = order + ("I3QI6H" if wide else "I3II6H")
    rest = struct.pack(form, 1, 0, head, 0, flags, head, row, len(rows), 0, 0, 0)
    return b"".join([start, rest, *rows, notes, memory])


def _segment(
    wide: bool, order: str, kind: int, flags: int, offset: int, start: int, kept: int, size: int
) -> bytes:
    if wide:
        return struct.pack(order + "2I6Q", kind, flags, offset, start, 0, kept, size, 1)
    return struct.pack(order + "8I", kind, offset, start, 0, kept, size, flags, 1)


def thread_offsets(runtime: Runtime, build_id: str) -> dict[str, int]:
    """Where libc's TLS segment has `tcache` and `thread_arena`, by its debug file."""
    with debug_file(runtime.debug_dir, build_id).open("rb") as stream:
        symbols = ELFFile(stream).get_section_by_name(".symtab")
        return {
            row.name: row["st_value"]
            for row in symbols.iter_symbols()
            if row.name in ("tcache", "thread_arena") and row["st_info"]["type"] == "STT_TLS"
        }


def build_id_of(library: Path) -> str:
    """The build id of a library, in hex."""
    with library.open("rb") as stream:
        notes = ELFFile(stream).get_section_by_name(NOTE).iter_notes()
        return str(next(notes)["n_desc"])


def word_at(core: bytes, address: int) -> int:
    """The word at an address of a core."""
    elf = ELFFile(io.BytesIO(core))
    for segment in elf.iter_segments():
        start = segment["p_vaddr"]
        if segment["p_type"] == "PT_LOAD" and start <= address < start + segment["p_filesz"]:
            size = elf.elfclass // 8
            data = segment.data()[address - start :][:size]
            return int.from_bytes(data, "little" if elf.little_endian else "big")
    raise ValueError(f"the core does not have {address:#x}")


def found_by_gdb(
    machine: Machine, said: Mapping[str, Any], offsets: Mapping[str, int], core: bytes, r: Report
) -> Any:
    """main_arena, mp_ and each thread's tcache and thread_arena, without heapglass."""
    threads = []
    for thread in r.threads:
        tp = said["pointers"][str(thread.tid)]
        assert tp == thread.pointer, f"thread {thread.tid}: {tp:#x} is not {thread.pointer:#x}"
        block = tp + machine.tls + machine.tls_sign * said["l_tls_offset"]
        words = {name: hex(word_at(core, block + at)) for name, at in offsets.items()}
        threads.append({"id": thread.tid, "thread_pointer": hex(tp), **words})
    return {
        "main_arena": hex(said["main_arena"]),
        "mp_": hex(said["mp_"]),
        "threads": threads,
        **({"mtag_enabled": hex(said["mtag_enabled"])} if said["mtag_enabled"] else {}),
    }


def make(machine: Machine, runtime: Runtime, name: str) -> None:
    """Make one core and what lies beside it. A program's *name* may end in ``-tagged``."""
    program, _, tagged = name.partition("-")
    copied = in_workshop(runtime)
    built = build(copied, program, WORKSHOP / "programs")
    place = built.parent
    whole = place / "gdb.core"
    dump = [
        *("python", "import sys", f"sys.path.insert(0, {str(ROOT / 'tools')!r})"),
        *("from pathlib import Path", "from dump_in_gdb import dump"),
        *(f"dump(Path({str(place)!r}), {machine.arch!r})", "end"),
        f"generate-core-file {whole}",
    ]
    with served(machine, built, place / "report", place, bool(tagged)) as socket:
        run_gdb(place / "dump.gdb", [*to_heap_ready(copied, built, socket), *dump])
    report = read_report(place / "report")
    mappings = json.loads((place / "mappings.json").read_text())
    said = json.loads((place / "facts.json").read_text())
    notes = notes_of(whole, said, machine.arch)
    core = compose(whole, notes, mappings, (place / "memory.bin").read_bytes())
    build_id = build_id_of(copied.libdir / "libc.so.6")
    found = found_by_gdb(machine, said, thread_offsets(copied, build_id), core, report)
    stem = (TAGGED if tagged else FOREIGN) / f"{runtime.name}-{name}"
    packed = lzma.compress(core, preset=9 | lzma.PRESET_EXTREME)
    stem.with_name(stem.name + ".core.xz").write_bytes(packed)
    text = json.dumps(description(runtime, Case(program), build_id, report, found), indent=1)
    stem.with_name(stem.name + ".json").write_text(text + "\n")
    print(f"{stem.name}: {len(core):,} bytes, packed {len(packed):,}", flush=True)


def main() -> int:
    """Make them all; exit status 2 if this machine cannot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--runtimes", type=Path, default=RUNTIMES, help="folder of runtimes")
    parser.add_argument("names", nargs="*", help="cores to make, as 2.41-s390x-bins; else all")
    arguments = parser.parse_args()
    for folder in (FOREIGN, TAGGED):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        for (arch, glibc), programs in WANTED.items():
            for program in programs:
                if not arguments.names or f"{glibc}-{arch}-{program}" in arguments.names:
                    runtime = find_runtime(glibc, arch, arguments.runtimes)
                    make(MACHINES[arch], runtime, program)
    except (MissingRuntime, MissingTool) as error:
        print(error, file=sys.stderr)
        return 2
    shutil.rmtree(WORKSHOP, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

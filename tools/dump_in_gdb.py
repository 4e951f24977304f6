"""What gdb's own Python does for tools/make_foreign_cores.py: mappings, memory, facts, in files.

Runs inside gdb, without heapglass.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gdb

PAGE = 0x1000
MAPPING = re.compile(
    r"^\s*0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+([rwxps-]+) *(\S*)", re.M
)
POINTERS = {"arm64": "TPIDR_EL0", "armhf": "TPIDRURO", "riscv64": "tp", "ppc64el": "r13"}
MASK = (1 << 64) - 1


def dump(place: Path, arch: str) -> None:
    """Write ``mappings.json``, ``memory.bin`` and ``facts.json`` into a folder."""
    mappings = [keep(row) for row in mappings_of_process()]
    with (place / "memory.bin").open("wb") as file:
        for row in mappings:
            if row["kept"]:
                file.write(gdb.selected_inferior().read_memory(row["start"], row["kept"]))
    (place / "mappings.json").write_text(json.dumps(mappings))
    (place / "facts.json").write_text(json.dumps(facts(arch)))


def mappings_of_process() -> list[dict[str, Any]]:
    """Return the mappings, those that the emulator has split put together again."""
    rows: list[dict[str, Any]] = []
    for found in MAPPING.finditer(gdb.execute("info proc mappings", to_string=True)):
        start, end, offset = (int(found[n], 16) for n in (1, 2, 3))
        row = {"start": start, "end": end, "offset": offset, "perms": found[4], "path": found[5]}
        last = rows[-1] if rows else None
        if (
            last
            and not row["path"]
            and (last["end"], last["perms"], last["path"]) == (*(start, row["perms"], ""),)
        ):
            last["end"] = end
        else:
            rows.append(row)
    return rows


def keep(row: dict[str, Any]) -> dict[str, Any]:
    """Say how many bytes of a mapping the kernel would dump, by coredump_filter 0x11.

    What was written to, the part of a file that is read-only after relocation, and the page with
    a file's ELF header. The emulator's main stack is 8 MB from the start; a real one has grown to
    where it is used.
    """
    if row["path"] == "[stack]":
        sp = int(gdb.selected_frame().read_register("sp")) & MASK
        row["start"] = max(row["start"], (sp & -PAGE) - 2 * PAGE)
    size = row["end"] - row["start"]
    private_file = row["path"].startswith("/")
    if "w" in row["perms"] or (private_file and row["perms"].startswith("r--") and row["offset"]):
        row["kept"] = size
    elif private_file and not row["offset"]:
        row["kept"] = PAGE
    else:
        row["kept"] = 0
    return row


def facts(arch: str) -> dict[str, Any]:
    """Return addresses that gdb knows by debug information, and each thread's pointer."""
    loaded = gdb.parse_and_eval("_rtld_global._dl_ns[0]._ns_loaded")
    while not loaded["l_name"].string().endswith("libc.so.6"):
        loaded = loaded["l_next"]
    return {
        "main_arena": at("(unsigned long)&main_arena"),
        "mp_": at("(unsigned long)&mp_"),
        "mtag_enabled": at("(unsigned long)&mtag_enabled") if tags(arch) else 0,
        "l_tls_offset": int(loaded["l_tls_offset"]),
        "tag_ctl": {str(thread.ptid[1]): tag_control(thread, arch) for thread in threads()},
        "pointers": {str(thread.ptid[1]): pointer(thread, arch) for thread in threads()},
    }


def tags(arch: str) -> bool:
    """Whether malloc tags memory."""
    known = gdb.lookup_static_symbol("mtag_enabled") if arch == "arm64" else None
    return known is not None and bool(known.value())


def at(expression: str) -> int:
    """Return a number that gdb evaluates."""
    return int(gdb.parse_and_eval(expression)) & MASK


def threads() -> list[Any]:
    """Return the threads by id."""
    return sorted(gdb.selected_inferior().threads(), key=lambda thread: int(thread.ptid[1]))


def tag_control(thread: Any, arch: str) -> int:
    """Return what a thread has asked the kernel about tags; 0 where there is no such thing."""
    thread.switch()
    return int(gdb.newest_frame().read_register("tag_ctl")) if arch == "arm64" else 0


def pointer(thread: Any, arch: str) -> int:
    """Return a thread's pointer, from its registers."""
    thread.switch()
    frame = gdb.newest_frame()
    if arch == "s390x":
        high, low = (int(frame.read_register(name)) & 0xFFFFFFFF for name in ("acr0", "acr1"))
        return high << 32 | low
    mask = MASK if arch != "armhf" else 0xFFFFFFFF
    return int(frame.read_register(POINTERS[arch])) & mask

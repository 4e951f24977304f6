"""Real heaps as they stood at the end of a recorded trace, and what the program still held."""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heapglass.glibc.layout import Layout, layout_for
from heapglass.glibc.releases import parse_version
from heapglass.heap.heap import Heap
from heapglass.heap.target import HeapThread, Place, Target
from heapglass.memory import ByteMemory, Region

TRACES = Path(__file__).resolve().parents[2] / "fixtures" / "traces"
RELEASES = sorted((path.name for path in TRACES.iterdir()), key=lambda name: int(name[2:]))


@dataclass
class Recorded:
    """A heap at the end of a trace, and the pointers that its program had not freed."""

    layout: Layout
    heap: Heap
    live: dict[int, int]  # mem to request
    header: dict[str, Any]


def load(release: str, name: str) -> Recorded:
    """Load the heap of a recording, with its tcache where one is found by its chunk."""
    folder = TRACES / release
    lines = _unpack(folder / f"{name}.jsonl.xz").decode("ascii").splitlines()
    header = json.loads(lines[0])
    layout = layout_for(parse_version(header["glibc"]))
    base, arena = int(header["heap_base"], 16), int(header["main_arena"], 16)
    heap_bytes = _unpack(folder / f"{name}.heap.xz")
    arena_bytes = _unpack(folder / f"{name}.arena.xz")
    mp_address = arena - 0x900
    memory = ByteMemory(
        {base: heap_bytes, mp_address: _mp(layout, base), arena: arena_bytes},
        [
            Region(base, base + len(heap_bytes)),
            Region(mp_address, arena + len(arena_bytes), "rw-", "/libc"),
        ],
    )
    live = _live(lines[1:])
    target = Target(memory, layout, Place(arena, "user"), Place(mp_address, "user"))
    tcache = _tcache(layout, memory, base, len(heap_bytes), set(live))
    state = "active" if tcache else "none"
    target.threads = [
        HeapThread(1, tcache=tcache, tcache_state=state, arena=arena, arena_known=True)
    ]
    return Recorded(layout, Heap(target), live, header)


def _unpack(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes())


def _mp(layout: Layout, base: int) -> bytes:
    """Return the mp_ of an untuned process, which the recordings leave out."""
    struct = layout.structs["malloc_par"]
    data = bytearray(struct.size)
    values = {
        "sbrk_base": base,
        "tcache_count": layout.constants.get("TCACHE_FILL_COUNT", 0),
        "tcache_max_bytes": layout.tcache_default_max + 1 if layout.has("tcache") else 0,
    }
    for name, value in values.items():
        if name in struct:
            field = struct.fields[name]
            data[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
    return bytes(data)


def _live(lines: list[str]) -> dict[int, int]:
    live: dict[int, int] = {}
    for line in lines:
        call = json.loads(line)
        pointer = int(call.get("ptr") or "0", 16)
        if call["op"] == "free":
            live.pop(pointer, None)
        elif call["op"] in ("malloc", "calloc", "memalign", "realloc"):
            if call["op"] == "realloc":
                live.pop(int(call["old"] or "0", 16), None)
            if pointer:
                live[pointer] = call["size"] * call.get("nmemb", 1)
    return live


def _tcache(layout: Layout, memory: ByteMemory, base: int, size: int, live: set[int]) -> int | None:
    """Return the tcache: the one chunk of its size that the program does not hold."""
    if not layout.has("tcache"):
        return None
    sizes = {layout.request2size(layout.tcache.size) + extra for extra in (0, layout.alignment)}
    chunk, found = base, []
    while chunk < base + size:
        here = int.from_bytes(memory.read(chunk + 8, 8), "little") & ~7
        if here in sizes and chunk + 16 not in live:
            found.append(chunk + 16)
        chunk += here
        if not here:
            break
    slots = layout.tcache.fields.get("num_slots")
    count = layout.constants["TCACHE_FILL_COUNT"]
    for mem in found:
        numbers = memory.read(mem, 2 * (slots or layout.tcache.fields["counts"]).length)
        words = [int.from_bytes(numbers[i : i + 2], "little") for i in range(0, len(numbers), 2)]
        if slots is None or all(word <= count for word in words):
            return mem
    return None

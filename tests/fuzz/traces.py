"""Mutations of traces: lines, values, types, and writes that damage the model's heap."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

from .recipe import FIXTURES, Recipe, Splice, base_bytes

BASES = sorted(
    str(path.relative_to(FIXTURES).with_suffix(""))
    for path in (FIXTURES / "traces").glob("*/*.jsonl.xz")
)
OTHER_VALUES: tuple[Any, ...] = (
    *(None, True, [], {}, "", "0x", "x", -1, 0, 1, 1.5, 1e300, float("nan"), float("inf")),
    *(1 << 28, 1 << 63, (1 << 64) - 1, 1 << 64, 10**30, "0x7fffffffffffffff"),
    *("\x1b[2J\u202e\u2028", "\ud800", [[[[]]]], "é" * 40),
)
MOST_CALLS = 300  # of a base, that are kept: the model plays some ten thousand a second


def kept(base: str) -> int:
    """Return where the first MOST_CALLS lines end."""
    found = list(re.finditer(rb"\n", base_bytes(base)))
    return found[min(MOST_CALLS, len(found) - 1)].end()


def lines_of(data: bytes) -> list[tuple[int, int]]:
    """Return start and end of each line, the newline included."""
    ends = [found.end() for found in re.finditer(rb"\n", data)]
    return list(zip([0, *ends], ends))


def changed_value(random: Random, line: bytes) -> bytes:
    """Give one member of a line another value, or take it out."""
    said = json.loads(line)
    key = random.choice(sorted(said))
    if random.random() < 0.2:
        del said[key]
    else:
        said[key] = random.choice(OTHER_VALUES)
    return json.dumps(said).encode() + b"\n"


def damaging_write(random: Random, line: bytes) -> bytes:
    """Return a line with a write behind it, into the chunk and what surrounds it."""
    said = json.loads(line)
    pointer = said.get("ptr")
    size = random.choice((1, 8, 16, 64))
    values = (random.randbytes(size), b"\0" * size, b"\xff" * size, b"\x21" + bytes(size - 1))
    made = {
        "op": "write",
        "ptr": pointer or "0x555555555010",
        "offset": random.choice((-16, -8, 0, 8, 16, 24, 4096, -4096, 1 << 40)),
        "bytes": random.choice(values).hex(),
    }
    return line + json.dumps(made).encode() + b"\n"


def odd_call(random: Random, line: bytes) -> bytes:
    """Return a line with a call behind it that nobody makes."""
    op = random.choice(("mallopt", "brk", "thread_start", "thread_exit", "memalign", "calloc"))
    size = random.choice((0, 1, 3, 1 << 20, 1 << 28, (1 << 64) - 1, (1 << 63) - 1))
    made = {
        "op": op,
        "param": random.choice(("M_MXFAST", "M_ARENA_MAX", "M_TOP_PAD", -8, 1 << 40, "?")),
        "value": random.choice((0, -1, 1 << 40, 1 << 63)),
        "delta": random.choice((0, -1, 4096, -4096, 1 << 30, 1 << 46, -(1 << 46))),
        "alignment": random.choice((0, 1, 3, 16, 4096, 1 << 40, 1 << 63)),
        "size": size,
        "nmemb": random.choice((0, 1, 1 << 20, 1 << 63)),
        "thread": random.choice((1, 2, 1000, 0, 1 << 63)),
    }
    return line + json.dumps(made).encode() + b"\n"


def odd_recording(random: Random, line: bytes) -> bytes:
    """Give a call what recordings of real processes add, or a thread's end step by step."""
    said = json.loads(line)
    places = ("0x0", "0x1000", "0x7ffff7d00000", "0x555555559000", "0xfffffffffffff000", "-0x1000")
    said["maps"] = [random.choice((None, *places)) for _ in range(random.choice((1, 3, 65)))]
    said["late"] = random.choice((True, 1))
    said["stack"] = random.choice((["0x1 main\x1b[2J"], [1], "x", [None]))
    if "size" in said:
        said["size"] = random.choice((said["size"], 1 << 20, 1 << 40))
    drain = {"op": "thread_drain", "ptr": random.choice(places), "thread": random.choice((1, 2, 9))}
    end = {"op": "thread_exit", "thread": 2}
    steps = random.choice(([], [drain], [drain, drain, end, said]))
    return b"".join(json.dumps(one).encode() + b"\n" for one in (said, *steps))


def broken_bytes(random: Random, line: bytes) -> bytes:
    """Damage the bytes of a line."""
    at = random.randrange(len(line))
    return line[:at] + random.randbytes(random.choice((1, 3))) + line[at + 1 :]


def deep(random: Random, line: bytes) -> bytes:
    """Return a line that is nested very deeply."""
    return random.choice((b"[", b'{"a":')) * 3000 + b"\n" + line


def odd_header(random: Random, line: bytes) -> bytes:
    """Give the header another value; meant for the first line."""
    said = json.loads(line)
    said.update(
        random.choice(
            (
                {"glibc": random.choice(("2.22", "9.99", "2.23\x1b[2J", "", "2", "2.x", 2.31))},
                {"abi": random.choice(("i386", "s390x", "vax", "\u202e", "", "aarch64", "arm"))},
                {"heap_base": random.choice(("0x1", "0xfffffffffffff000", 12345, "-0x1000"))},
                {"page_size": random.choice((0, 1, 3, 65536, 1 << 63, -4096, "4096"))},
                {"tunables": {"glibc.malloc.tcache_count": random.choice((-1, 1 << 40, "a", []))}},
                {"tunables": {"glibc.malloc.\x1b[2J": 1}},
                {"tunables": {"glibc.malloc.tcache_max": random.choice((1 << 40, -1, 4194304))}},
                {"tunables": {"glibc.malloc.arena_max": 0, "glibc.malloc.top_pad": 1 << 62}},
                {"maps": "recorded", "ncpu": random.choice((0, 1 << 40)), "fresh": False},
                {"maps": "recorded", "mmap_top": random.choice(("0x10", "0x7fffffffffff"))},
                {"main_arena": random.choice(("0x10", "0xffffffffffffffff", -1, None))},
            )
        )
    )
    return json.dumps(said).encode() + b"\n"


CHANGES: tuple[tuple[int, Callable[[Random, bytes], bytes]], ...] = (
    (4, changed_value),
    (4, damaging_write),
    (3, odd_call),
    (2, odd_recording),
    (1, broken_bytes),
    (1, deep),
    (1, lambda random, line: line + line),
    (1, lambda random, line: b""),
)


def trace_recipe(random: Random) -> Recipe:
    """Return a mutated trace."""
    base = random.choice(BASES)
    keep = kept(base)
    data = base_bytes(base)[:keep]
    lines = lines_of(data)
    splices = [Splice(keep, len(base_bytes(base)) - keep, "")]
    chosen = sorted(random.sample(range(len(lines)), random.choice((1, 2, 6))), reverse=True)
    weights = [weight for weight, _ in CHANGES]
    for number in chosen:
        start, end = lines[number]
        change = random.choices([one for _, one in CHANGES], weights)[0] if number else odd_header
        splices.append(Splice(start, end - start, change(random, data[start:end]).hex()))
    if random.random() < 0.2:
        first = odd_header(random, data[slice(*lines[0])])
        splices.append(Splice(0, lines[0][1], first.hex()))
    cut = random.choice((*[None] * 8, random.randrange(keep)))
    return Recipe(base, tuple(splices), cut, kinds=("trace",), address=0x555555555010)

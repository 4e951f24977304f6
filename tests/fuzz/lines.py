"""The command lines that every target is asked: all commands, and every example of their help."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from random import Random

from heapglass.commands import COMMANDS

# Beside the examples. A is an address in the target.
MORE = (
    "info --json",
    "arenas --json",
    "heaps --json",
    "chunks --all",
    "chunks --all --json",
    "chunks A 0xffffffffffffffff --limit 40",
    "chunks A --count 9 --back 9 --as-chunk",
    "chunks --sort -size --limit 9 --json",
    "chunk A",
    "chunk A --json",
    "chunk A --as-chunk",
    "bins --json",
    "bins --all --json",
    "tcache --json",
    "params --json",
    "mmapped --json",
    "find A --json",
    "find --into A --unaligned",
    "find --hex 'ff'",
    "whatis A",
    "whatis A --json",
    "link A --json",
    "size 100",
    "stats --json",
    "stats --malloc-info --json",
    "leaks --all --json",
    "leaks --interior any --content full",
    "refs A --json",
    "refs A --path",
    "refs A --tree --json",
    "types --all --json",
    "map --all --json",
    "map --columns 8",
    "chunks --format csv",
    "bins --format jsonl",
    "try 'free A; calloc 3 400; realloc A 4096' --then 'malloc 200000' --json",
    "try 'memalign 64 70000; malloc_trim; free A+16; write A ff; malloc 2000'",
    "verify --all --json",
    "check --all --json",
    "explain --json",
    "explain --message 'free(): invalid pointer' --json",
    "explain --message 'corrupted double-linked list'",
    "explain --message 'munmap_chunk(): invalid pointer'",
    "vis A 9",
    "vis --json",
)
TRACE_MORE = ("replay A --keep-going --json", "replay A --keep-going")
EXAMPLE_ADDRESS = re.compile(r"\b0x5{5,}[0-9a-f]*\b")


@lru_cache(maxsize=1)
def patterns() -> tuple[tuple[str, ...], ...]:
    """Return the words of every line, with A where an address of the target belongs."""
    examples = (text for command in COMMANDS for text in command.examples)
    made = (EXAMPLE_ADDRESS.sub("A", text) for text in (*examples, *MORE))
    return tuple(tuple(shlex.split(text)) for text in dict.fromkeys(made))


def chosen(some: int | None, seed: int) -> list[tuple[str, ...]]:
    """Return all patterns, or so many of them, each as likely as the others; info comes first."""
    first, *others = patterns()
    return [first, *(others if some is None else Random(seed).sample(others, some - 1))]


def lines(
    target: list[str], address: int, trace: bool, some: int | None = None, seed: int = 0
) -> Iterator[list[str]]:
    """Yield command lines; *target*: the words that name it and its files."""
    needs = {command.name: command.needs_target for command in COMMANDS}
    for name, *rest in chosen(some, seed):
        words = [hex(address) if word == "A" else word for word in rest]
        if needs[name]:
            yield [name, *target, *words]
        elif name == "size":
            yield [name, *words]
    if trace:
        for text in TRACE_MORE:
            yield [target[0] if word == "A" else word for word in text.split()]

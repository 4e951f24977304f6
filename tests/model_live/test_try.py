"""What `try` foretells is what the real process then does: every pointer of the next 20 calls."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from heapglass.analysis.calls import parse_calls
from heapglass.analysis.whatif import WhatIf
from heapglass.heap.heap import Heap

from .moves import Player
from .real import ARCHES, RELEASES, runtime

POINTS, CALLS, BETWEEN = 200, 20, 25
PROGRAMS = (
    {},
    {"tcache_count": 3, "mmap_threshold": 60000},
    {"tcache_count": 0, "mxfast": 80},
    {"arena_max": 2, "top_pad": 5000, "trim_threshold": 4000},
)
OPS = {
    "m": "malloc",
    "c": "calloc",
    "r": "realloc",
    "a": "memalign",
    "f": "free",
    "t": "malloc_trim",
}
Step = tuple[int, str, tuple[int, ...]]  # thread, op, arguments; a block by its place in the list


class Program:
    """A random program: what it holds, and what it does next."""

    def __init__(self, dice: random.Random, threads: int) -> None:
        self.dice, self.threads = dice, threads
        self.held = 0

    def size(self) -> int:
        """What a request may be: mostly small, now and then with a mapping of its own."""
        dice = self.dice
        most = dice.choice((200, 200, 1300, 1300, 9000, 9000, 70000, 70000, 600000))
        return dice.randrange(most)

    def steps(self, count: int) -> Iterator[Step]:
        """Yield the next steps."""
        dice = self.dice
        for _ in range(count):
            thread, kind = dice.randint(1, self.threads), dice.random()
            if self.held and kind < 0.42:
                self.held -= 1
                yield thread, "f", (dice.randint(0, self.held),)
            elif self.held and kind < 0.52:
                yield thread, "r", (dice.randrange(self.held), self.size() + 1)
            elif kind < 0.54:
                yield thread, "t", (dice.randrange(9000),)
            else:
                self.held += 1
                if kind < 0.62:
                    yield thread, "c", (1, self.size())
                elif kind < 0.68:
                    yield thread, "a", (1 << dice.randint(4, 13), self.size())
                else:
                    yield thread, "m", (self.size(),)


def text_of(steps: list[Step], blocks: list[int], ids: list[int]) -> str:
    """Return steps as a person would type them for `try`."""
    names, said = [f"{block:#x}" for block in blocks], []
    for number, (thread, op, arguments) in enumerate(steps, 1):
        words = [str(argument) for argument in arguments]
        if op in "fr":
            words[0] = names[arguments[0]]
        said.append(f"thread {ids[thread - 1]}: {OPS[op]} {' '.join(words)}")
        if op == "f":
            names.pop(arguments[0])
        elif op == "r":
            names[arguments[0]] = f"${number}"
        elif op != "t":
            names.append(f"${number}")
    return "; ".join(said)


def do(player: Player, steps: list[Step], blocks: list[int]) -> list[int]:
    """Let the process make the calls; what each returned, 0 for free."""
    answers = []
    for thread, op, arguments in steps:
        values = list(arguments)
        if op in "fr":
            values[0] = blocks[arguments[0]]
        answer = (player.call(thread, op, *values) or [0])[0]
        if op == "f":
            blocks.pop(arguments[0])
        elif op == "r":
            blocks[arguments[0]] = answer
        elif op != "t":
            blocks.append(answer)
        answers.append(answer)
    return answers


def compare(player: Player, program: Program, points: int) -> int:
    """Foretell and do, at so many points; how many calls were compared."""
    blocks: list[int] = []
    compared = 0
    target = player.find()
    for point in range(points):
        steps = list(program.steps(CALLS))
        ids = [thread.id for thread in target.threads]
        text = text_of(steps, blocks, ids)
        game = WhatIf(Heap(target))
        outcomes = game.run(parse_calls(text, lambda word: int(word, 0), []))
        assert [o.abort or o.fault for o in outcomes] == [None] * CALLS, (point, text)
        foretold = [outcome.value or 0 for outcome in outcomes]
        answers = do(player, steps, blocks)
        assert [*map(hex, foretold)] == [*map(hex, answers)], (point, text)
        compared += len(answers)
        do(player, list(program.steps(BETWEEN)), blocks)
        # After the first points the threads have their arenas and tcaches: those stay.
        target = player.find() if point < 2 else player.now()
    return compared


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("glibc", RELEASES)
def test_try_against_truth(glibc: str, arch: str) -> None:
    compared = 0
    for number, tunables in enumerate(PROGRAMS):
        threads = 1 + number % 3
        with Player(runtime(glibc, arch), tunables) as player:
            for thread in range(2, threads + 1):
                player.call(thread, "n")
            if number:  # else the first point is before there is a heap
                player.call(1, "m", 24)
            program = Program(random.Random(number), threads)
            compared += compare(player, program, POINTS // len(PROGRAMS))
    assert compared == POINTS * CALLS

"""A real process whose calls were noted: the model, playing them, has the same heap."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from heapglass.analysis.verify import cross_check, verify_trace
from heapglass.analysis.whatif import make_overlay
from heapglass.heap.heap import Heap
from heapglass.model.trace import Header, call_line, write_trace

from .moves import Player
from .real import ABI, ARCHES, RELEASES, runtime

CALLS = 500
TUNABLES = {"tcache_count": 4, "top_pad": 3000}


def play(player: Player, dice: random.Random) -> list[str]:
    """Make random calls; the lines of a trace of them."""
    lines, blocks = [], []
    for _ in range(CALLS):
        size, kind = dice.randrange(dice.choice((100, 1500, 9000, 60000))), dice.random()
        if blocks and kind < 0.45:
            block = blocks.pop(dice.randrange(len(blocks)))
            player.call(1, "f", block)
            lines.append(call_line("free", ptr=block))
        elif blocks and kind < 0.55:
            place = dice.randrange(len(blocks))
            old = blocks[place]
            (blocks[place],) = player.call(1, "r", old, size + 1)
            lines.append(call_line("realloc", old=old, size=size + 1, ptr=blocks[place]))
        elif kind < 0.65:
            alignment = 1 << dice.randint(4, 12)
            blocks.append(player.call(1, "a", alignment, size)[0])
            lines.append(call_line("memalign", alignment=alignment, size=size, ptr=blocks[-1]))
        else:
            blocks.append(player.call(1, "m", size)[0])
            lines.append(call_line("malloc", size=size, ptr=blocks[-1]))
    return lines


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("glibc", RELEASES)
def test_the_model_has_what_the_process_has(glibc: str, arch: str, tmp_path: Path) -> None:
    real, path = runtime(glibc, arch), tmp_path / "calls.jsonl"
    start = real.process(TUNABLES)
    with Player(real, TUNABLES) as player:
        lines = play(player, random.Random(glibc))
        heap = Heap(player.find())
        header = Header(
            *(glibc, ABI[arch], start.brk, 4096, TUNABLES),
            main_arena=start.symbols["main_arena"],
        )
        with path.open("w") as file:
            write_trace(file, header, lines)
        found = verify_trace(str(path), heap)
        crossed = cross_check(heap, make_overlay(heap, heap.target.threads))

    assert found.differences == []
    assert found.compared["calls"] == CALLS
    assert found.compared["chunks"] > 60
    assert crossed.differences == []
    assert crossed.compared["chunks in bins"] > 10

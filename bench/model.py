"""How many calls of malloc and free the model makes in a second, release by release."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from heapglass.model import Allocator

RELEASES = ("2.23", "2.31", "2.36", "2.41", "2.43", "2.44")
CALLS = 60_000


def calls_a_second(glibc: str, calls: int = CALLS) -> float:
    """Mix malloc and free evenly, most blocks small, a tenth of them up to 8000 bytes."""
    dice, model, live = random.Random(7), Allocator(glibc), []
    start = time.perf_counter()
    for _ in range(calls):
        if live and dice.random() < 0.5:
            index = dice.randrange(len(live))
            live[index], live[-1] = live[-1], live[index]
            model.free(live.pop())
        else:
            small = dice.random() < 0.9
            live.append(
                model.malloc(int(dice.expovariate(0.005)) if small else dice.randrange(8000))
            )
    return calls / (time.perf_counter() - start)


if __name__ == "__main__":
    for glibc in RELEASES:
        print(f"model of glibc {glibc}: {calls_a_second(glibc):10,.0f} calls a second")

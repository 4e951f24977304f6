"""Gives targets to workers, collects what was wrong; `python -m tests.fuzz.run` for a long run."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from .mutate import recipes
from .recipe import HOSTILE, Recipe
from .worker import SECONDS

SOME = 6  # commands that are asked of each target, of some fifty
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60 * SECONDS  # seconds without any verdict, after which a worker is taken as lost


class Verdict(NamedTuple):
    """What came out for a target."""

    recipe: Recipe
    bad: Sequence[dict[str, Any]]
    slowest: tuple[float, str]
    asked: int
    statuses: Sequence[int]


class Worker:
    """A process that asks targets."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, recipe: Recipe, some: int | None, seed: int) -> Verdict:
        """Return what came out for a target; a worker that dies or hangs is a bad outcome."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        answer = ""
        try:
            said = {"recipe": recipe.text(), "some": some, "seed": seed}
            process.stdin.write(json.dumps(said) + "\n")
            process.stdin.flush()
            if select.select([process.stdout], [], [], PATIENCE)[0]:
                answer = process.stdout.readline()
        except BrokenPipeError:
            pass
        if answer:
            found = json.loads(answer)
            slowest = (found["slowest"][0], found["slowest"][1])
            return Verdict(recipe, found["bad"], slowest, found["asked"], found["statuses"])
        process.kill()
        self._process = None
        why = f"the worker died or hung (status {process.wait()})"
        return Verdict(recipe, [{"words": [], "said": why}], (0.0, ""), 0, (0, 0, 0))

    def _start(self) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "tests.fuzz.worker"]
        places = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        self._process = subprocess.Popen(
            words,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": places, "PYTHONHASHSEED": "0"},
        )
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()
            self._process = None


def ask_all(targets: Iterable[Recipe], workers: int, some: int | None = None) -> Iterator[Verdict]:
    """Yield the verdicts of targets; each is asked *some* lines, None: all."""
    pool = [Worker() for _ in range(workers)]
    try:
        with ThreadPoolExecutor(workers) as threads:
            left = enumerate(targets)
            while True:
                block = list(islice(left, 64 * workers))
                if not block:
                    return
                shares = [block[n::workers] for n in range(workers)]
                asked = threads.map(lambda w, s: [w.ask(r, some, n) for n, r in s], pool, shares)
                for verdicts in asked:
                    yield from verdicts
    finally:
        for worker in pool:
            worker.close()


def keep(verdict: Verdict) -> Path:
    """Write a failing target as a fixture; return where."""
    text = verdict.recipe.text()
    path = HOSTILE / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    HOSTILE.mkdir(exist_ok=True)
    path.write_text(text + "\n")
    return path


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run many targets with a new seed; return 1 if one failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--some", type=int, default=SOME, help="commands for each target")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    said = parser.parse_args()
    say(f"seed {said.seed}, {said.count} targets")
    start, failed, asked = time.monotonic(), 0, 0
    slowest: list[tuple[float, str, str]] = []
    statuses = [0, 0, 0]
    for verdict in ask_all(recipes(said.seed, said.count), said.workers, said.some):
        asked += verdict.asked
        statuses = [a + b for a, b in zip(statuses, verdict.statuses)]
        slowest = sorted([*slowest, (*verdict.slowest, verdict.recipe.text())])[-5:]
        if verdict.bad:
            failed += 1
            first = verdict.bad[0]
            say(f"{keep(verdict)}: {' '.join(first['words'])}\n{first['said']}")
    seconds = time.monotonic() - start
    say(f"{said.count} targets, {asked} commands {statuses}, {seconds:.0f} s, {failed} failed")
    for took, words, recipe in slowest:
        say(f"slowest: {took:.1f} s {words} {recipe[:300]}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

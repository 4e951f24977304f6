"""Random scripts against real malloc: every pointer, and every byte of its state at the end."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .play import Session
from .real import ARCHES, RELEASES, Runtime, runtime
from .script_file import SCRIPTS, text_of

LONG = int(os.environ.get("HEAPGLASS_FUZZ", "0"))  # examples a runtime, of the long profile
EXAMPLES, CALLS = LONG or 16, 170
AT_LEAST = 2000  # calls compared, a runtime and a run
PROFILE: dict[str, Any] = {
    "max_examples": EXAMPLES,
    "derandomize": not LONG,
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}

TUNABLES = (
    {},
    {},
    {},
    {"tcache_count": 0},
    {"tcache_count": 3, "tcache_max": 300},
    {"perturb": 165},
    {"mxfast": 0},
    {"mxfast": 80},
    {"tcache_max": 1 << 20},
    {"tcache_max": 0},
    {"tcache_max": 4000, "perturb": 7},
    {"mmap_threshold": 20000},
    {"mmap_threshold": 5000, "tcache_max": 100000},
    {"mmap_max": 0},
    {"arena_max": 1},
    {"arena_max": 2},
    {"arena_test": 1},
    {"top_pad": 0},
    {"trim_threshold": 1000},
    {"tcache_unsorted_limit": 2},
)
SIZES = st.one_of(
    st.integers(0, 200),
    st.integers(0, 1300),
    st.integers(0, 9000),
    st.integers(0, 70000),
    st.integers(100000, 1500000),
    st.sampled_from([1 << 21, (4 << 20) - 4096, 33 << 20, (1 << 63) - 40, 1 << 63, (1 << 64) - 40]),
)
# Weights by repetition: what programs do most comes most.
KINDS = (
    *"fffffffffffffffffffffffffffffffffffffff",
    *"mmmmmmmmmmmmmmmmmmmmmmmmmmmmm",
    *"cccccccc",
    *"rrrrrrrrrr",
    *"aaAp",
    *"vVtiuuoosLBnnxI",
)
STEP = st.tuples(st.sampled_from(KINDS), SIZES, st.integers(0, 1 << 30))
STEPS = st.lists(STEP, min_size=CALLS, max_size=CALLS)
OPTIONS = (1, -1, -2, -3, -4, -6, -7, -8)
VALUES = (0, 1, 8, 64, 80, 100, 160, 5000, 100000, 1000000)


class Player:
    """Turns drawn steps into calls that make sense where they stand."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.live: list[int] = []
        self.threads = [1]
        self.next_thread = 2
        self.starved = self.walled = False
        self.most = session.model.layout.max_address

    def step(self, kind: str, size: int, choice: int) -> None:
        """Make one call."""
        if size > 1 << 26 and (self.session.tunables.get("perturb") or size < 1 << 40):
            size = 1 << 20
        size &= self.most
        thread = self.threads[choice % len(self.threads)]
        if kind in "nxLB":
            self._process(kind, thread)
        elif kind in "fru":
            self._with_block(kind, size, choice >> 4, thread)
        elif kind in "mcaApvV":
            self._new(kind, size, choice >> 4, thread)
        elif kind == "o":
            option, value = OPTIONS[choice % len(OPTIONS)], VALUES[(choice >> 4) % len(VALUES)]
            self.session.call("o", option, value, thread=thread)
        elif kind == "s":
            self.session.call("s", (0, 16, 4096, 100, 5000, 8192)[choice % 6])
        elif kind == "I":
            self.session.look_everywhere()
        else:
            self.session.call(kind, size % 6000 if kind == "t" else 0, thread=thread)

    def _new(self, kind: str, size: int, choice: int, thread: int) -> None:
        arguments = [size]
        if kind == "c":
            arguments = [1 + choice % 4, size // 3]
        elif kind in "aAp":
            arguments = [(1 << 4 + choice % 15) if choice % 7 else 24, size]
        block = self.session.call(kind, *arguments, thread=thread)
        if block:
            self.live.append(block)
            data = bytes(range(choice % 251, choice % 251 + 5)) * (choice % 7)
            self.session.write(block, data[: min(size // 3, 35)])

    def _with_block(self, kind: str, size: int, choice: int, thread: int) -> None:
        if not self.live:
            return
        index = choice % len(self.live)
        self.live[index], self.live[-1] = self.live[-1], self.live[index]
        block = self.live[-1]
        if kind == "f":
            self.live.pop()
            self.session.call("f", block, thread=thread)
        elif kind == "u":
            self.session.call("u", block, thread=thread)
        else:
            moved = self.session.call("r", block, size, thread=thread)
            if moved:
                self.live[-1] = moved
            elif not size:
                self.live.pop()

    def _process(self, kind: str, thread: int) -> None:
        if kind == "n" and self.next_thread < 20 and not self.starved:
            self.session.call("n", thread=self.next_thread)
            self.threads.append(self.next_thread)
            self.next_thread += 1
        elif kind == "x" and thread != 1:
            self.session.call("x", thread=thread)
            self.threads.remove(thread)
        elif kind == "L":
            self.starved = not self.starved
            self.session.call("L", int(self.starved))
        elif kind == "B" and not self.starved:
            self.walled = not self.walled
            self.session.call("B", int(self.walled))


def play(real: Runtime, tunables: dict[str, int], steps: list[tuple[str, int, int]]) -> int:
    """Play a script on both sides; how many calls and looks were compared."""
    session = Session(real, dict(tunables))
    player = Player(session)
    for step in steps:
        player.step(*step)
    session.look_everywhere()
    try:
        return session.check()
    except AssertionError as error:  # the last that is written is the shortest
        SCRIPTS.mkdir(exist_ok=True)
        name = f"found-{real.glibc}-{real.arch}.script"
        (SCRIPTS / name).write_text(text_of(session, str(error)[:300]))
        raise


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("glibc", RELEASES)
def test_random_scripts(glibc: str, arch: str) -> None:
    real, compared = runtime(glibc, arch), 0

    @settings(**PROFILE)
    @given(tunables=st.sampled_from(TUNABLES), steps=STEPS)
    def run(tunables: dict[str, int], steps: list[tuple[str, int, int]]) -> None:
        nonlocal compared
        compared += play(real, tunables, steps)

    run()
    assert compared >= AT_LEAST

"""Huge pages: random scripts with glibc.malloc.hugetlb, in the mode that this machine's kernel has.

Pages for MAP_HUGETLB must have been reserved by an administrator; where none are, malloc does
without, in its own way, and the model must do as much.
"""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from .play import Session
from .real import ARCHES, Runtime, runtime, thp_mode
from .test_random import LONG, PROFILE, STEPS, play

WITH_TUNABLE = ("2.36", "2.41", "2.43", "2.44")  # 2.31 has not got it
TUNABLES = (
    {"hugetlb": 1},
    {"hugetlb": 1, "top_pad": 0},
    {"hugetlb": 2},
    {"hugetlb": 2, "mmap_threshold": 100000},
    {"hugetlb": 1 << 30},
    {"hugetlb": 12345},
    {"hugetlb": 0},
)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("glibc", WITH_TUNABLE)
def test_random_scripts(glibc: str, arch: str) -> None:
    compared = 0

    @settings(**{**PROFILE, "max_examples": LONG // 4 or 8, "phases": [Phase.generate]})
    @given(tunables=st.sampled_from(TUNABLES), steps=STEPS)
    def run(tunables: dict[str, int], steps: list[tuple[str, int, int]]) -> None:
        nonlocal compared
        compared += play(runtime(glibc, arch), tunables, steps)

    run()
    assert compared > 500


@pytest.mark.skipif(thp_mode() != "madvise", reason="this kernel's mode is not read as madvise")
def test_mode_without_end() -> None:
    """What stands behind the string on the stack decides: see Runtime.thp_mode."""
    for padding in range(0, 64, 16):
        real = Runtime("2.36", "amd64", padding)
        session = Session(real, {"hugetlb": 1})
        session.call("m", 100)
        session.look_everywhere()
        assert session.check() > 3

"""Huge pages: random scripts with glibc.malloc.hugetlb, in the mode that this machine's kernel has.

Pages for MAP_HUGETLB must have been reserved by an administrator; where none are, malloc does
without, in its own way, and the model must do as much.
"""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from .real import ARCHES, runtime
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

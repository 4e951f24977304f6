"""Why a program died in malloc: each abort text that a program can provoke, on each release.

What a program says it did is the truth, and that glibc ended it with the words that we expect is
tested first.
"""

from __future__ import annotations

import contextlib
import re

import pytest
from crimes import CRIMES, SEGV, UNPROVOKED, Crime, Not, Scene, committed, words
from programs import ARCHES, RELEASES
from scenes import Scenes

from heapglass.glibc import messages
from heapglass.glibc.releases import parse_version

LINE = re.compile(r"(?<=\.c):(\d+)")
ENDS = [
    (glibc, arch, crime)
    for glibc in RELEASES
    for arch in ARCHES
    for crime in committed(glibc, arch, CRIMES)
]


def _id(value: object) -> str:
    return value.name if isinstance(value, Crime) else str(value)


every_end = pytest.mark.parametrize(("glibc", "arch", "crime"), ENDS, ids=_id)


def same_words(one: str, other: str) -> bool:
    """Whether two texts are the same but for a line number: a distribution's patches move it."""
    lines = [int(found[1]) if (found := LINE.search(text)) else 0 for text in (one, other)]
    return LINE.sub(":", one) == LINE.sub(":", other) and abs(lines[0] - lines[1]) <= 4


@pytest.fixture
def left(scenes: Scenes, glibc: str, arch: str, crime: Crime) -> Scene:
    return scenes.of(glibc, arch, crime)


@every_end
def test_glibc_ends_the_program_with_these_words(
    left: Scene, glibc: str, arch: str, crime: Crime
) -> None:
    said = crime.said(glibc, arch)

    if said == SEGV:
        assert (left.signal, left.said) == (SEGV, "")
    else:
        assert left.signal == "SIGABRT"
        assert same_words(left.said.rpartition(f"{crime.program}: ")[2], said)
    assert left.truth.chunk


def _texts(glibc: str) -> set[str]:
    """Every text of a release; assertions by their keys."""
    texts = set(messages.messages_of(parse_version(glibc)))
    for key in {f"!{row.key}" for row in messages.ASSERTIONS}:
        with contextlib.suppress(KeyError):  # a release without it
            texts |= {key} if words(key, glibc) else set()
    return texts


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("glibc", RELEASES)
def test_every_text_is_provoked_or_it_is_said_why_not(glibc: str, arch: str) -> None:
    ends = {crime.said(glibc, arch) for crime in CRIMES}
    explained = {c.text for c in CRIMES if isinstance(c.said(glibc, arch), Not)} | {*UNPROVOKED}
    explained |= {c.text for c in CRIMES if f"{glibc}-{arch}" in c.elsewhere}
    missing = {text for text in _texts(glibc) if words(text, glibc) not in ends}

    assert missing - explained == set()
    assert {words(t, glibc) for t in UNPROVOKED if t in _texts(glibc)} & ends == set()

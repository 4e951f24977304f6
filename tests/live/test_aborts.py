"""Why a program died in malloc: each abort text that a program can provoke, on each release.

What a program says it did is the truth, and that glibc ended it with the words that we expect is
tested first. `explain` has only its core, without symbols.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from crimes import CRIMES, SEGV, UNPROVOKED, UNTOLD, Crime, Not, Scene, Truth, committed, words
from inquiry import KNOWN, WITH_SYMBOLS, answer
from programs import ARCHES, RELEASES
from scenes import Scenes

from heapglass.glibc import messages
from heapglass.glibc.releases import parse_version

Record = Callable[[str, object], None]
LINE = re.compile(r"(?<=\.c):(\d+)")
ENDS = [
    (glibc, arch, crime)
    for glibc in RELEASES
    for arch in ARCHES
    for crime in committed(glibc, arch, CRIMES)
]
NAMED = [end for end in ENDS if f"{end[0]}-{end[1]}" in WITH_SYMBOLS]


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


@every_end
def test_explain_names_the_check_the_chunk_and_who_did_it(
    left: Scene, glibc: str, arch: str, crime: Crime, record_property: Record
) -> None:
    for name, value in (("ended", _row(crime, glibc, arch)), ("runtime", f"{glibc}-{arch}")):
        record_property(name, value)

    found = wrong(answer(left), left.truth, crime, crime.said(glibc, arch))

    if found and crime.name in UNTOLD:
        pytest.xfail(f"{UNTOLD[crime.name]}: {found}")
    assert found == []


@pytest.mark.parametrize(("glibc", "arch", "crime"), NAMED, ids=_id)
def test_explain_says_the_same_with_symbols(
    left: Scene, glibc: str, arch: str, crime: Crime
) -> None:
    found = wrong(answer(left, KNOWN), left.truth, crime, crime.said(glibc, arch))

    if found and crime.name in UNTOLD:
        pytest.xfail(f"{UNTOLD[crime.name]}: {found}")
    assert found == []


def _row(crime: Crime, glibc: str, arch: str) -> str:
    """A text for the table: the same for every release."""
    said = crime.said(glibc, arch)
    return crime.text if crime.text.startswith("!") else said


def wrong(said: Mapping[str, Any], truth: Truth, crime: Crime, ended: str) -> list[str]:
    """In what an answer of `explain` differs from the truth."""
    cause, message = said["cause"] or {}, said["message"] or ""
    pairs = [
        ("status", said["status"], 1),
        ("chunk", said["chunk"], hex(truth.chunk)),
        ("cause", cause.get("kind"), truth.kind),
    ]
    if truth.culprit is not None:
        pairs.append(("culprit", cause.get("culprit"), hex(truth.culprit)))
    if ended == SEGV:
        pairs.append(("message", said["message"], None))
    elif not same_words(message.rpartition(f"{crime.program}: ")[2], ended):
        pairs.append(("message", message, ended))
    else:
        how = "stack" if "Assertion `" in ended else "__abort_msg"  # until 2.35 only printed
        pairs.append(("message_how", said["message_how"], how))
    return [f"{what} is {found}, not {real}" for what, found, real in pairs if found != real]


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

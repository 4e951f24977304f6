"""Damage that malloc has not noticed yet: `check` finds it, and says who did it and how."""

from __future__ import annotations

import pytest
from crimes import QUIET, SILENT, Crime, Scene, committed
from inquiry import answer
from programs import ARCHES, RELEASES
from scenes import Scenes

COUNTED = ("mapping-underflow",)  # nothing leads to a mapped chunk: only their count is known
HEAPS = [
    (glibc, arch, crime)
    for glibc in RELEASES
    for arch in ARCHES
    for crime in committed(glibc, arch, SILENT)
]


def _id(value: object) -> str:
    return value.name if isinstance(value, Crime) else str(value)


every_heap = pytest.mark.parametrize(
    ("glibc", "arch", "crime"), [heap for heap in HEAPS if heap[2].name not in COUNTED], ids=_id
)


@pytest.fixture
def left(scenes: Scenes, glibc: str, arch: str, crime: Crime) -> Scene:
    return scenes.of(glibc, arch, crime)


@every_heap
def test_what_nobody_noticed_is_found_with_its_cause(left: Scene, crime: Crime) -> None:
    truth = left.truth
    assert (left.signal, left.said) == (QUIET, "")

    said = answer(left)

    assert said["status"] == 1
    first = said["findings"][0]
    cause = first["cause"]
    assert (first["severity"], cause["kind"]) == ("error", truth.kind)
    if truth.culprit is not None:
        assert cause["culprit"] == hex(truth.culprit)
    # where a P is lost, the block below is named; where a list's head is wrong, what it leads to
    named = {first["address"], cause["culprit"]}
    assert named & {hex(truth.chunk), hex(truth.culprit or truth.chunk)}


@pytest.mark.parametrize(
    ("glibc", "arch", "crime"), [heap for heap in HEAPS if heap[2].name in COUNTED], ids=_id
)
def test_a_mapping_that_is_none_any_more_is_missed(left: Scene) -> None:
    said = answer(left)

    assert [found["rule"] for found in said["findings"]] == ["mmapped"]

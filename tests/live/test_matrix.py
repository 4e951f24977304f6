"""Real heaps, read right: every release and ABI, every program, through every door.

The truth is the program's own: its live pointers with malloc_usable_size, and its malloc_info.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from programs import ARCHES, CASES, RELEASES, Case
from session import DOORS, XML, Answers, Session, blocks_in_use
from sessions import Sessions

Row = dict[str, Any]
Record = Callable[[str, object], None]

Test = Callable[..., None]


def over_every_heap(test: Test) -> Test:
    for name, values in (("glibc", RELEASES), ("arch", ARCHES)):
        test = pytest.mark.parametrize(name, values)(test)
    return pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)(test)


def through_every_door(test: Test) -> Test:
    return pytest.mark.parametrize("door", DOORS)(over_every_heap(test))


@pytest.fixture
def session(sessions: Sessions, glibc: str, arch: str, case: Case) -> Session:
    return sessions.of(glibc, arch, case)


@pytest.fixture
def answers(session: Session, glibc: str, arch: str, door: str, record_property: Record) -> Answers:
    for name, value in (("glibc", glibc), ("arch", arch), ("door", door)):
        record_property(name, value)
    record_property("linkage", "shared")
    return session.doors[door]


@pytest.fixture
def chunks(answers: Answers) -> list[Row]:
    rows = answers.document("chunks --all")["chunks"]
    assert isinstance(rows, list)
    return rows


MALLINFO = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("fsmblks", "uordblks", "fordblks", "keepcost"),
)


@through_every_door
def test_used_chunks_are_the_programs_blocks(
    session: Session, answers: Answers, record_property: Record
) -> None:
    found = answers.document("chunks --all")

    assert blocks_in_use(found) == session.report.blocks()
    record_property("chunks", len(found["chunks"]))


@through_every_door
def test_every_chunk_has_a_state_that_was_proven(chunks: list[Row]) -> None:
    unproven = [row for row in chunks if row["state"] in (None, "corrupt")]

    assert unproven == []


@through_every_door
def test_the_allocators_own_chunks_are_the_tcaches(answers: Answers, chunks: list[Row]) -> None:
    owned = {row["user"] for row in chunks if row.get("owner") == "tcache"}
    threads = answers.document("info")["threads"]

    assert owned == {row["tcache"] for row in threads if row["tcache_state"] == "active"}


@through_every_door
def test_nothing_is_wrong_with_a_sound_heap(answers: Answers) -> None:
    bins = answers.document("bins --all")["bins"]
    warnings = {line: said["warnings"] for line, said in answers.documents().items()}

    assert answers.document("check")["findings"] == []
    assert answers.document("verify")["differences"] == []
    assert {line: said for line, said in warnings.items() if said} == {}
    assert [row for row in bins if row["fault"] is not None] == []


@through_every_door
def test_malloc_info_is_the_programs_own(session: Session, answers: Answers) -> None:
    assert answers.text[XML] == session.report.malloc_info


@through_every_door
def test_mallinfo_is_the_programs_own(session: Session, answers: Answers) -> None:
    said = answers.document("stats")["mallinfo"]
    assert tuple(said[name] % (1 << 32) for name in MALLINFO) == session.report.mallinfo


@through_every_door
def test_threads_and_arenas_are_all_there(session: Session, answers: Answers) -> None:
    threads = answers.document("info")["threads"]
    arenas = answers.document("arenas")["arenas"]

    assert {row["id"] for row in threads} == {thread.tid for thread in session.report.threads}
    assert len(arenas) == session.report.malloc_info.count("<heap nr=")


@through_every_door
def test_bins_hold_as_many_chunks_as_malloc_info_counts(session: Session, answers: Answers) -> None:
    counted: dict[str, int] = {}
    for row in answers.document("bins")["bins"]:
        assert row["count"] == len(row["chunks"])
        counted[row["kind"]] = counted.get(row["kind"], 0) + row["count"]

    assert counted.get("fast", 0) == _total(session, "fast")
    # malloc_info counts each arena's top among the rest
    tops = session.report.malloc_info.count("<heap nr=")
    rest = sum(counted.get(kind, 0) for kind in ("unsorted", "small", "large"))
    assert rest == _total(session, "rest") - tops


def _total(session: Session, kind: str) -> int:
    """The program's own count of chunks in bins of a kind, over all arenas."""
    counts = re.findall(rf'<total type="{kind}" count="(\d+)"', session.report.malloc_info)
    return int(counts[-1]) if counts else 0


@over_every_heap
def test_every_door_says_the_same(session: Session) -> None:
    live, *others = (without_the_way(session.doors[door]) for door in DOORS)

    for door, other in zip(DOORS[1:], others):
        assert list(other) == list(live)
        for line, document in live.items():
            assert other[line] == document, f"`{line}`: {door} and live differ"


EVIDENCE = ("source", "how", "checks", "runners_up")


def without_the_way(answers: Answers) -> dict[str, object]:
    """Documents without what may differ: what the target is, and how a thing was found in it."""
    documents = answers.documents()
    for line, document in documents.items():
        if line.startswith("size "):  # needs no target, and in the shell has none
            del document["target"]
    return {line: _stripped(document) for line, document in documents.items()}


def _stripped(value: object) -> object:
    if isinstance(value, dict):
        return {
            key: _stripped(inner)
            for key, inner in value.items()
            if key not in EVIDENCE and not key.endswith("_how")
        }
    if isinstance(value, list):
        return [_stripped(inner) for inner in value]
    return value


@pytest.mark.parametrize("glibc", RELEASES)
@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("case", CASES[:1], ids=lambda case: case.name)
def test_the_bins_program_fills_every_kind_of_bin(session: Session) -> None:
    kinds = {row["kind"] for row in session.doors["live"].document("bins")["bins"]}
    fast = {"fast"} if '<total type="fast"' in session.report.malloc_info else set()

    assert kinds == {"tcache", "unsorted", "small", "large"} | fast
    assert _total(session, "fast") > 0 or not fast

"""The same heaps without any symbols, and static programs: everything is found by structure.

What is shown is the same as with symbols, but for how it was found. Without symbols means an empty
folder of debug files: the releases' own libraries and the static programs are stripped.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from programs import ARCHES, CASES, RELEASES, STATIC_CASES, STATIC_I386, UNLINKED, Case
from session import BARE, DOORS, XML, Answers, Session, blocks_in_use
from sessions import Sessions
from test_matrix import without_the_way

Record = Callable[[str, object], None]

SHARED = [(glibc, arch, case) for glibc in RELEASES for arch in ARCHES for case in CASES]
STATIC = [
    (glibc, arch, case)
    for glibc in RELEASES
    for arch in ARCHES
    for case in STATIC_CASES
    if arch == "amd64" or case.name in STATIC_I386
]
# The loop's own variables have no shape; where the code that uses them is not ours to read (a
# machine other than x86) they stay unknown.
BY_STRUCTURE = {"scan"}


def _id(value: object) -> str:
    return value.name if isinstance(value, Case) else str(value)


def over(*heaps: list[tuple[str, str, Case]]) -> pytest.MarkDecorator:
    chosen = [heap for some in heaps for heap in some]
    return pytest.mark.parametrize(("glibc", "arch", "case"), chosen, ids=_id)


@pytest.fixture
def session(sessions: Sessions, glibc: str, arch: str, case: Case) -> Session:
    return sessions.of(glibc, arch, case)


@pytest.fixture
def answers(
    session: Session, glibc: str, arch: str, case: Case, door: str, record_property: Record
) -> Answers:
    linkage = "shared" if case.linkage == "shared" else "static"
    said = (("glibc", glibc), ("arch", arch), ("linkage", linkage), ("door", door))
    for name, value in said:
        record_property(name, value)
    return session.doors[door]


@pytest.mark.parametrize("door", BARE)
@over(SHARED, STATIC)
def test_what_is_shown_is_what_symbols_show(
    session: Session, answers: Answers, record_property: Record
) -> None:
    with_symbols = without_the_way(session.doors["live"])

    for line, document in without_the_way(answers).items():
        assert document == with_symbols[line], f"`{line}`"
    assert answers.text[XML] == session.report.malloc_info
    record_property("chunks", len(answers.document("chunks --all")["chunks"]))


@pytest.mark.parametrize("door", BARE)
@over(SHARED, STATIC)
def test_all_of_it_was_found_by_structure(answers: Answers) -> None:
    info = answers.document("info")
    finds = [info["main_arena"], info["mp_"], *info["variables"].values()]

    assert {place["how"] for place in finds} == BY_STRUCTURE
    assert all(place["checks"] for place in finds)
    known = {row["tcache_how"] for row in info["threads"]} - {None}
    assert known <= BY_STRUCTURE
    assert "unknown" not in {row["tcache_state"] for row in info["threads"]}
    assert answers.document("check")["findings"] == []
    assert info["missing"] == []


@pytest.mark.parametrize("door", [*DOORS, *BARE])
@over(STATIC)
def test_a_static_program_is_read_right(session: Session, answers: Answers, glibc: str) -> None:
    found = answers.document("chunks --all")
    release = answers.document("info")["glibc"]

    assert blocks_in_use(found) == session.report.blocks()
    assert {row["state"] for row in found["chunks"]} & {None, "corrupt"} == set()
    assert answers.text[XML] == session.report.malloc_info
    assert glibc in release["possible"]
    assert release["version"] in (None, glibc)


def test_what_cannot_be_linked_here_is_named() -> None:
    """A static program with threads of these crashes before it has a heap; none is in the list."""
    assert {(g, a) for g, a, case in STATIC if a == "i386" and "threads" in case.name} == set()
    assert {arch for _, arch in UNLINKED} == {"i386"}

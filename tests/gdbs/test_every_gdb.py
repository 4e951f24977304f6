"""The extension in the gdbs of four Debian suites, on real processes, in every way to reach one.

All that gdb says is what the shell says of the same process or core.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gdbs import SUITES, BadGdb, Gdb, read_gdb
from programs import CASES, MissingRuntime, Runtime, build, find_runtime, wait_for_report
from session import (
    NOWHERE,
    XML,
    Answers,
    ask_in_shell,
    live_commands,
    questions,
    read_report,
    run_gdb,
    settings,
)
from test_matrix import without_the_way

Record = Callable[[str, object], None]
(CASE,) = (case for case in CASES if case.name == "threads")


@pytest.fixture(params=SUITES)
def gdb(request: pytest.FixtureRequest, record_property: Record) -> Gdb:
    """The gdb of a suite. One that is missing fails the test."""
    record_property("suite", request.param)
    try:
        return read_gdb(request.param)
    except BadGdb as error:
        return pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    try:
        return find_runtime("2.41", "amd64")
    except MissingRuntime as error:
        return pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gdbs")


@pytest.fixture(scope="module")
def process(runtime: Runtime, place: Path) -> Iterator[int]:
    """A process that has reported (to `place`) and waits."""
    os.mkfifo(place / "fifo")
    program = build(runtime, CASE.program)
    with subprocess.Popen([str(program), str(place / "fifo")]) as running:
        wait_for_report(place / "fifo", place / "report")
        yield running.pid
        running.kill()


@pytest.fixture(scope="module")
def truth(runtime: Runtime, place: Path, process: int) -> dict[str, object]:
    """What the shell says of that process, which is stopped for it."""
    os.kill(process, signal.SIGSTOP)
    result = place / "shell.json"
    ask_in_shell(str(runtime.debug_dir), place / "report", str(process), result, bare=True)
    os.kill(process, signal.SIGCONT)
    return asked(result)


def asked(result: Path) -> dict[str, object]:
    """Documents without what may differ, and the XML."""
    answers = Answers(json.loads(result.read_text()))
    return {**without_the_way(answers), XML: answers.text[XML]}


def count(answers: dict[str, object]) -> int:
    document = answers["chunks --all"]
    assert isinstance(document, dict)
    return len(document["chunks"])


@pytest.fixture
def server(gdb: Gdb, request: pytest.FixtureRequest) -> Iterator[str]:
    """The suite's own gdbserver, attached to the process, or waiting to be told (--multi)."""
    words = request.param
    if words == ["--attach"]:
        process = str(request.getfixturevalue("process"))
        command = [str(gdb.program.with_name("gdbserver")), "--attach", "localhost:0", process]
    else:
        command = [str(gdb.program.with_name("gdbserver")), "--multi", "localhost:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            found = re.search(r"Listening on port (\d+)", line)
            if found:
                yield f"localhost:{found[1]}"
                break
        running.terminate()


def read_as(
    gdb: Gdb, runtime: Runtime, place: Path, way: list[str], words: tuple[str, ...] = ()
) -> dict[str, object]:
    """Ask in that gdb, after the lines of *way*; *words* are given to gdb itself."""
    result = place / f"{gdb.suite}.json"
    result.unlink(missing_ok=True)
    program = build(runtime, CASE.program)
    lines = [
        *settings(str(runtime.debug_dir)),
        *([] if words else [f"file {program}"]),
        *way,
        *questions(place / "report", result, bare=True),
    ]
    run_gdb(place / f"{gdb.suite}.gdb", lines, gdb=(str(gdb.program), *words))
    return asked(result)


def test_a_program_that_gdb_runs_and_its_core(
    gdb: Gdb, runtime: Runtime, place: Path, record_property: Record
) -> None:
    """Here gdb is the first; the shell reads the core that this gdb wrote."""
    work = place / gdb.suite
    work.mkdir()
    program = build(runtime, CASE.program)
    report, core = work / "report", work / "core"
    live = live_commands(runtime, CASE, program, work)
    end = next(n for n, line in enumerate(live) if line.startswith("generate-core-file"))
    lines = [*live[: end + 1], f"core-file {core}", *questions(report, work / "core.json")]
    run_gdb(work / "live.gdb", lines, gdb=(str(gdb.program),))
    ask_in_shell(str(runtime.debug_dir), report, str(core), work / "shell.json")
    core.unlink()

    in_gdb, in_core, in_shell = (
        without_the_way(Answers(json.loads((work / f"{name}.json").read_text())))
        for name in ("live", "core", "shell")
    )

    for line, document in in_shell.items():
        if not line.startswith("size "):
            assert in_gdb[line] == document, line
            assert in_core[line] == document, line
    assert read_report(report).blocks()
    record_property("way", "run")
    record_property("chunks", count(in_gdb))


def test_the_core_that_a_gdb_wrote(gdb: Gdb, place: Path, record_property: Record) -> None:
    """Compared above, in the same run of gdb; counted here."""
    answers = Answers(json.loads((place / gdb.suite / "core.json").read_text()))
    record_property("way", "core")
    record_property("chunks", len(answers.document("chunks --all")["chunks"]))
    assert answers.document("info")["source"]["kind"] == "core"


def test_a_process_that_gdb_attaches_to(
    gdb: Gdb,
    runtime: Runtime,
    place: Path,
    process: int,
    truth: dict[str, object],
    record_property: Record,
) -> None:
    record_property("way", "attach")
    found = read_as(gdb, runtime, place, [f"attach {process}"])

    assert found == truth
    record_property("chunks", count(found))


def test_a_process_given_with_p(
    gdb: Gdb,
    runtime: Runtime,
    place: Path,
    process: int,
    truth: dict[str, object],
    record_property: Record,
) -> None:
    record_property("way", "-p")
    found = read_as(gdb, runtime, place, [], ("-p", str(process)))

    assert found == truth
    record_property("chunks", count(found))


@pytest.mark.parametrize("server", [["--attach"]], indirect=True, ids=["attach"])
def test_a_process_behind_gdbserver(
    gdb: Gdb,
    runtime: Runtime,
    place: Path,
    server: str,
    truth: dict[str, object],
    record_property: Record,
) -> None:
    record_property("way", "target remote")
    found = read_as(gdb, runtime, place, [f"target remote {server}"])

    assert found == truth
    record_property("chunks", count(found))


@pytest.mark.parametrize("server", [["--multi"]], indirect=True, ids=["multi"])
def test_a_process_that_a_far_gdbserver_attaches_to(
    gdb: Gdb,
    runtime: Runtime,
    place: Path,
    process: int,
    server: str,
    truth: dict[str, object],
    record_property: Record,
) -> None:
    record_property("way", "extended-remote")
    found = read_as(gdb, runtime, place, [f"target extended-remote {server}", f"attach {process}"])

    assert found == truth
    record_property("chunks", count(found))


@pytest.mark.parametrize("way", ["attach", "run"])
def test_without_symbols_too(
    gdb: Gdb,
    runtime: Runtime,
    place: Path,
    process: int,
    truth: dict[str, object],
    way: str,
) -> None:
    """Thread pointers are registers of the gdb, or are found by structure."""
    result = place / f"{gdb.suite}-bare.json"
    lines = [*settings(NOWHERE), *questions(place / "report", result, bare=True)]
    start = f"attach {process}"
    if way == "run":
        report = place / f"{gdb.suite}-own"
        lines = [
            *settings(NOWHERE),
            f"file {build(runtime, CASE.program)}",
            "break heap_ready",
            f"run {report}",
            *questions(report, result, bare=True),
        ]
        run_gdb(place / f"{gdb.suite}-bare.gdb", lines, gdb=(str(gdb.program),))
        info = Answers(json.loads(result.read_text())).document("info")
        assert {row["tcache_state"] for row in info["threads"]} == {"active"}
        assert info["main_arena"]["how"] == "scan"
        assert info["missing"] == []
        return
    lines.insert(-len(questions(place, place)), start)
    run_gdb(place / f"{gdb.suite}-bare.gdb", lines, gdb=(str(gdb.program),))

    assert asked(result) == truth

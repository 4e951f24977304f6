"""One program on one release, asked three ways: live in gdb, its core in gdb and in the shell.

The questions are the same at each door (`plan`), and each door's answers lie in one file. This
module is imported by the tests, by gdb's Python (`answer`) and run as a script (the shell door), so
it needs the standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from programs import ROOT, Case, Report, Runtime, build, read_report, static_debug_dir

RESULTS = ROOT / ".cache" / "live"
EXTENSION = ROOT / "gdbext" / "heapglass.py"
DOORS = ("live", "core-gdb", "core-shell")
BARE = ("live-bare", "core-bare")  # without any symbols: live in gdb, the core in the shell
NOWHERE = "/nonexistent"  # a folder of debug files that has none
XML = "stats --malloc-info"
PATIENCE = 300  # seconds for one run of gdb or of the shell door; none takes ten


def plan(report: Report) -> list[str]:
    """Every question, as typed behind `heap`; all but `XML` are asked with --json."""
    lines = [
        *("info", "arenas", "heaps", "chunks --all", "bins", "bins --all", "bins unsorted"),
        *("tcache --all", "params", "mmapped", "stats", XML, "vis", "check", "verify"),
        "size 100 --glibc 2.42 --abi i386",
        *("chunks --all --state free --sort size", "chunks --min 0x400 --max 0x2000 --top 5"),
    ]
    blocks = sorted(report.blocks())
    for mem in {*blocks[:1], *blocks[len(blocks) // 2 :][:1], *blocks[-1:]}:
        lines += [f"chunk {mem:#x}", f"whatis {mem + 9:#x}", f"find {mem:#x}"]
    lines += [f"whatis {thread.pointer:#x}" for thread in report.threads]
    return sorted(lines)


def bare_plan() -> list[str]:
    """The questions whose answers need all that is to be found; the others follow from these."""
    return [
        *("info", "arenas", "heaps", "chunks --all", "bins --all", "tcache --all"),
        *("params", "mmapped", "stats", XML, "check"),
    ]


def answer(report: Path, result: Path, ask: Callable[[str], str], bare: bool = False) -> None:
    """Ask everything about a program that has reported; *result* gets {question: answer}."""
    answers = {}
    for line in bare_plan() if bare else plan(read_report(report)):
        answers[line] = ask(line if line == XML else f"{line} --json")
    result.write_text(json.dumps(answers))


@dataclass(frozen=True)
class Answers:
    """What one door said, as text: the XML, and one JSON document a question."""

    text: Mapping[str, str]

    def document(self, line: str) -> dict[str, Any]:
        """The answer to *line*.

        :raises ValueError: if it is no JSON document; the text is in the message.
        """
        try:
            found = json.loads(self.text[line])
        except ValueError:
            raise ValueError(f"`{line}` answered: {self.text[line][:500]!r}") from None
        assert isinstance(found, dict)
        return found

    def documents(self) -> dict[str, dict[str, Any]]:
        """All answers that are JSON."""
        return {line: self.document(line) for line in self.text if line != XML}


def blocks_in_use(chunks: Mapping[str, Any]) -> dict[int, int]:
    """Of an answer to `chunks`: mem and usable size of all that a program or its libraries hold."""
    return {
        int(row["user"], 16): row["usable"]
        for row in chunks["chunks"]
        if row["state"] in ("used", "mmapped") and not row.get("owner")
    }


@dataclass(frozen=True)
class Session:
    """What a program reported and what each door answered."""

    report: Report
    doors: Mapping[str, Answers]


class SessionFailed(Exception):
    """A run that gave no answers; the text is what it printed."""


def run_session(runtime: Runtime, case: Case, folder: Path = RESULTS) -> Session:
    """Run *case* on *runtime* and ask at every door. Takes seconds.

    :raises SessionFailed: if gdb, the program or the shell door did not come to its end.
    """
    program = build(runtime, case.program, case.linkage)
    place = folder / runtime.name / case.name
    place.mkdir(parents=True, exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    report, core = place / "report", place / "core"
    try:
        run_gdb(place / "live.gdb", live_commands(runtime, case, program, place))
        run_gdb(place / "core.gdb", core_commands(runtime, case, program, place))
        ask_in_shell(debug_dir(runtime, case), report, str(core), place / "core-shell.json")
        ask_in_shell(NOWHERE, report, str(core), place / "core-bare.json", bare=True)
    finally:
        core.unlink(missing_ok=True)  # some have hundreds of megabytes
    doors = (*DOORS, *BARE)
    answers = {door: Answers(json.loads((place / f"{door}.json").read_text())) for door in doors}
    return Session(read_report(report), answers)


def debug_dir(runtime: Runtime, case: Case) -> str:
    """Where gdb and heapglass find the symbols of malloc."""
    static = case.linkage != "shared"
    return str(static_debug_dir(runtime) if static else runtime.debug_dir)


def live_commands(runtime: Runtime, case: Case, program: Path, place: Path) -> list[str]:
    """What gdb does to run a program to its end, ask, and leave a core."""
    report, core = place / "report", place / "core"
    return [
        *settings(debug_dir(runtime, case)),
        *(f"set environment {key} {value}" for key, value in case.environment.items()),
        f"file {program}",
        "break heap_ready",
        f"run {' '.join([str(report), *case.arguments])}",
        *questions(report, place / "live.json"),
        f"generate-core-file {core}",
        *(f"set debug-file-directory {NOWHERE}", "nosharedlibrary", f"file {program}"),
        *(("sharedlibrary",) if case.linkage == "shared" else ()),
        *("python", "if gdb.lookup_static_symbols('main_arena'):"),
        *("    raise SystemError('gdb still knows main_arena')", "end"),
        *questions(report, place / "live-bare.json", bare=True),
    ]


def core_commands(runtime: Runtime, case: Case, program: Path, place: Path) -> list[str]:
    """What gdb does to ask the core."""
    return [
        *settings(debug_dir(runtime, case)),
        f"file {program}",
        f"core-file {place / 'core'}",
        *questions(place / "report", place / "core-gdb.json"),
    ]


def settings(debug_files: str) -> list[str]:
    """How every gdb starts: debug files of a folder, heapglass."""
    return [
        *("set confirm off", "set pagination off", "set width 0", "set startup-with-shell off"),
        f"set debug-file-directory {debug_files}",
        f"source {EXTENSION}",
    ]


def questions(report: Path, result: Path, bare: bool = False) -> list[str]:
    """The lines of a gdb script that ask everything."""
    return [
        "python",
        "import sys",
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})",
        "from pathlib import Path",
        "from session import answer",
        "def ask(line):",
        "    try:",
        "        return gdb.execute('heapglass ' + line, to_string=True)",
        "    except gdb.error as error:",
        "        return f'error: {error}'",
        f"answer(Path({str(report)!r}), Path({str(result)!r}), ask, {bare})",
        "end",
    ]


def run_gdb(
    script: Path,
    commands: Sequence[str],
    prefix: Sequence[str] = (),
    gdb: Sequence[str] = ("gdb",),
) -> None:
    """Run gdb over *commands*, which are kept in *script*; *prefix* may be strace.

    :raises SessionFailed: if gdb gave up on one of them.
    """
    script.write_text("\n".join([*commands, "echo all done\\n", ""]))
    command = [*prefix, *gdb, "-nx", "-batch", "-x", str(script)]
    said = run(command, script.with_suffix(".log"))
    if "all done" not in said:
        raise SessionFailed(f"{gdb[0]} -nx -batch -x {script}\n{said[-3000:]}")


def ask_in_shell(
    debug_files: str,
    report: Path,
    target: str,
    result: Path,
    prefix: Sequence[str] = (),
    bare: bool = False,
) -> None:
    """Ask everything of *target* at the shell door, in one process; *prefix* may be strace.

    :raises SessionFailed: if that process failed.
    """
    script = [*prefix, sys.executable, __file__, str(report), target, str(result)]
    said = run([*script, debug_files, str(int(bare))], result.with_suffix(".log"))
    if not result.exists():
        raise SessionFailed(f"{' '.join(script)}\n{said[-3000:]}")


def run(command: Sequence[str], log: Path) -> str:
    """Run a command in an environment that holds nothing of this one's; return what it said."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
    environment.pop("GLIBC_TUNABLES", None)
    environment["DEBUGINFOD_URLS"] = ""  # nothing from the network
    environment["PYTHONPATH"] = str(ROOT / "src")
    with log.open("w") as output:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=PATIENCE,
            check=False,
        )
    return log.read_text(errors="replace")


def _shell_door(target: str, debug_dir: str) -> Callable[[str], str]:
    import contextlib
    import io

    from heapglass import cli

    def ask(line: str) -> str:
        name, *arguments = line.split()
        words = [name] if name == "size" else [name, target]
        output, complaint = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(complaint):
            status = cli.main([*words, *arguments, "--debug-dir", debug_dir])
        answered = status == 0 or (name == "check" and output.getvalue())  # 1: it found faults
        return output.getvalue() if answered else f"status {status}: {complaint.getvalue()}"

    return ask


if __name__ == "__main__":
    _report, _target, _result, _debug_dir, _bare = sys.argv[1:]
    answer(Path(_report), Path(_result), _shell_door(_target, _debug_dir), _bare == "1")

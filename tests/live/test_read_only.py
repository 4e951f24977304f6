"""The promise that nothing is ever written to a target, and that it is never resumed.

Two witnesses: the kernel (what gdb or Python asked of it, under strace) and the target itself (its
writable memory, its registers and how often its threads were scheduled, before and after).
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
import session
import witness
from programs import ARCHES, RELEASES, Runtime, build, read_report

LOOKING = re.compile(r"ptrace\(PTRACE_(PEEK|GET)")
TOUCHING = "ptrace,pwrite64,pwritev,pwritev2,process_vm_writev,kill,tkill,tgkill,rt_tgsigqueueinfo"
STRACE = ("strace", "-y", "-o")


# Writing or not does not depend on the release: the oldest and the newest stand for the others.
some_releases = pytest.mark.parametrize(
    "runtime",
    [(glibc, arch) for glibc in (RELEASES[0], RELEASES[-1]) for arch in ARCHES],
    indirect=True,
    ids="-".join,
)


GDB_WITNESS = """
python
import json, os, witness
def look():
    registers = gdb.execute("thread apply all info registers", to_string=True)
    return {**witness.state(gdb.selected_inferior().pid), "registers": registers}
before = look()
os.write(2, b"heapglass begins\\n")
end
"""
GDB_VERDICT = """
python
os.write(2, b"heapglass ends\\n")
Path(%r).write_text(json.dumps([before, look()]))
end
"""


@some_releases
def test_no_command_in_gdb_writes_or_resumes(
    runtime: Runtime, stopped: int, tmp_path: Path
) -> None:
    report, answers, looks = (tmp_path / name for name in ("report", "answers", "looks"))
    asking = session.questions(report, answers)
    # Only gdb's main thread may use ptrace. With -f strace would trace what gdb forks to learn what
    # the kernel can do, and gdb would not get to it.
    run_under_strace = [*STRACE, str(tmp_path / "trace"), "-e", f"trace={TOUCHING},write"]
    session.run_gdb(
        tmp_path / "script.gdb",
        [
            *session.settings(str(runtime.debug_dir)),
            f"file {build(runtime, 'threads')}",
            f"attach {stopped}",
            f"python import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})",
            *GDB_WITNESS.splitlines(),
            *asking,
            *(GDB_VERDICT % str(looks)).splitlines(),
        ],
        prefix=run_under_strace,
    )
    before, after = json.loads(looks.read_text())
    trace = (tmp_path / "trace").read_text().partition("heapglass begins")[2]
    during = trace.partition("heapglass ends")[0].splitlines()[1:-1]

    assert after == before
    said = session.Answers(json.loads(answers.read_text()))
    truth = read_report(report)
    assert set(said.text) == set(session.plan(truth))
    assert session.blocks_in_use(said.document("chunks --all")) == truth.blocks()
    assert [line for line in during if touches(line)] == []


def touches(line: str) -> bool:
    """Whether a line of strace's is more than a look, or a write to one of gdb's own files."""
    call = re.sub(r"^\d+ +", "", line)  # the thread, if strace follows more than one
    if call.startswith("write("):
        return "/proc/" in call.split(",")[0]
    return "(" in call and not LOOKING.match(call)


@some_releases
def test_no_command_in_the_shell_writes_or_resumes(
    runtime: Runtime, stopped: int, tmp_path: Path
) -> None:
    report, answers = tmp_path / "report", tmp_path / "answers"
    before = witness.state(stopped)
    session.ask_in_shell(
        str(runtime.debug_dir),
        report,
        str(stopped),
        answers,
        prefix=[*STRACE, str(tmp_path / "trace"), "-f", "-e", f"trace={TOUCHING},openat,open"],
    )
    trace = (tmp_path / "trace").read_text().splitlines()
    opened = [line for line in trace if f"/proc/{stopped}/" in line]

    assert witness.state(stopped) == before
    said = session.Answers(json.loads(answers.read_text()))
    truth = read_report(report)
    assert set(said.text) == set(session.plan(truth))
    assert session.blocks_in_use(said.document("chunks --all")) == truth.blocks()
    assert f"/proc/{stopped}/mem" in "".join(opened)
    assert [line for line in opened if "O_RDONLY" not in line] == []
    assert [line for line in trace if re.search(rf"\b({TOUCHING.replace(',', '|')})\(", line)] == []


@some_releases
def test_the_witness_sees_one_byte_and_one_step(stopped: int) -> None:
    before = witness.state(stopped)
    heap = next(line for line in before if "[heap]" in line)
    address = int(heap.split("-")[0], 16)
    with open(f"/proc/{stopped}/mem", "r+b", buffering=0) as memory:
        memory.seek(address + 0x500)
        memory.write(b"\x5a")
    written = witness.state(stopped)
    os.kill(stopped, signal.SIGCONT)
    os.kill(stopped, signal.SIGSTOP)
    os.waitpid(stopped, os.WUNTRACED)

    assert [key for key in before if before[key] != written[key]] == [heap]
    assert witness.state(stopped) != written


@pytest.mark.parametrize(
    ("line", "touched"),
    [
        ("ptrace(PTRACE_PEEKTEXT, 7, 0x1000, [0x1]) = 0", False),
        ("ptrace(PTRACE_GETREGS, 7, {}) = 0", False),
        ("ptrace(PTRACE_POKETEXT, 7, 0x1000, 0x1) = 0", True),
        ("ptrace(PTRACE_CONT, 7, 0, 0) = 0", True),
        ("12 ptrace(PTRACE_SETREGS, 7, {}) = 0", True),
        ("12 pwrite64(9</proc/7/mem>, 1, 1, 4096) = 1", True),
        ("12 write(9</proc/7/mem>, 1, 1) = 1", True),
        ("12 write(1</dev/pts/1>, 1, 1) = 1", False),
        ("12 tgkill(7, 7, SIGCONT) = 0", True),
    ],
)
def test_looking_and_touching_are_told_apart(line: str, touched: bool) -> None:
    assert touches(line) == touched

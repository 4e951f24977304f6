"""The shell door: words in, an answer and an exit status out; never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from heapglass import __version__, cli
from heapglass.commands import COMMANDS, Command
from heapglass.errors import HeapglassError
from heapglass.table import Answer

ROOT = Path(__file__).resolve().parents[1]
CORE = str(ROOT / "fixtures" / "cores" / "2.36-amd64-threads.core.xz")
WHERE = ["--debug-dir", str(ROOT / "fixtures" / "debug"), "--glibc", "2.36", "--sysroot", "/none"]
SIZE = ["size", "24", "--glibc", "2.36", "--abi", "x86_64"]


class Ran:
    """What one call of the shell door gave."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> Ran:
        status = cli.main(words)
        said = capsys.readouterr()
        return Ran(status, said.out, said.err)

    return call


def start(
    *words: str, stdout: int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the shell door as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "heapglass", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["chunks", CORE, "--limit", "3", *WHERE],
        [*WHERE, "chunks", CORE, "--limit", "3"],
        ["--limit", "3", "chunks", *WHERE, CORE],
        ["chunks", "--limit", "3", *WHERE[:2], CORE, *WHERE[2:]],
        ["chunks", "--limit=3", "--debug-dir=" + WHERE[1], *WHERE[2:], CORE],
    ],
)
def test_options_stand_before_or_behind_name_and_target(words: list[str], run: Run):
    ran = run(*words)

    assert (ran.status, ran.err) == (0, "")
    assert len([line for line in ran.out.splitlines() if line.startswith("0x")]) == 3


def test_an_options_value_is_not_taken_for_the_target(run: Run):
    ran = run("chunks", "--state", "free", "--sort", "-size", CORE, *WHERE, "--json")
    states = {chunk["state"] for chunk in json.loads(ran.out)["chunks"]}

    assert states == {"free"}


def test_positionals_come_behind_the_target(run: Run):
    first, second = (run("chunks", CORE, *WHERE, "--json", "--limit", "2").out for _ in range(2))
    address = json.loads(first)["chunks"][1]["address"]
    ran = run("chunk", CORE, address, *WHERE, "--json")

    assert first == second
    assert json.loads(ran.out)["chunk"]["address"] == address


def test_a_command_without_a_target_has_its_own_glibc(run: Run):
    old, new = run(*SIZE), run("--json", "size", "24", "--glibc=2.42", "--abi", "i386")

    assert "fast[0x20]" in old.out
    assert json.loads(new.out)["usable"] == 28


def test_numbers_may_be_negative_or_hex(run: Run):
    decimal = run("find", CORE, "-1", *WHERE, "--json")
    hexadecimal = run("find", "-0x1", CORE, *WHERE, "--json")

    assert decimal.out == hexadecimal.out
    assert json.loads(decimal.out)["command"] == "find"


def test_what_is_known_better_overrides_what_is_found(run: Run):
    info = json.loads(run("info", CORE, *WHERE, "--json").out)
    thread = info["threads"][0]
    tcache = f"{thread['id']}={thread['tcache']}"
    words = ["--main-arena", info["main_arena"]["address"], "--mp", info["mp_"]["address"]]
    again = json.loads(run("info", CORE, *WHERE, "--json", *words, "--tcache", tcache).out)

    assert again["main_arena"] == {**info["main_arena"], "how": "user"}
    assert again["mp_"] == {**info["mp_"], "how": "user"}
    assert again["threads"][0]["tcache_how"] == "user"
    assert again["threads"][0]["tcache"] == thread["tcache"]


def test_try_plays_on_a_core(run: Run):
    block = json.loads(run("try", CORE, "malloc 24", *WHERE, "--json").out)["calls"][0]["pointer"]
    ran = run("try", CORE, "a = malloc 24; free a", "--then", f"free {block}", *WHERE)

    assert ran.status == 0
    assert f"= {block}" in ran.out.splitlines()[0]
    assert "aborts: free(): double free detected in tcache 2" in ran.out


def test_a_core_is_compared_with_its_snapshot(run: Run, tmp_path: Path):
    path = str(tmp_path / "core.snap")
    wrote = run("snapshot", CORE, "-o", path, *WHERE)
    ran = run("diff", path, CORE, "--json", *WHERE)
    nothing = run("diff", "/nonexistent", CORE, *WHERE)

    assert (wrote.status, ran.status, nothing.status) == (0, 0, 2)
    assert json.loads(ran.out)["chunks"] == []
    assert json.loads(ran.out)["contents"] == "exactly"
    assert nothing.err.startswith("heapglass: /nonexistent: there is no such file")


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no command was given (heapglass --help lists them)"),
        (["--limit"], "no command was given"),
        (["chnks", CORE], "no command 'chnks' (did you mean chunks?)"),
        (["nonsense", CORE], "no command 'nonsense' (commands: info, arenas"),
        (["chunks"], "chunks needs a target (heapglass chunks CORE (or a process id))"),
        (["chunks", "/nonexistent/core"], "/nonexistent/core: there is no such file"),
        (["chunks", str(ROOT)], "it is a folder"),
        (["chunks", "999999999"], "there is no such process"),
        (["chunks", CORE, "--nothing"], "unrecognized arguments: --nothing (usage: heapglass"),
        (["chunks", CORE, "--limit", "few"], "'few' is no number"),
        (["chunks", CORE, "--limit", "-3"], "--limit -3: must not be negative"),
        (["chunks", CORE, "--color", "blue"], "argument --color: invalid choice: 'blue'"),
        (["chunk", CORE], "the following arguments are required: address"),
        (["chunks", CORE, "--debug-dir"], "--debug-dir needs a value"),
        (["chunks", CORE, "--tcache", "17"], "--tcache 17: expected THREAD=ADDR"),
        (["chunks", CORE, "--main-arena", "x"], "'x' is no number"),
        (["chunks", CORE, "--glibc", "9.99"], "9.99"),
        (["chunks", CORE, "--unpack-limit", "10", *WHERE[:2]], "limit"),
        (["--completion", "fish"], "no completion for 'fish' (--completion bash or zsh)"),
        (["chunks", "core\x1b[2J"], r"core\x1b[2J"),
    ],
)
def test_what_is_unusable_is_one_line_and_status_2(words: list[str], message: str, run: Run):
    ran = run(*words)

    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith("heapglass: ")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert ran.err[:-1].isprintable()


def raises(error: BaseException) -> Callable[..., Answer]:
    def view(*_: object) -> Answer:
        raise error

    return view


def with_view(monkeypatch: pytest.MonkeyPatch, view: Callable[..., Answer]) -> None:
    """Give `size` another view."""
    changed = Command("size", "", view, needs_target=False)
    monkeypatch.setattr(cli, "find_command", lambda _: changed)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (HeapglassError("two\nlines", "a hint"), "heapglass: two lines (a hint)"),
        (KeyError("x"), "heapglass: a fault in heapglass: KeyError: 'x' (HEAPGLASS_DEBUG=1"),
        (RecursionError(), "heapglass: a fault in heapglass: RecursionError"),
        (MemoryError(), "heapglass: there is not enough memory"),
        (OSError(5, "Input/output error"), "heapglass: a fault in heapglass: OSError"),
    ],
)
def test_whatever_goes_wrong_is_one_line(
    error: Exception, message: str, run: Run, monkeypatch: pytest.MonkeyPatch
):
    with_view(monkeypatch, raises(error))
    ran = run("size")

    assert ran.status == 2
    assert ran.err.startswith(message)
    assert ran.err.count("\n") == 1


def test_a_fault_can_be_looked_at(run: Run, monkeypatch: pytest.MonkeyPatch):
    with_view(monkeypatch, raises(KeyError("x")))
    monkeypatch.setenv("HEAPGLASS_DEBUG", "1")

    with pytest.raises(KeyError):
        run("size")


def test_a_command_that_found_faults_ends_with_1(run: Run, monkeypatch: pytest.MonkeyPatch):
    with_view(monkeypatch, lambda *_: Answer("size", status=1))
    ran = run("size")

    assert (ran.status, ran.err) == (1, "")


def test_a_target_that_ends_too_soon_is_status_2(tmp_path: Path, run: Run):
    cut = tmp_path / "core"
    cut.write_bytes(b"\x7fELF")
    ran = run("chunks", str(cut))

    assert ran.status == 2
    assert ran.err.count("\n") == 1


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(words: list[str], run: Run):
    ran = run(*words)

    assert (ran.status, ran.err) == (0, "")
    for command in COMMANDS:
        assert f"  {command.name} " in ran.out
        assert command.summary in ran.out
    for option in cli._TARGET_OPTIONS:
        assert option in ran.out


@pytest.mark.parametrize("words", [["chunk", "--help"], ["chunk", "-h", CORE], ["help", "chunk"]])
def test_help_of_one_command(words: list[str], run: Run):
    ran = run(*words)

    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines()[2] == "heapglass chunk ADDRESS [--as-chunk] [--trace FILE]"


def test_version(run: Run):
    assert run("--version").out == f"heapglass {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "number", "expected"),
    [
        ("heapglass ch", 1, "chunks chunk check"),
        ("heapglass chunks core --st", 3, "--state"),
        ("heapglass chunks core --debug", 3, "--debug-dir"),
        ("heapglass size --ab", 2, "--abi"),
        ("heapglass bins READ", 2, "README.md"),
    ],
)
def test_bash_completes(typed: str, number: int, expected: str, run: Run):
    script = run("--completion", "bash").out
    asked = f"COMP_WORDS=({typed}); COMP_CWORD={number}; _heapglass; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{asked}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == expected
    assert done.stderr == ""


def test_zsh_gets_the_same_script(run: Run):
    assert run("--completion", "zsh").out.endswith(run("--completion", "bash").out)
    assert run("--completion", "zsh").out.startswith("autoload -U +X bashcompinit")


# --- output ---------------------------------------------------------------------------------------


def test_json_is_one_document_and_all_that_is_printed(run: Run):
    ran = run("chunks", CORE, *WHERE, "--json")
    made = json.loads(ran.out)

    assert (made["heapglass"], made["command"]) == (1, "chunks")
    assert ran.err == ""


def test_colours_only_where_wanted(run: Run):
    words = ["bins", CORE, *WHERE, "--limit", "2"]

    assert "\x1b[" not in run(*words).out
    assert "\x1b[" in run(*words, "--color", "always").out
    assert "\x1b[" not in run(*words, "--color", "never").out


def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        done = start("chunks", CORE, "--all", *WHERE, stdout=full.fileno())

    assert done.returncode == 2
    assert done.stderr == "heapglass: cannot write the answer: No space left on device\n"


def test_a_closed_output_is_one_line():
    quoted = " ".join(["exec", sys.executable, "-m", "heapglass", *SIZE, ">&-"])
    done = subprocess.run(
        ["sh", "-c", quoted],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr == "heapglass: cannot write the answer: standard output is closed\n"


def test_a_reader_that_has_gone_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = start("chunks", CORE, "--all", *WHERE, stdout=writing)
    finally:
        os.close(writing)

    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_is_quiet(run: Run, monkeypatch: pytest.MonkeyPatch):
    with_view(monkeypatch, lambda *_: signal.raise_signal(signal.SIGINT))  # type: ignore[arg-type]
    monkeypatch.setattr(cli, "_drop_output", lambda: None)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        ran = run("size")
    finally:
        signal.signal(signal.SIGINT, before)

    assert (ran.status, ran.out, ran.err) == (130, "", "")


def test_a_terminal_that_knows_ascii_only_gets_all_of_the_answer():
    done = start("chunks", CORE, "--limit", "1", *WHERE, PYTHONIOENCODING="ascii")

    assert r"\u2026 " in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_a_listing_alone_for_other_programs(run: Run):
    ran = run("chunks", CORE, *WHERE, "--format", "jsonl", "--limit", "3")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [row["state"] for row in rows] == ["used", "fast", "tcache"]
    assert all(line.startswith("heapglass: ") for line in ran.err.splitlines())
    ran = run("leaks", CORE, *WHERE, "--format", "csv", "--table", "heads")
    assert ran.out.splitlines()[0] == "address,user,usable,cycle,count,bytes,type,content"
    assert (run("vis", CORE, *WHERE, "--format", "csv").status, run("size", "24").status) == (2, 0)
    assert run("chunks", CORE, "--table", "heads").status == 2

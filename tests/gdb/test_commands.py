"""The commands as a user of gdb meets them: help, completion, expressions, errors, Ctrl-C."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from heapglass.commands import COMMANDS as EVERYWHERE
from heapglass.progress import CLEAR, line
from tests.gdb.sessions import LOAD, STOPPED, Terminal, answers, batch, complaint

NO_TARGET = "no process or core: start one (run, attach) or open a core (core-file)"


# --- help and completion --------------------------------------------------------------------------

COMMANDS = [command for command in EVERYWHERE if command.door != "shell"]


def test_what_is_for_the_shell_says_so():
    assert "heapglass: record works in a shell" in complaint("heap record -o x", [LOAD])


def test_every_command_has_help_in_gdb():
    names = [command.name for command in COMMANDS]
    said = answers([f"help heap {name}" for name in names], [LOAD], None)

    for command, text in zip(COMMANDS, said):
        assert text.splitlines()[0].lower() == command.summary.lower() + "."
        assert f"heapglass {command.name}" in text
        for argument in command.arguments:
            assert argument.help in text


def test_the_prefix_lists_every_command():
    (alone, asked) = answers(["heap", "help heap"], [LOAD], None)

    for command in COMMANDS:
        assert command.summary in alone
        assert f"heapglass {command.name} -- " in asked


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("heap ch", ["heap chunk", "heap chunks"]),
        ("hg bi", ["hg bins"]),
        ("heapglass tc", ["heapglass tcache"]),
        ("heap chunks --s", ["heap chunks --sort", "heap chunks --state"]),
        ("heap chunks --sort s", ["heap chunks --sort size"]),
        ("heap chunks --json --color a", ["heap chunks --json --color always"]),
        ("heap chunk fir", ["heap chunk first"]),
        ("heap chunk first->ne", ["heap chunk first->next"]),
        ("heap chunks first --fr", ["heap chunks first --from"]),
        ("heap chunks --from fir", ["heap chunks --from first"]),
        ("set heapglass ma", ["set heapglass main-arena"]),
        ("set heapglass color n", ["set heapglass color never"]),
        ("show heapglass pre", ["show heapglass prefix"]),
    ],
)
def test_completion(typed: str, expected: list[str], program: Path):
    (said,) = answers([f"complete {typed}"], [LOAD], program)

    assert set(expected) <= set(said.splitlines())
    assert all(line.startswith(typed) for line in said.splitlines())


# --- expressions ----------------------------------------------------------------------------------


def test_arguments_are_expressions_of_the_program(program: Path):
    words = [
        "heap chunk first",
        "heap chunk first->next",
        "heap chunk (char*)first + 8",
        "heap chunk '(char *) first + 8' --json",
        "heap chunk blocks[2]",
        "heap chunk *blocks[2]@4",
        "heap chunk *first",
        "print/x first",
        "print/x first->next",
        "print/x blocks[2]",
    ]
    said = answers(words, STOPPED, program)
    first, following, block = (text.split(" = ")[1] for text in said[-3:])

    assert first in said[0]
    assert following in said[1]
    assert f"{int(first, 16) + 8:#x}" in said[2]
    assert json.loads(said[3])["asked"] == f"{int(first, 16) + 8:#x}"
    assert block in said[4]
    assert block in said[5]
    assert first in said[6]


def test_an_expression_is_the_selected_frames(program: Path):
    said = answers(["heap size number", "frame"], [LOAD, "break ready", "run"], program)

    assert said[0].startswith("request         7")
    assert "ready (number=7)" in said[1]


def test_an_expression_calls_and_writes_nothing(program: Path):
    permissions = ("may-call-functions", "may-write-memory", "may-write-registers")
    lines = ["heap chunk touch()", "heap chunk called=5", "print called"]
    said = batch([*STOPPED, *lines, *(f"show {name}" for name in permissions)], program)

    assert said.err.count("may-call-functions is off") == 1
    assert said.err.count("Writing to memory is not allowed") == 1
    assert "$1 = 0" in said.out
    on = [line for line in said.out.splitlines() if line.startswith("Permission to ")]
    assert len(on) == len(permissions)
    assert all(line.endswith(" is on.") for line in on)  # what was switched off is on again


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("heap chunk nothing", 'nothing: No symbol "nothing" in current context.'),
        ("heap chunk 1 +", "1 +: A syntax error in expression, near "),
        ("heap chunk", "chunk: the following arguments are required: address"),
        ("heap chunks --bogus", "chunks: unrecognized arguments: --bogus (usage: heapglass chunks"),
        ("heap chunks --limit -1", "--limit -1: must not be negative"),
        ("heap chunks --sort colour", "argument --sort: invalid choice: 'colour'"),
        ("heap chnks", "heapglass: no command 'chnks' (did you mean chunks?)"),
        ("heap chunk 0x10", "0x10"),
        ("heap chunk *(char*)0", "0: Cannot access memory at address 0x0"),
    ],
)
def test_an_error_is_one_line_that_says_what(command: str, message: str, program: Path):
    said = complaint(command, STOPPED, program)

    assert message in said
    assert said.count("\n") == 1


# --- targets --------------------------------------------------------------------------------------


def test_without_a_process_it_says_what_to_do(program: Path):
    assert complaint("heap chunks", [LOAD]) == f"{NO_TARGET}\n"
    assert complaint("heap chunks", [LOAD], program) == f"{NO_TARGET}\n"


def test_after_the_process_has_ended_it_says_so(program: Path):
    assert complaint("heap info", [LOAD, "run"], program) == f"{NO_TARGET}\n"


def test_a_process_that_runs_is_not_read(program: Path):
    setup = [LOAD, "break ready", "run", "set var waits = 1", "continue&"]
    said = complaint("heap info", setup, program)

    assert "it is running (stop it first: interrupt)" in said


def test_a_command_that_needs_no_target_runs_without(program: Path):
    (said,) = answers(["heap size 24 --glibc 2.42 --abi i386"], [LOAD], None)

    assert "0x1c" in said


def test_the_core_is_read_as_the_process_was(program: Path):
    lines = ["heap chunks --all --json", "heap bins --json", "heap tcache --json", "heap params"]
    made = program.with_name("same.core")
    between = [f"generate-core-file {made}", "kill", f"core-file {made}"]

    said = answers([*lines, *between, *lines], STOPPED, program)

    assert said[:4] == said[-4:]
    assert json.loads(said[0])["chunks"]


def test_a_core_without_its_program_is_read_too(program: Path, core: Path):
    (said,) = answers(["heap info --json"], [LOAD, f"core-file {core}"], None)

    assert json.loads(said)["main_arena"]["address"].startswith("0x")


def test_thread_and_frame_stay_selected(program: Path):
    where = ["thread", "frame", "info locals"]
    setup = [*STOPPED, "thread 2", "frame 1"]
    said = answers([*where, "heap info", "heap tcache", *where], setup, program)

    assert said[:3] == said[-3:]
    assert "[Current thread is 2" in said[0]


def test_gdbs_thread_numbers_stand_beside_the_kernels(program: Path):
    (text, threads) = answers(["heap info --json", "info threads"], STOPPED, program)

    for thread in json.loads(text)["threads"]:
        assert re.search(rf"LWP {thread['id']}\b", threads)


# --- settings -------------------------------------------------------------------------------------


def test_settings_are_in_force_and_shown(program: Path):
    lines = [
        "set heapglass limit 2",
        "heap chunks",
        "heap chunks --json",
        "heap chunks --all",
        "show heapglass limit",
        "set heapglass limit",
        "show heapglass limit",
        "set heapglass main-arena &main_arena",
        "heap info --json",
        "show heapglass",
    ]
    said = answers(lines, STOPPED, program)

    assert len([line for line in said[1].splitlines() if line.startswith("0x")]) == 2
    assert len(json.loads(said[2])["chunks"]) > 2
    assert len([line for line in said[3].splitlines() if line.startswith("0x")]) > 2
    assert said[4] == "How many rows a listing shows: 2."
    assert said[6] == "How many rows a listing shows: not set."
    assert json.loads(said[8])["main_arena"]["how"] == "user"
    assert len(said[9].splitlines()) == 8


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("set heapglass limit many", "'many' is no number"),
        ("set heapglass limit -3", "-3: must not be negative"),
        ("set heapglass main-arena 1 +", "1 +: A syntax error in expression"),
        ("set heapglass tcache 17", "'17': expected THREAD=ADDR"),
        ("set heapglass glibc new", "no glibc release in 'new'"),
        ("set heapglass color blue", 'Undefined item: "blue"'),
        ("set heapglass nothing 1", "heapglass has no setting 'nothing'"),
        ("set heapglass", "set heapglass what? (settings: glibc"),
    ],
)
def test_an_unusable_setting_is_refused_and_the_old_one_stays(command: str, message: str):
    assert message in complaint(command, [LOAD])
    said = batch([LOAD, "show heapglass", command, "show heapglass"]).out.splitlines()
    assert said[: len(said) // 2] == said[len(said) // 2 :]


def test_gdbs_folder_of_debug_files_is_obeyed(program: Path):
    setup = [LOAD, "set debug-file-directory /nonexistent", *STOPPED[1:]]
    (said,) = answers(["heap info --json"], setup, program)

    assert json.loads(said)["main_arena"]["how"] == "scan"


# --- output ---------------------------------------------------------------------------------------


def test_json_is_the_only_thing_on_standard_output(program: Path):
    said = batch([*STOPPED, "echo \\n<<<>>>\\n", "heap chunks --json"], program)

    assert json.loads(said.out.partition("<<<>>>\n")[2])["command"] == "chunks"


def test_colours_follow_the_option_and_the_setting(program: Path):
    lines = ["heap bins", "heap bins --color always", "heap bins --color never"]
    plain, coloured, never = answers(lines, STOPPED, program)
    (always,) = answers(["heap bins"], [*STOPPED, "set heapglass color always"], program)

    assert "\x1b[" not in plain + never
    assert "\x1b[" in coloured
    assert "\x1b[" in always


def test_gdbs_pager_stops_a_long_listing(program: Path):
    with Terminal(program, height=12) as terminal:
        for command in (*STOPPED[:1], "set height 0", *STOPPED[1:], "set height 12"):
            terminal.run(command)
        terminal.type("heap chunks --all\n")
        page = terminal.until("--Type <RET> for more.*--")
        terminal.type("q\n")
        after = terminal.until(r"\n\(gdb\) $")

    assert page.count("\n") <= 13
    assert "chunks," not in page
    assert "Quit" in after
    assert "Traceback" not in after


def test_ctrl_c_stops_a_listing_without_end(program: Path):
    with Terminal(program, height=0) as terminal:
        for command in STOPPED:
            terminal.run(command)
        terminal.run(
            "python import itertools, heapglass_gdb.commands as c; "
            "c.text_lines = lambda *_: (str(n) for n in itertools.count())"
        )
        terminal.type("heap chunks\n")
        terminal.until("\n1000\n")
        terminal.type("\x03")
        after = terminal.until(r"Quit\n\(gdb\) $")

    assert "Traceback" not in after


@pytest.mark.parametrize("place", ["heapglass.locate.locate", "c.ask", "c.text_lines", "c.parse"])
def test_ctrl_c_while_it_works_says_quit_and_no_more(place: str, program: Path):
    script = (
        "python\nimport heapglass.locate, heapglass_gdb.commands as c, os, signal\n"
        "def spin(*_):\n  os.kill(os.getpid(), signal.SIGINT)\n  while True: pass\n"
        f"{place} = spin\nend"
    )
    path = program.with_name(f"spin-{place}.gdb")
    path.write_text(script)

    assert complaint("heap chunks", [*STOPPED, f"source {path}"], program) == "Quit\n"


def test_a_fault_of_heapglass_is_one_line(program: Path):
    fault = "python import heapglass_gdb.commands as c; c.ask = lambda *_: [][1]"
    said = complaint("heap chunks", [*STOPPED, fault], program)

    assert said.startswith("a fault in heapglass: IndexError: list index out of range")
    assert said.count("\n") == 1


# --- how far it is --------------------------------------------------------------------------------

PATIENT = """python
import sys, threading, heapglass_gdb.commands as c
drawn, ask, Real = threading.Event(), c.ask, c.Progress
class Stream:
  def __init__(self, real): self._real = real
  def __getattr__(self, name): return getattr(self._real, name)
  def flush(self):
    self._real.flush()
    drawn.set()
c.Progress = lambda stream: Real(Stream(stream), patience=0)
def slow(command, target, request):
  target.report("reading", 1, 4)
  drawn.wait()
  return ask(command, target, request)
c.ask = slow
end
"""


def test_a_long_command_says_how_far_it_is_and_takes_that_away(program: Path):
    path = program.with_name("patient.gdb")
    path.write_text(PATIENT)
    with Terminal(program, height=0) as terminal:
        for command in (*STOPPED, f"source {path}"):
            terminal.run(command)
        shown = terminal.run("heap tcache")
    before, _, after = shown.rpartition(CLEAR)
    assert line("reading", 1, 4) in before
    assert "reading" not in after
    assert "tcache" in after


@pytest.mark.parametrize("stream", ["None", "closed"])
def test_without_a_standard_error_commands_work(stream: str, program: Path):
    gone = f"sys.__stderr__ = {stream}" if stream == "None" else "sys.__stderr__.close()"
    (said,) = answers(["heap tcache"], [*STOPPED, f"python import sys; {gone}"], program)
    assert "tcache" in said


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [True, False], ids=["live", "core"])
def test_references_have_the_names_of_variables(live: bool, program: Path, core: Path):
    stop = [LOAD, *STOPPED] if live else [LOAD, f"core-file {core}"]
    (variable, local) = answers(["heap refs first --json", "heap refs first->next"], stop, program)

    kinds = {ref["kind"]: ref for ref in json.loads(variable)["refs"]}
    assert kinds["global"]["symbol"] == "first"
    assert re.search(r"stack of thread .*: held in main \(\)", local)


def test_a_stack_without_debug_information_has_its_function(program: Path, tmp_path: Path):
    plain = tmp_path / "plain"
    subprocess.run(["strip", "--strip-debug", program, "-o", plain], check=True)
    (said,) = answers(["heap refs *(long*)&first"], [LOAD, *STOPPED], plain)

    assert "first (" in said


@pytest.mark.parametrize("live", [True, False], ids=["live", "core"])
def test_blocks_as_a_type_of_the_program(live: bool, program: Path, core: Path):
    stop = [LOAD, *STOPPED] if live else [LOAD, f"core-file {core}"]
    (found, text) = answers(
        ["heap types --as 'struct node' --json", "heap types --as 'struct node'"], stop, program
    )

    values = [block["value"] for block in json.loads(found)["blocks"]]
    assert sum(value.startswith("{next = 0x") for value in values) >= 3
    assert "{next = " in text
    assert complaint("heap types --as nope", stop, program) == (
        "no type 'nope' in the program's debug information "
        "(ptype shows what gdb knows; load the program with its symbols)\n"
    )


def test_try_takes_expressions_and_leaves_the_process_alone(program: Path):
    lines = [
        "print/x first",
        "heap try free(first); a = malloc 16; free a",
        "heap try 'free first; free first' --then 'malloc 3' --json",
        "heap chunks --all --json",
        "thread 2",
        "heap try malloc 8 --json",
    ]
    said = answers(["heap chunks --all --json", *lines], STOPPED, program)
    first = said[1].split(" = ")[1]

    assert said[0] == said[4]
    assert said[2].splitlines()[0] == "  1  free(first)"
    assert "used -> " in said[2]
    one, two = json.loads(said[3])["calls"]
    assert one["chunks"][0]["address"] == hex(int(first, 16) - 16)
    assert two["abort"]
    assert json.loads(said[3])["ended"] is True
    assert json.loads(said[6])["calls"][0]["thread"] != one["thread"]


def test_snapshots_are_kept_between_stops(program: Path, core: Path):
    lines = [
        "heap snapshot before",
        "heap diff before --json",
        "set var *(long *) first = 77",
        "heap diff before --json",
        f"heap snapshot other -o {program.with_name('other.snap')}",
        f"heap diff {program.with_name('other.snap')} {core} --json",
        "kill",
        f"heap diff {program.with_name('other.snap')} {core} --json",
        "print/x 1",
    ]
    said = answers(lines, [*STOPPED, "print/x first"], program)
    same, written = json.loads(said[1]), json.loads(said[3])

    assert same["chunks"] == []
    assert written["counts"]["written"]["count"] == 1
    assert written["chunks"][0]["ranges"]
    assert written["contents"] == "exactly"
    assert json.loads(said[5])["chunks"] == json.loads(said[7])["chunks"]

"""Objects and containers of a C++ program that counts its own: by type, and as leaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from programs import ARCHES, RELEASES, ROOT, Runtime, build
from session import run_gdb, settings

every_release = pytest.mark.parametrize(
    "runtime",
    [(glibc, arch) for glibc in RELEASES for arch in ARCHES],
    indirect=True,
    ids="-".join,
)


def ask(runtime: Runtime, *words: str, native: bool = True) -> Any:
    """The JSON document of a command in the shell."""
    command = [sys.executable, "-m", "heapglass", *words, "--json"]
    command += ["--debug-dir", str(runtime.debug_dir)]
    switched = {"PYTHONPATH": str(ROOT / "src"), "HEAPGLASS_NATIVE": str(int(native))}
    environment = {**os.environ, **switched}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def run_to_core(
    runtime: Runtime, program: Path, folder: Path, *asked: str, stop: str = "break heap_ready"
) -> list[Any]:
    """Run the program in gdb until its report is there, ask, make a core; return the answers."""
    lines = [
        *settings(str(runtime.debug_dir)),
        f"file {program}",
        stop,
        f"run {folder / 'report'}",
        "python import json",
        f"python file = open({str(folder / 'live.json')!r}, 'w')",
    ]
    lines += [
        f"python file.write(gdb.execute({'heapglass ' + command!r}, to_string=True) + '\\n')"
        for command in asked
    ]
    run_gdb(
        folder / "script",
        [*lines, "python file.close()", f"generate-core-file {folder / 'core'}"],
    )
    said = (folder / "live.json").read_text().split("\n\n")
    return [json.loads(one) for one in said if one.strip()]


def expected(report: Path) -> tuple[dict[str, int], dict[str, int]]:
    """What the program counted: blocks by type, and what it leaked."""
    types, leaked = {}, {}
    for line in report.read_text().splitlines():
        words = line.split(" ", 2)
        if words[0] == "type":
            types[words[2]] = int(words[1])
        elif words[0] == "leaked":
            leaked = {"count": int(words[1]), "bytes": int(words[2])}
    return types, leaked


def counted(found: Any, names: Any) -> dict[str, int]:
    groups = {group["type"]: group["count"] for group in found["types"]}
    assert groups["text"] >= names["text"], "the C library has texts of its own"
    return {name: groups.get(name, 0) for name in names if name != "text"}


def but_text(types: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in types.items() if name != "text"}


def own_texts(found: Any) -> int:
    return sum(block["content"] == "text of its own" for block in found["blocks"])


@every_release
def test_objects_are_told_and_leaks_found(runtime: Runtime, tmp_path: Path) -> None:
    program = build(runtime, "objects")
    live_types, live_leaks = run_to_core(runtime, program, tmp_path, "types --json", "leaks --json")
    core = str(tmp_path / "core")
    types, leaked = expected(tmp_path / "report")
    answers = [live_types, *(ask(runtime, "types", core, native=n) for n in (True, False))]
    for found in answers:
        assert counted(found, types) == but_text(types)
    assert answers[1]["types"] == answers[2]["types"]
    assert own_texts(ask(runtime, "types", core, "text", "--all")) == types["text"]
    assert live_leaks["totals"]["leaked"] == leaked
    in_core = ask(runtime, "leaks", core)
    if any("was not found" in text for text in in_core["warnings"]):
        # gdb 13 writes the stacks of glibc 2.42 as zeros, and with them the threads' tcaches
        assert in_core["totals"]["leaked"]["count"] < leaked["count"]
        assert in_core["totals"]["unknown"]["count"] >= leaked["count"] * 3 // 4
    else:
        assert in_core["totals"]["leaked"] == leaked
    (tmp_path / "core").unlink()


@every_release
def test_a_stripped_program_has_its_names_in_its_rtti(runtime: Runtime, tmp_path: Path) -> None:
    program = tmp_path / "objects"
    subprocess.run(["strip", "--strip-all", build(runtime, "objects"), "-o", program], check=True)
    run_to_core(runtime, program, tmp_path, stop="catch syscall exit_group")
    types, _ = expected(tmp_path / "report")
    answer = ask(runtime, "types", str(tmp_path / "core"))
    assert counted(answer, types) == but_text(types)
    how = {group["type"]: group["how"] for group in answer["types"]}
    assert how["Square"] == how["geometry::Circle<double>"] == "rtti"
    (tmp_path / "core").unlink()


def test_objects_of_a_real_python_are_known(tmp_path: Path) -> None:
    """The machine's own Python, all of whose objects come from malloc."""
    program = "import os, signal\nkept = [complex(n, 1) for n in range(3000)]\n"
    program += (
        f"open({str(tmp_path / 'ready')!r}, 'w').close()\nos.kill(os.getpid(), signal.SIGSTOP)"
    )
    environment = {**os.environ, "PYTHONMALLOC": "malloc"}
    interpreter = os.path.realpath(sys.executable)
    with subprocess.Popen([interpreter, "-S", "-c", program], env=environment) as process:
        try:
            os.waitpid(process.pid, os.WUNTRACED)
            assert (tmp_path / "ready").exists()
            words = [sys.executable, "-m", "heapglass", "types", str(process.pid), "--json"]
            switched = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
            done = subprocess.run(words, env=switched, capture_output=True, text=True, check=True)
        finally:
            process.kill()
    groups = {g["type"]: g for g in json.loads(done.stdout)["types"]}
    assert groups["complex"]["how"] == "python"
    assert groups["complex"]["count"] >= 3000
    assert {"function", "code", "type"} <= groups.keys()

"""Setting up on a fresh machine, with programs that only write down how they were called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAIN = ("sh", "env", "dirname", "grep", "touch", "mkdir", "cat", "chmod")


class Machine:
    """A folder with the project's set-up script and the only programs that it can call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.called = folder / "called"
        for place in (self.bin, folder / "tools"):
            place.mkdir()
        for name in PLAIN:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        shutil.copy(ROOT / "tools" / "setup.sh", folder / "tools")
        (folder / "pyproject.toml").write_text("")
        self.called.write_text("")
        self.program("apt-get")
        self.program("python3", self._venv())

    def _venv(self) -> str:
        own = '#!/bin/sh\\necho ".venv/bin/python $*" >> called\\n'
        return f"mkdir -p .venv/bin; printf '{own}' > .venv/bin/python; chmod +x .venv/bin/python"

    def program(self, name: str, does: str = ":") -> None:
        """Put a program there that writes down its words, then does something."""
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> "{self.called}"\n{does}\n')
        path.chmod(0o755)

    def set_up(self, what: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "sh"), str(self.folder / "tools" / "setup.sh"), what],
            env={"PATH": str(self.bin), "HOME": os.devnull},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        lines = self.called.read_text().splitlines()
        return [line for line in lines if not line.startswith(("dpkg-query", "id", "sudo -n"))]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.program("dpkg-query", "exit 1")
    made.program("id", "echo 1000")
    return made


def test_without_root_the_exact_line_is_printed_and_nothing_is_done(machine: Machine):
    done = machine.set_up("demo")

    assert done.returncode != 0
    assert "sudo apt-get update && sudo apt-get install -y --no-install-recommends" in done.stdout
    for package in ("gdb", "gcc", "libc6-dbg", "python3-venv", "make"):
        assert f" {package}" in done.stdout
    assert machine.calls() == []


def test_root_installs_what_is_missing_and_says_so(machine: Machine):
    machine.program("id", "echo 0")
    done = machine.set_up("demo")

    assert done.returncode == 0, done.stderr
    assert "setup: installing system packages:" in done.stdout
    assert "setup: making a virtual environment in .venv" in done.stdout
    update, install, venv, *pip = machine.calls()
    assert update.startswith("apt-get update")
    assert install.startswith("apt-get install -y --no-install-recommends python3")
    assert venv == "python3 -m venv .venv"
    assert all(".venv/bin/python -m pip install" in line for line in pip)
    assert pip


def test_sudo_is_used_where_it_asks_for_nothing(machine: Machine):
    machine.program("sudo", '[ "$1" = -n ] || "$@"')
    done = machine.set_up("demo")

    assert done.returncode == 0, done.stderr
    assert [line for line in machine.calls() if line.startswith("apt-get install")]


def test_the_tests_need_more_than_the_demo(machine: Machine):
    demo = machine.set_up("demo").stdout
    test = machine.set_up("test").stdout

    for package in ("gcc-multilib", "strace", "gdbserver", "xz-utils"):
        assert f" {package}" in test
        assert f" {package}" not in demo


@pytest.mark.parametrize(("what", "package"), [("abis", "gdb-multiarch"), ("fuzz", "clang")])
def test_some_profiles_need_another_package_and_the_same_python_ones(
    what: str, package: str, machine: Machine
):
    assert f" {package}" in machine.set_up(what).stdout
    assert f" {package}" not in machine.set_up("test").stdout
    machine.program("id", "echo 0")
    machine.set_up(what)

    assert any(".[dev]" in line for line in machine.calls())


def test_what_the_environment_is_made_of_makes_it_anew(machine: Machine):
    machine.program("id", "echo 0")
    machine.set_up("demo")
    stamp = machine.folder / ".venv" / ".heapglass-demo"
    loops = machine.folder / "src" / "heapglass" / "native" / "heapglass.c"
    loops.parent.mkdir(parents=True)
    loops.write_text("")
    os.utime(stamp, (1, 1))

    assert "setup: making a virtual environment" in machine.set_up("demo").stdout


def test_where_all_is_there_nothing_is_done_or_said(machine: Machine):
    machine.program("id", "echo 0")
    machine.program("dpkg-query", "echo installed")
    assert machine.set_up("test").returncode == 0
    before = machine.calls()
    again = machine.set_up("test")

    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert machine.calls() == before
    assert "apt-get" not in " ".join(before)
    assert any(".[dev]" in line for line in before)

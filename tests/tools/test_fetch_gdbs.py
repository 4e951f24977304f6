"""Bringing gdbs, from packages made here by an apt that is played; nothing is downloaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import fetch_gdbs
from gdbs import MANIFEST, BadGdb, read_gdb
from private_apt import AptError

LIBDIR = "usr/lib/x86_64-linux-gnu"
LOADER = f"{LIBDIR}/ld-linux-x86-64.so.2"
# Plays the dynamic loader: says what a gdb with Python 3.13 would say, and how it was called.
RUNS = '#!/bin/sh\necho "3.13.5 GNU gdb (Debian) 16.3"\nprintf "%s\\n" "$PYTHONHOME" "$@"\n'
FAILS = "#!/bin/sh\necho 'no Python here' >&2\nexit 1\n"


def make_package(folder: Path, name: str, files: dict[str, str]) -> Path:
    """Make a package; a file's text may be "-> target", a symbolic link."""
    tree = folder / "tree" / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 16.3-1\nArchitecture: amd64\n"
        "Maintainer: nobody <nobody@example.org>\nDescription: for a test\n"
    )
    for path, text in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            (tree / path).symlink_to(text[3:])
        else:
            (tree / path).write_text(text)
            (tree / path).chmod(0o755)
    path = folder / f"{name}.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


class FakeApt:
    """A mirror that has what `packages` says, suites under the names of `suites`."""

    packages: ClassVar[dict[str, dict[str, str]]] = {}
    suites: ClassVar[dict[str, str]] = {}  # the mirror's name to the codename
    architecture: ClassVar[bool] = True
    asked: ClassVar[list[str]] = []

    def __init__(self, folder: Path, uri: str, suite: str, arch: str) -> None:
        self._folder, self._suite = folder, suite
        assert (uri, arch) == ("http://mirror.example/debian", "amd64")

    def update(self) -> None:
        self.asked.append(self._suite)
        if self._suite not in self.suites:
            raise AptError(f"apt-get update: no {self._suite}")

    def codename(self) -> str:
        return self.suites[self._suite]

    def has_architecture(self) -> bool:
        return self.architecture

    def download_whole(self, packages: Sequence[str]) -> list[Path]:
        assert set(packages) == set(fetch_gdbs.WANTED)
        self._folder.mkdir(parents=True)
        return [make_package(self._folder, *package) for package in self.packages.items()]


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> type[FakeApt]:
    packages = {
        "gdb": {
            "usr/bin/gdb": "gdb",
            "usr/share/gdb/python/gdb/__init__.py": "",
            "usr/share/doc/gdb/copyright": "long",
            "etc/gdb/gdbinit": "-> /usr/share/gdb/gdbinit",
        },
        "gdbserver": {"usr/bin/gdbserver": "gdbserver"},
        "python3-pyelftools": {"usr/lib/python3/dist-packages/elftools/__init__.py": ""},
        "libc6": {LOADER: RUNS},
    }
    monkeypatch.setattr(fetch_gdbs, "PrivateApt", FakeApt)
    monkeypatch.setattr(fetch_gdbs, "mirror", lambda: "http://mirror.example/debian")
    monkeypatch.setattr(FakeApt, "packages", packages)
    monkeypatch.setattr(FakeApt, "suites", {"trixie": "trixie", "sid": "sid"})
    monkeypatch.setattr(FakeApt, "architecture", True)
    monkeypatch.setattr(FakeApt, "asked", [])
    return FakeApt


def fetch(tmp_path: Path, *words: str) -> int:
    return fetch_gdbs.main(["--cache", str(tmp_path / "cache"), *words])


def left_over(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").glob(".new-*"))


def test_a_gdb_is_unpacked_with_a_script_that_keeps_to_it(
    apt: type[FakeApt], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert fetch(tmp_path, "--suite", "trixie") == 0

    said = capsys.readouterr().out
    assert said == f"gdb {'16.3-1':<10} Python {'3.13.5':<8} {'trixie':<10} mirror\n"
    gdb = read_gdb("trixie", tmp_path / "cache")
    root = gdb.folder / "root"
    assert (gdb.package, gdb.version, gdb.python) == ("16.3-1", "16.3", "3.13.5")
    done = subprocess.run([gdb.program, "-p", "1"], capture_output=True, text=True, check=True)
    _, home, *arguments = done.stdout.splitlines()
    assert home == f"{root}/usr"
    assert arguments == [
        *("--library-path", f"{root}/lib/x86_64-linux-gnu:{root}/{LIBDIR}"),
        *(f"{root}/usr/bin/gdb", "--data-directory", f"{root}/usr/share/gdb", "-p", "1"),
    ]
    assert os.readlink(root / "etc/gdb/gdbinit") == "../../usr/share/gdb/gdbinit"
    assert not (root / "usr/share/doc").exists()
    assert left_over(tmp_path) == []


def test_what_is_there_is_fetched_again_only_on_request(apt: type[FakeApt], tmp_path: Path):
    assert fetch(tmp_path, "--suite", "sid") == 0
    assert fetch(tmp_path, "--suite", "sid") == 0
    assert apt.asked == ["sid"]
    assert fetch(tmp_path, "--suite", "sid", "--refresh") == 0
    assert apt.asked == ["sid", "sid"]
    assert left_over(tmp_path) == []


def test_a_suite_is_asked_for_by_its_other_name(
    apt: type[FakeApt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(FakeApt, "suites", {"stable": "trixie"})
    assert fetch(tmp_path, "--suite", "trixie") == 0
    assert apt.asked == ["trixie", "stable"]


def test_a_name_that_moved_on_is_not_taken(
    apt: type[FakeApt],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(FakeApt, "suites", {"stable": "forky"})
    assert fetch(tmp_path, "--suite", "trixie") == 1
    assert capsys.readouterr().err == "gdb of trixie: apt-get update: no trixie\n"
    monkeypatch.setattr(FakeApt, "suites", {"trixie": "forky"})
    assert fetch(tmp_path, "--suite", "trixie") == 1
    assert capsys.readouterr().err == "gdb of trixie: the mirror's trixie is forky, not trixie\n"


def test_one_that_fails_keeps_no_other_from_coming(
    apt: type[FakeApt], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert fetch(tmp_path, "--suite", "bullseye", "--suite", "sid") == 1
    said = capsys.readouterr()
    assert said.err == "gdb of bullseye: apt-get update: no bullseye\n"
    assert "sid" in said.out


def test_a_suite_without_this_architecture_says_so(
    apt: type[FakeApt],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(FakeApt, "architecture", False)
    assert fetch(tmp_path, "--suite", "sid") == 1
    assert capsys.readouterr().err == "gdb of sid: sid does not have amd64\n"


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("gdbserver", "expected gdb, gdbserver, python3-pyelftools among 3 packages"),
        ("libc6", f"expected the dynamic loader of libc6 at {LOADER}"),
    ],
)
def test_what_is_missing_is_said_and_nothing_stays(
    lost: str,
    said: str,
    apt: type[FakeApt],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    del apt.packages[lost]
    assert fetch(tmp_path, "--suite", "sid") == 1
    assert said in capsys.readouterr().err
    assert left_over(tmp_path) == []
    with pytest.raises(BadGdb, match=r"run `python3 tools/fetch_gdbs\.py`"):
        read_gdb("sid", tmp_path / "cache")


def test_a_gdb_that_does_not_run_never_takes_the_place_of_one_that_does(
    apt: type[FakeApt], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert fetch(tmp_path, "--suite", "sid") == 0
    apt.packages["libc6"] = {LOADER: FAILS}
    assert fetch(tmp_path, "--suite", "sid", "--refresh") == 1
    expected = "gdb of sid: gdb 16.3-1 of sid does not run here: no Python here\n"
    assert capsys.readouterr().err == expected
    assert read_gdb("sid", tmp_path / "cache").python == "3.13.5"


def test_a_broken_manifest_says_what_to_remove(tmp_path: Path):
    (tmp_path / "sid").mkdir()
    for text in ("{", '{"suite": "sid"}', "[]"):
        (tmp_path / "sid" / MANIFEST).write_text(text)
        with pytest.raises(BadGdb, match=f"remove {tmp_path / 'sid'}"):
            read_gdb("sid", tmp_path)
    (tmp_path / "sid" / MANIFEST).write_text(json.dumps(dict.fromkeys(("suite", "package"), "x")))
    with pytest.raises(BadGdb, match="not a gdb's manifest"):
        read_gdb("sid", tmp_path)

"""Bringing the cross compilers, with an apt that only writes down what it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import fetch_cross
from fetch_cross import DONE, TRIPLES, bring, compiler_packages
from private_apt import AptError


class FakeApt:
    """Has every package but those named in `missing`; each holds nothing."""

    asked: ClassVar[list[tuple[str, tuple[str, ...]]]] = []
    missing: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path, uri: str, suite: str, arch: str) -> None:
        self.suite = suite
        (folder.parent / "unpacked").mkdir()

    def update(self) -> None:
        """Nothing to fetch."""

    def download(self, packages: Sequence[str]) -> list[Path]:
        for package in packages:
            if package in self.missing:
                raise AptError(f"apt-get download: no {package}")
        self.asked.append((self.suite, tuple(packages)))
        return []


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> type[FakeApt]:
    monkeypatch.setattr(fetch_cross, "PrivateApt", FakeApt)
    monkeypatch.setattr(fetch_cross, "mirror", lambda: "http://mirror.example/debian")
    monkeypatch.setattr(FakeApt, "asked", [])
    return FakeApt


def test_each_machine_has_a_compiler_and_headers():
    packages = compiler_packages()

    for arch, triple in TRIPLES.items():
        assert f"gcc-12-{triple}" in packages
        assert f"libc6-dev-{arch}-cross" in packages
    assert len(packages) == len(set(packages))


def test_what_is_there_is_not_fetched_again(apt: type[FakeApt], tmp_path: Path):
    assert bring(tmp_path / "cross", "bookworm", ["a", "b"])
    assert not bring(tmp_path / "cross", "bookworm", ["a", "b"])
    assert bring(tmp_path / "cross", "bookworm", ["a", "c"])

    assert apt.asked == [("bookworm", ("a", "b")), ("bookworm", ("a", "c"))]
    assert (tmp_path / "cross" / DONE).read_text() == "bookworm\na\nc\n"
    assert list(tmp_path.glob(".new-*")) == []


def test_a_package_that_is_not_to_be_had_is_said_and_nothing_stays(
    apt: type[FakeApt],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(fetch_cross, "CROSS", tmp_path / "cross")
    monkeypatch.setattr(fetch_cross, "QEMU", tmp_path / "qemu")
    monkeypatch.setattr(FakeApt, "missing", ("qemu-user",))

    assert fetch_cross.main() == 1
    assert capsys.readouterr().err == "apt-get download: no qemu-user\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cross"]

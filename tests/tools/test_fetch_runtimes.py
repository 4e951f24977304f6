"""Runtimes from a folder of packages and from a mirror that is played; nothing is downloaded."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import fetch_runtimes
from fetch_runtimes import NoArchitecture, main
from packages import WANTED, Package, from_control, from_name, in_folder, newest_pair, read_sums
from private_apt import AptError
from runtimes import BadRuntime, glibc_of, runtimes

LIBDIR = "usr/lib/x86_64-linux-gnu"
LIBRARY = {f"{LIBDIR}/libc.so.6": "library", f"{LIBDIR}/ld-linux-x86-64.so.2": "loader"}
DEBUG = {"usr/lib/debug/.build-id/ab/cd.debug": "debug"}


def make_deb(folder: Path, name: str, version: str, arch: str, files: dict[str, str]) -> Path:
    """Make a package and enter it into the folder's SHA256SUMS."""
    tree = folder / "tree" / f"{name}-{version}-{arch}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\n"
        "Maintainer: nobody <nobody@example.org>\nDescription: for a test\n"
    )
    for path, text in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(f"{text} {version}")
    path = folder / f"{name}_{version}_{arch}.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    with (folder / "SHA256SUMS").open("a") as sums:
        sums.write(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    return path


def make_pair(folder: Path, version: str) -> list[Path]:
    return [
        make_deb(folder, "libc6", version, "amd64", LIBRARY),
        make_deb(folder, "libc6-dbg", version, "amd64", DEBUG),
    ]


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "packages"
    folder.mkdir()
    make_pair(folder, "2.43-7")
    return folder


@pytest.fixture(autouse=True)
def mirror(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the mirror has: suite -> files, or the error that it raises. At first nothing."""
    has: dict[str, object] = {}

    def ask(work: Path, suite: str, arch: str, wanted: object = WANTED) -> list[Package]:
        key = suite if wanted == WANTED else f"{suite} {wanted}"
        found = has.get(key, AptError("the mirror was asked"))
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, list)
        return [from_control(path) for path in found]

    monkeypatch.setattr(fetch_runtimes, "_from_mirror", ask)
    return has


def fetch(tmp_path: Path, packages: Path, suites: str, *more: str) -> int:
    common = ["--archs", "amd64", "--cache", str(tmp_path / "cache")]
    return main([*common, "--packages", str(packages), "--suites", suites, *more])


def test_the_folder_s_packages_become_a_runtime(
    tmp_path: Path, packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path, packages, "sid") == 0

    folder = tmp_path / "cache" / "2.43-amd64"
    assert json.loads((folder / "runtime.json").read_text()) == {
        "glibc": "2.43",
        "package": "2.43-7",
        "suite": "sid",
        "arch": "amd64",
        "loader": f"{LIBDIR}/ld-linux-x86-64.so.2",
        "libdir": LIBDIR,
        "debug_dir": "usr/lib/debug",
        "also_in": [],
    }
    assert [r.libc.read_text() for r in runtimes(tmp_path / "cache")] == ["library 2.43-7"]
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [".lock", "2.43-amd64"]
    assert capsys.readouterr().out.split() == ["2.43-amd64", "2.43-7", "sid", "packages"]


STATIC_SID = "sid ('libc6-dev',)"


def test_what_static_programs_need_comes_from_the_folder_too(
    tmp_path: Path, packages: Path
) -> None:
    make_deb(packages, "libc6-dev", "2.43-7", "amd64", {f"{LIBDIR}/libc.a": "archive"})
    make_deb(packages, "libc6-dev", "2.43-9", "amd64", {f"{LIBDIR}/libc.a": "archive"})

    assert fetch(tmp_path, packages, "sid") == 0
    static = tmp_path / "cache" / "2.43-amd64" / "static"
    assert not static.exists()
    assert fetch(tmp_path, packages, "sid", "--static") == 0

    assert (static / LIBDIR / "libc.a").read_text() == "archive 2.43-7"
    (static / "witness").touch()
    assert fetch(tmp_path, packages, "sid", "--static") == 0
    assert (static / "witness").exists()


def test_what_static_programs_need_must_be_of_the_same_version(
    tmp_path: Path,
    packages: Path,
    mirror: dict[str, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    files = {f"{LIBDIR}/libc.a": "archive"}
    mirror[STATIC_SID] = [make_deb(other, "libc6-dev", "2.43-8", "amd64", files)]

    assert fetch(tmp_path, packages, "sid", "--static") == 1
    said = capsys.readouterr().err
    assert "libc6-dev 2.43-7 amd64: the mirror has 2.43-8; fetch anew with --refresh" in said

    mirror[STATIC_SID] = [make_deb(other, "libc6-dev", "2.43-7", "amd64", files)]
    assert fetch(tmp_path, packages, "sid", "--static") == 0
    assert (tmp_path / "cache" / "2.43-amd64" / "static" / LIBDIR / "libc.a").exists()


def test_a_damaged_package_for_static_programs_is_refused(
    tmp_path: Path, packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_deb(packages, "libc6-dev", "2.43-7", "amd64", {f"{LIBDIR}/libc.a": "archive"})
    path.write_bytes(path.read_bytes() + b"more")

    assert fetch(tmp_path, packages, "sid", "--static") == 1
    assert "is not the file that SHA256SUMS names" in capsys.readouterr().err


def test_what_is_there_is_not_unpacked_again(
    tmp_path: Path, packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(tmp_path, packages, "sid")
    witness = tmp_path / "cache" / "2.43-amd64" / "witness"
    witness.touch()
    capsys.readouterr()

    assert fetch(tmp_path, packages, "sid") == 0

    assert witness.exists()
    assert capsys.readouterr().out.split()[-1] == "there"


def test_another_package_of_the_release_replaces_it(tmp_path: Path, packages: Path) -> None:
    fetch(tmp_path, packages, "sid")
    make_pair(packages, "2.43-10")

    assert fetch(tmp_path, packages, "sid") == 0

    assert [r.libc.read_text() for r in runtimes(tmp_path / "cache")] == ["library 2.43-10"]


def test_a_folder_without_a_manifest_was_interrupted(tmp_path: Path, packages: Path) -> None:
    fetch(tmp_path, packages, "sid")
    cache = tmp_path / "cache"
    (cache / "2.43-amd64" / "runtime.json").unlink()
    (cache / ".new-left" / "runtime").mkdir(parents=True)
    assert runtimes(cache) == []

    assert fetch(tmp_path, packages, "sid") == 0

    assert [r.name for r in runtimes(cache)] == ["2.43-amd64"]
    assert not (cache / ".new-left").exists()


def test_a_file_that_is_not_the_one_of_the_sums_is_refused(
    tmp_path: Path, packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums = packages / "SHA256SUMS"
    first, _, rest = sums.read_text().partition("\n")
    sums.write_text(f"{'0' * 64}{first[64:]}\n{rest}")

    assert fetch(tmp_path, packages, "sid") == 1

    said = capsys.readouterr().err
    assert "libc6_2.43-7_amd64.deb is not the file that SHA256SUMS names" in said
    assert said.count("\n") == 1
    assert runtimes(tmp_path / "cache") == []


def test_a_file_that_the_sums_do_not_name_is_refused(
    tmp_path: Path, packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums = packages / "SHA256SUMS"
    sums.write_text(sums.read_text().partition("\n")[2])

    assert fetch(tmp_path, packages, "sid") == 1

    assert "libc6_2.43-7_amd64.deb is not in SHA256SUMS" in capsys.readouterr().err


def test_a_package_under_another_s_name_is_refused(
    tmp_path: Path, packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (packages / "SHA256SUMS").unlink()
    (packages / "libc6_2.43-7_amd64.deb").rename(packages / "libc6_2.43-8_amd64.deb")
    (packages / "libc6-dbg_2.43-7_amd64.deb").rename(packages / "libc6-dbg_2.43-8_amd64.deb")

    assert fetch(tmp_path, packages, "sid") == 1

    assert "is not the package that it is called" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (f"{LIBDIR}/libc.so.6", "expected a libc.so.6"),
        (f"{LIBDIR}/ld-linux-x86-64.so.2", "expected the dynamic loader"),
    ],
)
def test_a_package_without_its_library_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, said: str
) -> None:
    files = {path: text for path, text in LIBRARY.items() if path != missing}
    make_deb(tmp_path, "libc6", "2.43-7", "amd64", files)
    make_deb(tmp_path, "libc6-dbg", "2.43-7", "amd64", DEBUG)

    assert fetch(tmp_path, tmp_path, "sid") == 1

    assert said in capsys.readouterr().err
    assert runtimes(tmp_path / "cache") == []


def test_debug_files_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_deb(tmp_path, "libc6", "2.43-7", "amd64", LIBRARY)
    make_deb(tmp_path, "libc6-dbg", "2.43-7", "amd64", {"usr/share/doc/x": "x"})

    assert fetch(tmp_path, tmp_path, "sid") == 1

    assert "expected debug files by build id" in capsys.readouterr().err


def test_the_mirror_is_asked_for_what_the_folder_does_not_have(
    tmp_path: Path, packages: Path, mirror: dict[str, object]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mirror["bookworm"] = make_pair(elsewhere, "2.36-9+deb12u14")

    assert fetch(tmp_path, packages, "bookworm,sid") == 0

    assert [r.package for r in runtimes(tmp_path / "cache")] == ["2.36-9+deb12u14", "2.43-7"]


def test_one_failure_does_not_keep_the_rest_away(
    tmp_path: Path, packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path, packages, "bookworm,sid") == 1

    said = capsys.readouterr()
    assert said.err == "bookworm amd64: the mirror was asked\n"
    assert said.out.split()[0] == "2.43-amd64"


def test_an_architecture_that_a_suite_never_had_is_no_failure(
    tmp_path: Path,
    packages: Path,
    mirror: dict[str, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    mirror["bookworm"] = NoArchitecture("bookworm does not have amd64")

    assert fetch(tmp_path, packages, "bookworm,sid") == 0

    assert "bookworm does not have amd64" in capsys.readouterr().out


def test_a_release_newer_than_the_tables_is_reported_and_kept(
    tmp_path: Path,
    packages: Path,
    mirror: dict[str, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    mirror["experimental"] = make_pair(packages, "2.45-1")

    assert fetch(tmp_path, packages, "experimental") == 0

    assert "(newer than the tables, which end at 2.44: not tested)" in capsys.readouterr().out
    assert [r.name for r in runtimes(tmp_path / "cache")] == ["2.45-amd64"]
    assert main(["--list", "--cache", str(tmp_path / "cache")]) == 0
    assert "newer than the tables" in capsys.readouterr().out


def test_two_suites_at_one_release_share_a_runtime(
    tmp_path: Path,
    packages: Path,
    mirror: dict[str, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    mirror["experimental"] = make_pair(other, "2.43-8")

    assert fetch(tmp_path, packages, "sid,experimental") == 0
    mirror["experimental"] = AptError("asked again")
    assert fetch(tmp_path, packages, "sid,experimental") == 0

    (runtime,) = runtimes(tmp_path / "cache")
    assert (runtime.suite, runtime.also_in, runtime.package) == ("sid", ("experimental",), "2.43-7")


def test_refresh_asks_again(tmp_path: Path, packages: Path, mirror: dict[str, object]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    mirror["trixie"] = make_pair(old, "2.41-12+deb13u4")
    fetch(tmp_path, packages, "trixie")
    mirror["trixie"] = make_pair(new, "2.41-12+deb13u5")

    fetch(tmp_path, packages, "trixie")
    kept = [r.package for r in runtimes(tmp_path / "cache")]
    fetch(tmp_path, packages, "trixie", "--refresh")

    assert kept == ["2.41-12+deb13u4"]
    assert [r.package for r in runtimes(tmp_path / "cache")] == ["2.41-12+deb13u5"]


def test_a_manifest_that_is_none_is_named(
    tmp_path: Path, packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(tmp_path, packages, "sid")
    manifest = tmp_path / "cache" / "2.43-amd64" / "runtime.json"
    capsys.readouterr()
    for damaged in ("{", "[]", '{"glibc": "2.43"}'):
        manifest.write_text(damaged)

        assert main(["--list", "--cache", str(tmp_path / "cache")]) == 1

        said = capsys.readouterr().err
        assert f"{manifest} is not a runtime's manifest" in said
        assert said.count("\n") == 1


def test_a_folder_of_packages_must_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path, tmp_path / "nowhere", "sid") == 1

    assert "--packages wants one with .deb files" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--suites", "woody"], ["--archs", "m68k"], ["--archs", ","]])
def test_a_suite_or_architecture_that_is_not_known(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(option)

    assert "expected some of" in capsys.readouterr().err


# --- packages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("libc6_2.43-7_amd64.deb", ("libc6", "2.43-7", "amd64")),
        ("libc6-dbg_2.36-9+deb12u14_i386.deb", ("libc6-dbg", "2.36-9+deb12u14", "i386")),
        ("libc6_1%3a2.43-7_arm64.deb", ("libc6", "1:2.43-7", "arm64")),
        ("README.md", None),
        ("libc6.deb", None),
    ],
)
def test_a_package_s_name(name: str, read: tuple[str, str, str] | None) -> None:
    found = from_name(Path(name))

    assert (found and found[1:]) == read


def test_a_package_with_another_name_is_asked_what_it_is(packages: Path) -> None:
    (packages / "libc6_2.43-7_amd64.deb").rename(packages / "renamed.deb")
    make_deb(packages, "libc6-dev", "2.43-7", "amd64", {"usr/include/x.h": "x"})

    found = {(p.name, p.version, p.arch): p.path.name for p in in_folder(packages)}

    assert found == {
        ("libc6", "2.43-7", "amd64"): "renamed.deb",
        ("libc6-dbg", "2.43-7", "amd64"): "libc6-dbg_2.43-7_amd64.deb",
    }


def test_a_file_that_is_no_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "noise.deb").write_bytes(b"noise")

    with pytest.raises(BadRuntime, match=r"noise\.deb: expected a Debian package"):
        in_folder(tmp_path)


def pair(version: str, arch: str = "amd64") -> list[Package]:
    return [Package(Path(name), name, version, arch) for name in ("libc6", "libc6-dbg")]


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        (pair("2.43-7"), "2.43-7"),
        (pair("2.43-9") + pair("2.43-10") + pair("2.43-10~bpo1"), "2.43-10"),
        (pair("2.43-7") + pair("2.43-8")[:1], "2.43-7"),  # without its debug files
        (pair("2.44-3") + pair("2.43-7", "i386") + pair("2.4-1"), None),
        ([], None),
    ],
)
def test_the_newest_whole_pair_of_the_release_is_chosen(
    there: list[Package], chosen: str | None
) -> None:
    found = newest_pair(there, "2.43", "amd64")

    assert [p.name for p in found] == (["libc6", "libc6-dbg"] if chosen else [])
    assert {p.version for p in found} == ({chosen} if chosen else set())


def test_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    assert read_sums(tmp_path) is None
    (tmp_path / "SHA256SUMS").write_text(f"{'A' * 64}  a.deb\n{'0' * 64} *./b.deb\n")
    assert read_sums(tmp_path) == {"a.deb": "a" * 64, "b.deb": "0" * 64}

    (tmp_path / "SHA256SUMS").write_text("not a sum\n")
    with pytest.raises(BadRuntime, match="expected lines of sha256sum, found 'not a sum'"):
        read_sums(tmp_path)


def test_the_release_of_a_package() -> None:
    assert glibc_of("2.36-9+deb12u14") == "2.36"
    assert glibc_of("1:2.44-3") == "2.44"
    for bad in ("", "git", "2"):
        with pytest.raises(BadRuntime, match="is no version of glibc"):
            glibc_of(bad)


# --- the suite behind a name --------------------------------------------------------------------


class PlayedApt:
    """An apt whose mirror has a suite under some names only."""

    def __init__(self, folder: Path, uri: str, suite: str, arch: str) -> None:
        self._suite = suite
        self._folder = folder
        folder.mkdir(parents=True)

    whole: tuple[str, ...] = ()
    codenames: tuple[tuple[str, str], ...] = ()
    versions: tuple[str, str] = ("2.41-1", "2.41-1")

    def update(self) -> None:
        if self._suite not in self.whole:
            raise AptError(f"{self._suite} is not whole")

    def codename(self) -> str:
        return dict(self.codenames).get(self._suite, self._suite)

    def has_architecture(self) -> bool:
        return True

    def download(self, names: list[str]) -> list[Path]:
        debs = zip(("libc6", "libc6-dbg"), self.versions, (LIBRARY, DEBUG))
        return [make_deb(self._folder, n, v, "amd64", files) for n, v, files in debs]


def played(monkeypatch: pytest.MonkeyPatch, **attributes: object) -> None:
    monkeypatch.undo()  # the mirror that is played everywhere else
    monkeypatch.setattr(fetch_runtimes, "PrivateApt", type("Apt", (PlayedApt,), attributes))
    monkeypatch.setenv("HEAPGLASS_MIRROR", "http://a.example/debian")


def test_a_suite_that_is_whole_under_its_other_name_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(monkeypatch, whole=("stable",), codenames=(("stable", "trixie"),))

    assert fetch(tmp_path, tmp_path, "trixie") == 0

    assert [r.suite for r in runtimes(tmp_path / "cache")] == ["trixie"]


@pytest.mark.parametrize(
    ("suite", "names"),
    [
        ("trixie", (("stable", "forky"),)),  # the name has moved on
        ("sid", (("unstable", "rc-buggy"),)),
        ("experimental", ()),
    ],
)
def test_another_suite_behind_the_name_is_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    suite: str,
    names: tuple[tuple[str, str], ...],
) -> None:
    played(monkeypatch, whole=("stable", "unstable", "experimental"), codenames=names)

    assert fetch(tmp_path, tmp_path, suite) == 1

    assert capsys.readouterr().err.count("\n") == 1
    assert runtimes(tmp_path / "cache") == []


def test_experimental_calls_itself_rc_buggy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (("experimental", "rc-buggy"),)
    played(monkeypatch, whole=("experimental",), codenames=names, versions=("2.44-3", "2.44-3"))

    assert fetch(tmp_path, tmp_path, "experimental") == 0


def test_library_and_debug_files_of_two_versions_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played(monkeypatch, whole=("trixie",), versions=("2.41-1", "2.41-2"))

    assert fetch(tmp_path, tmp_path, "trixie") == 1

    assert "expected libc6 and libc6-dbg of one version" in capsys.readouterr().err

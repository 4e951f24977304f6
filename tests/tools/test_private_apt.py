"""The mirror that the machine names, and the apt of our own, with a stand-in for apt-get."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import private_apt
from private_apt import (
    AptError,
    PrivateApt,
    Source,
    choose_mirror,
    complaint,
    configuration,
    keyring,
    machine_sources,
    mirror,
    parse_list,
    parse_sources,
    source_line,
)

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"

ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb-src http://sources.example/debian bookworm main
deb [ arch=amd64 signed-by=/k/debian-archive.gpg ] http://a.example/debian/ bookworm main free # yes
  deb\thttp://b.example/debian\tsid\tmain
deb http://flat.example/ ./
"""

DEB822 = """\
# made by the installer
Types: deb deb-src
URIs: http://a.example/debian http://b.example/debian
# in between
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://off.example/debian
Suites: sid
Components: main
Enabled: no

Types: deb-src
URIs: http://sources.example/debian
Suites: sid
Components: main
"""


def test_one_line_sources_are_read() -> None:
    assert list(parse_list(ONE_LINE)) == [
        Source(
            "http://a.example/debian/",
            ("bookworm",),
            ("main", "free"),
            "/k/debian-archive.gpg",
        ),
        Source("http://b.example/debian", ("sid",), ("main",)),
        Source("http://flat.example/", ("./",), ()),
    ]


def test_deb822_sources_are_read_but_for_what_is_off_or_of_sources() -> None:
    suites = ("bookworm", "bookworm-updates")

    assert list(parse_sources(DEB822)) == [
        Source("http://a.example/debian", suites, ("main",), KEYS),
        Source("http://b.example/debian", suites, ("main",), KEYS),
    ]


@pytest.mark.parametrize("off", ["no", "No", "false", "off", "without", "disable"])
def test_deb822_knows_every_no_of_apt(off: str) -> None:
    text = f"Types: deb\nURIs: http://a.example\nSuites: sid\nComponents: main\nEnabled: {off}\n"

    assert list(parse_sources(text)) == []


def test_the_machine_s_sources_are_both_kinds_of_files_and_no_others(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://first.example/debian sid main\n")
    (parts / "b.sources").write_text(DEB822)
    (parts / "a.list").write_text("deb http://second.example/debian sid main\n")
    (parts / "c.list.disabled").write_text("deb http://never.example/debian sid main\n")

    assert [source.uri.split("/")[2] for source in machine_sources(tmp_path)] == [
        "first.example",
        "second.example",
        "a.example",
        "b.example",
    ]


SECURITY = Source("http://d.example/debian-security", ("bookworm-security",), ("main",), KEYS)
THIRD = Source("http://third.example/linux/debian", ("bookworm",), ("main",))
PLAIN = Source("http://d.example/debian", ("trixie",), ("main", "contrib"))
UPDATES = Source("http://d.example/debian", ("trixie-updates",), ("main",))
SIGNED = Source("http://signed.example/debian/", ("stable",), ("main",), KEYS)
UBUNTU = Source("http://u.example/ubuntu", ("noble", "noble-updates"), ("main",))
CDROM = Source("cdrom:[Debian]/", ("bookworm",), ("main",), KEYS)


@pytest.mark.parametrize(
    ("sources", "chosen"),
    [
        ([SECURITY, PLAIN], "http://d.example/debian"),
        ([THIRD, PLAIN, UPDATES], "http://d.example/debian"),  # Debian's have updates
        ([THIRD, PLAIN, UPDATES, SIGNED], "http://signed.example/debian"),
        ([CDROM, PLAIN], "http://d.example/debian"),
        ([THIRD], "http://third.example/linux/debian"),  # has no signature of Debian: apt refuses
        ([UBUNTU, SECURITY, CDROM], None),
        ([], None),
    ],
)
def test_the_mirror_is_the_source_that_is_most_like_debian(
    sources: list[Source], chosen: str | None
) -> None:
    assert choose_mirror(sources) == chosen


def test_the_environment_s_mirror_goes_before_the_machine_s(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://machine.example/debian sid main\n")

    assert mirror({}, tmp_path) == "http://machine.example/debian"
    named = {"HEAPGLASS_MIRROR": "http://named.example/debian/"}
    assert mirror(named, tmp_path) == "http://named.example/debian"


def test_without_a_mirror_the_error_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(AptError, match="is a Debian archive: set HEAPGLASS_MIRROR"):
        mirror({}, tmp_path)


@pytest.mark.parametrize("bad", ["there", "http://a b", "http://a] [trusted=yes] http://b", '"'])
def test_a_mirror_cannot_bring_options_of_its_own(bad: str, tmp_path: Path) -> None:
    with pytest.raises(AptError, match="is no address of a Debian archive"):
        mirror({"HEAPGLASS_MIRROR": bad}, tmp_path)


def test_the_keyring_is_the_first_that_is_there(tmp_path: Path) -> None:
    candidates = [tmp_path / "keys.gpg", tmp_path / "keys.pgp"]
    with pytest.raises(AptError, match=r"keys\.gpg is missing: apt-get install debian-archive-"):
        keyring(candidates)

    candidates[1].touch()

    assert keyring(candidates) == candidates[1]


@pytest.mark.parametrize(
    ("suite", "relaxed"),
    [("bullseye", False), ("stable", False), ("trixie", False)]
    + [(suite, True) for suite in ("sid", "unstable", "experimental")],
)
def test_only_moving_suites_may_be_past_their_date(suite: str, relaxed: bool) -> None:
    line = source_line("http://a.example/debian", suite, "i386", Path(KEYS))

    assert ("check-valid-until=no" in line) == relaxed
    assert f"signed-by={KEYS}" in line
    assert line.endswith(f"] http://a.example/debian {suite} main\n")
    assert "trusted" not in line


def test_the_configuration_takes_the_way_to_the_mirror_and_no_trust(tmp_path: Path) -> None:
    machine = "\n".join(
        [
            'Acquire::http::Proxy "http://proxy.example:3128";',
            'Acquire::Check-Valid-Until "false";',
            'Acquire::AllowInsecureRepositories "true";',
            'APT::Update::Post-Invoke:: "rm -f /x";',
        ]
    )

    text = configuration(tmp_path, "arm64", machine)

    assert 'Acquire::http::Proxy "http://proxy.example:3128";' in text
    assert 'Acquire::Check-Valid-Until "true";' in text
    assert 'APT::Architectures { "arm64"; };' in text
    for unwanted in ('Check-Valid-Until "false"', "Insecure", "Post-Invoke"):
        assert unwanted not in text
    for kind in ("State", "Cache", "Etc::sourcelist", "Etc::sourceparts", "Etc::parts"):
        assert f'Dir::{kind} "{tmp_path}' in text


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("W: odd\nE: Release is expired\nE: more\n", "Release is expired"),
        ("W: Failed  to\tfetch\n", "Failed to fetch"),
        ("N: note\n", ""),
        ("", ""),
    ],
)
def test_of_what_apt_says_the_first_error_is_passed_on(stderr: str, said: str) -> None:
    assert complaint(stderr) == said


FAKE_APT = """\
#!/bin/sh
folder=${APT_CONFIG%/apt.conf}
case "$*" in
*update*)
    [ -e "$folder/../offline" ] && { echo "E: no way to the mirror" >&2; exit 100; }
    cd "$folder/state/lists"
    printf 'Codename: trixie\\nArchitectures: all amd64 i386\\n' >x_InRelease;;
*download*)
    shift 2
    for package; do : >"${package}_1_i386.deb"; done;;
esac
"""


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("apt-get", FAKE_APT), ("apt-config", "#!/bin/sh\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    keys = tmp_path / "keys.gpg"
    keys.touch()
    monkeypatch.setattr(private_apt, "keyring", lambda: keys)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return tmp_path


def test_packages_and_what_the_release_says(fake_apt: Path) -> None:
    apt = PrivateApt(fake_apt / "apt", "http://a.example/debian", "trixie", "i386")

    assert apt.codename() == ""
    assert not apt.has_architecture()
    apt.update()

    assert apt.codename() == "trixie"
    assert apt.has_architecture()
    files = apt.download(["libc6", "libc6-dbg"])
    assert [path.name for path in files] == ["libc6-dbg_1_i386.deb", "libc6_1_i386.deb"]


def test_an_architecture_that_the_suite_does_not_have(fake_apt: Path) -> None:
    apt = PrivateApt(fake_apt / "apt", "http://a.example/debian", "trixie", "s390x")
    apt.update()

    assert not apt.has_architecture()


def test_what_apt_refuses_is_one_line(fake_apt: Path) -> None:
    (fake_apt / "offline").touch()
    apt = PrivateApt(fake_apt / "apt", "http://a.example/debian", "trixie", "i386")

    with pytest.raises(AptError) as caught:
        apt.update()

    assert str(caught.value) == "apt-get update: no way to the mirror"


def test_a_machine_without_apt(fake_apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_apt / "nowhere"))

    with pytest.raises(AptError, match="apt-config is missing: this needs a machine with apt"):
        PrivateApt(fake_apt / "apt", "http://a.example/debian", "trixie", "i386")

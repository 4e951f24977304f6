"""Debian packages by an apt of our own: own lists, own cache, own sources, nothing of the system's.

The mirror is the one of the machine's own sources, or HEAPGLASS_MIRROR. What is downloaded was
verified by apt: the suite's Release by the keys of debian-archive-keyring, the index by the
Release, the package by the index. Needs no privileges.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

VARIABLE = "HEAPGLASS_MIRROR"
ETC_APT = Path("/etc/apt")
KEYRINGS = tuple(
    Path("/usr/share/keyrings") / f"debian-archive-keyring.{kind}" for kind in ("gpg", "pgp")
)
# Names of Debian's suites; a third party's repository often takes one of them as well.
DEBIAN_SUITES = frozenset(
    (
        *("buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid", "experimental"),
        *("oldoldstable", "oldstable", "stable", "testing", "unstable"),
    )
)
UNDATED = ("sid", "unstable", "experimental")  # may be past their date on a mirror
# What of the machine's configuration is needed to reach the mirror; nothing about trust.
TRANSPORT = re.compile(r"Acquire::(https?|ftp|tor|socks5h|Retries|ForceIPv[46])\b", re.IGNORECASE)


class AptError(Exception):
    """Why there is no package; one line."""


class Source(NamedTuple):
    """An entry of the machine's sources: one URI."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


def parse_list(text: str) -> Iterator[Source]:
    """Yield the binary sources of a ``.list`` file: ``deb [options] uri suite component…``."""
    for line in text.splitlines():
        found = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)((?:\s+[^\s#]+)*)", line)
        if found:
            options, uri, suite, components = found.groups()
            signed = re.search(r"signed-by=(\S+)", options or "", re.IGNORECASE)
            yield Source(
                uri, (suite,), tuple(components.split()), signed[1] if signed is not None else ""
            )


def parse_sources(text: str) -> Iterator[Source]:
    """Yield the enabled binary sources of a deb822 ``.sources`` file."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields = {
            name.lower(): re.sub(r"\n[ \t]+", " ", value).strip()
            for name, value in re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t]+.*)*)", stanza, re.M)
        }
        if "deb" not in fields.get("types", "").split() or _is_no(fields.get("enabled", "yes")):
            continue
        suites, components = fields.get("suites", ""), fields.get("components", "")
        for uri in fields.get("uris", "").split():
            yield Source(
                uri,
                tuple(suites.split()),
                tuple(components.split()),
                fields.get("signed-by", "").partition(" ")[0],
            )


def _is_no(value: str) -> bool:
    return value.lower() in ("no", "false", "without", "off", "disable")


def machine_sources(etc: Path = ETC_APT) -> list[Source]:
    """Return what apt on this machine is told to use, in apt's order."""
    found: list[Source] = []
    parts = sorted((etc / "sources.list.d").glob("*"))
    for path in [etc / "sources.list", *parts]:
        parse = {".list": parse_list, ".sources": parse_sources}.get(path.suffix)
        if parse is not None and path.is_file():
            found.extend(parse(path.read_text(errors="replace")))
    return found


def choose_mirror(sources: Sequence[Source]) -> str | None:
    """Return the URI that has Debian's main suites, None if no source looks like it.

    A third party may use a suite's name too, so a source with Debian's keys or with the suite's
    ``-updates`` goes first. A wrong guess does no harm: nothing there has Debian's signature.
    """
    updated = {s.uri for s in sources for suite in s.suites if suite.endswith("-updates")}

    def likeness(source: Source) -> tuple[bool, bool]:
        return ("debian-archive" in source.signed_by, source.uri in updated)

    candidates = [
        source
        for source in sources
        if "main" in source.components
        and DEBIAN_SUITES.intersection(source.suites)
        and not source.uri.startswith("cdrom:")
    ]
    return max(candidates, key=likeness).uri.rstrip("/") if candidates else None


def mirror(environment: Mapping[str, str] = os.environ, etc: Path = ETC_APT) -> str:
    """Return the URI of the Debian archive to ask.

    :raises AptError: if the machine's sources name none and HEAPGLASS_MIRROR is not set.
    """
    named = environment.get(VARIABLE) or choose_mirror(machine_sources(etc))
    if named is None:
        raise AptError(
            f"no source in {etc} is a Debian archive: set {VARIABLE} to the address of one"
        )
    if not re.fullmatch(r"[a-z0-9+]+:[^\s\[\]\"';{}]+", named):
        raise AptError(f"{named!r} is no address of a Debian archive: set {VARIABLE} to one")
    return named.rstrip("/")


def keyring(candidates: Sequence[Path] = KEYRINGS) -> Path:
    """Return the file with the keys that sign Debian's suites.

    :raises AptError: if it is not there.
    """
    for path in candidates:
        if path.is_file():
            return path
    raise AptError(f"{candidates[0]} is missing: apt-get install debian-archive-keyring")


def source_line(uri: str, suite: str, arch: str, keys: Path) -> str:
    """Return the one line of the private sources.list."""
    options = [f"signed-by={keys}", f"arch={arch}", "target=Packages"]
    if suite in UNDATED:
        options.append("check-valid-until=no")
    return f"deb [{' '.join(options)}] {uri} {suite} main\n"


def configuration(folder: Path, arch: str, machine: str) -> str:
    """Return the private apt.conf; *machine* is what ``apt-config dump`` says of this machine."""
    transport = [line for line in machine.splitlines() if TRANSPORT.match(line)]
    own = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Log": folder / "log",
        "Dir::Etc::sourcelist": folder / "sources.list",
        **{f"Dir::Etc::{name}": folder / "none" for name in ("main", "trusted", "preferences")},
        **{f"Dir::Etc::{name}parts": folder / "empty" for name in ("source", "", "trusted")},
        "Dir::Etc::preferencesparts": folder / "empty",
        "APT::Architecture": arch,
        "APT::Sandbox::User": "root",  # no other user, who could not enter our folder
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Acquire::PDiffs": "false",
        "Acquire::Check-Valid-Until": "true",
        "Acquire::Check-Date": "true",
    }
    lines = [f'{key} "{value}";' for key, value in own.items()]
    return "\n".join([*lines, f'APT::Architectures {{ "{arch}"; }};', *transport]) + "\n"


class PrivateApt:
    """One suite for one architecture, in a folder that may be thrown away afterwards."""

    def __init__(self, folder: Path, uri: str, suite: str, arch: str) -> None:
        self._folder = folder
        self._suite = suite
        self._arch = arch
        for name in ("state/lists/partial", "cache/archives/partial", "log", "empty"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(source_line(uri, suite, arch, keyring()))
        machine = _run(["apt-config", "dump"], folder, dict(os.environ)).stdout
        (folder / "apt.conf").write_text(configuration(folder, arch, machine))

    def update(self) -> None:
        """Fetch and verify the suite's index.

        :raises AptError: if the mirror does not have it or it does not verify.
        """
        self._apt("update")

    def has_architecture(self) -> bool:
        """Whether the suite has the architecture at all, by its verified Release."""
        return self._arch in self._released("Architectures").split()

    def codename(self) -> str:
        """Return the suite's codename, by its verified Release; empty if it has none."""
        return self._released("Codename").strip()

    def _released(self, field: str) -> str:
        for path in (self._folder / "state" / "lists").glob("*Release"):
            found = re.search(rf"^{field}:(.*)$", path.read_text(errors="replace"), re.M)
            if found:
                return found[1]
        return ""

    def download(self, packages: Sequence[str]) -> list[Path]:
        """Download the suite's newest of each package and return the files.

        :raises AptError: if one of them is not to be had or does not verify.
        """
        place = self._folder / "packages"
        place.mkdir(exist_ok=True)
        self._apt("download", *packages, cwd=place)
        return sorted(place.glob("*.deb"))

    def download_whole(self, packages: Sequence[str]) -> list[Path]:
        """Download packages with all that they depend on, as for a machine that has nothing.

        :raises AptError: if something is not to be had, does not fit or does not verify.
        """
        place = self._folder / "cache" / "archives"
        self._apt("install", "-y", "--download-only", "--no-install-recommends", *packages)
        return sorted(place.glob("*.deb"))

    def _apt(self, *arguments: str, cwd: Path | None = None) -> None:
        private = {**os.environ, "APT_CONFIG": str(self._folder / "apt.conf"), "LC_ALL": "C"}
        done = _run(["apt-get", "-q", *arguments], cwd or self._folder, private)
        if done.returncode:
            reason = complaint(done.stderr) or f"exit status {done.returncode}"
            raise AptError(f"apt-get {shlex.join(arguments)}: {reason}")


def complaint(stderr: str) -> str:
    """Return the first thing that apt complains of, without its ``E:``."""
    for mark in ("E: ", "W: "):
        for line in stderr.splitlines():
            if line.startswith(mark):
                return " ".join(line[len(mark) :].split())
    return ""


def _run(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise AptError(f"{command[0]} is missing: this needs a machine with apt") from None

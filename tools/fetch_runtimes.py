"""Bring real C libraries: Debian's libc6 and libc6-dbg of five suites, unpacked side by side.

They go to .cache/runtimes/<glibc>-<arch>/, each with a runtime.json that says what it is; with
--static also libc6-dev in a folder static/, for programs that are linked statically. Packages
come from a folder (--packages) where it has them, else from the machine's own Debian mirror, or
HEAPGLASS_MIRROR, by an apt of our own that changes nothing on the system and needs no privileges.
What is there already is not fetched again. Exit status 1 if something asked for could not be had.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]

from packages import (  # noqa: E402
    LIBC_DEV,
    WANTED,
    Package,
    from_control,
    from_name,
    in_folder,
    newest_pair,
    read_sums,
    unpack,
    verify,
)
from private_apt import AptError, PrivateApt, mirror  # noqa: E402
from runtimes import (  # noqa: E402
    CACHE,
    MANIFEST,
    STATIC,
    BadRuntime,
    Runtime,
    describe,
    glibc_of,
    read_runtime,
    runtimes,
)
from suites import NoArchitecture, by_either_name, open_suite  # noqa: E402

from heapglass.glibc.releases import NEWEST, name  # noqa: E402

# The release of each suite as the tests know it; sid and experimental move on.
SUITES = {
    "bullseye": "2.31",
    "bookworm": "2.36",
    "trixie": "2.41",
    "sid": "2.43",
    "experimental": "2.44",
}
ARCHS = ("amd64", "i386", "arm64")
LAYOUT_ARCHS = ("armhf", "ppc64el", "riscv64", "s390x")
PACKAGES = ROOT.parent / "shared" / "runtimes"


class Folder(NamedTuple):
    """The folder of packages that is asked before the mirror."""

    packages: tuple[Package, ...] = ()
    sums: dict[str, str] | None = None
    others: tuple[Package, ...] = ()  # libc6-dev


def read_folder(path: Path | None) -> Folder:
    """Read what a folder of packages has; none by default.

    :raises BadRuntime: if it was named and is not there, or is damaged.
    """
    if path is None:
        return read_folder(PACKAGES) if PACKAGES.is_dir() else Folder()
    if not path.is_dir():
        raise BadRuntime(f"{path} is not a folder: --packages wants one with .deb files")
    others = (from_name(one) for one in sorted(path.glob(f"{LIBC_DEV}_*.deb")))
    return Folder(tuple(in_folder(path)), read_sums(path), tuple(one for one in others if one))


def newer_than_tables(glibc: str) -> bool:
    """Whether a release is one that heapglass has no tables for yet."""
    return tuple(int(part) for part in glibc.split(".")) > NEWEST


@contextlib.contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Hold the cache's lock, so that a second run waits and then finds all there."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another run works in {cache}: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in cache.glob(".new-*"):  # of a run that was interrupted
            shutil.rmtree(left)
        yield


class Fetcher:
    """Brings runtimes into a cache folder, whose lock is held."""

    def __init__(self, cache: Path, folder: Folder, refresh: bool = False) -> None:
        self._cache = cache
        self._folder = folder
        self._refresh = refresh

    def fetch(self, suite: str, arch: str) -> tuple[Runtime, str]:
        """Return a suite's runtime and where it came from: "packages", "mirror" or "there".

        :raises NoArchitecture: if the suite does not have the architecture.
        :raises AptError: if the mirror cannot be asked, or what it gives does not verify.
        :raises BadRuntime: if a package is not what it should be.
        """
        there = None if self._refresh else self._there(suite, arch)
        pair = newest_pair(self._folder.packages, SUITES[suite], arch)
        if there is not None and (not pair or there.package == pair[0].version):
            return there, "there"
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self._cache) as work:
            if pair:
                for package in pair:
                    if self._folder.sums is not None:
                        verify(package, self._folder.sums)
                return self._install(pair, suite, Path(work)), "packages"
            return self._install(_from_mirror(Path(work), suite, arch), suite, Path(work)), "mirror"

    def fetch_static(self, runtime: Runtime) -> None:
        """Bring what a static program is linked with (libc6-dev), of the runtime's own version.

        :raises AptError: if the mirror cannot be asked, or what it gives does not verify.
        :raises BadRuntime: if the package is of another version.
        """
        place = runtime.folder / STATIC
        if place.is_dir() and not self._refresh:
            return
        version, arch = runtime.package, runtime.arch
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self._cache) as work:
            found = [
                package
                for package in self._folder.others
                if (package.name, package.version, package.arch) == (LIBC_DEV, version, arch)
            ]
            for package in found if self._folder.sums is not None else ():
                verify(package, self._folder.sums or {})
            found = found or _from_mirror(Path(work), runtime.suite, arch, (LIBC_DEV,))
            if found[0].version != version:
                has = f"the mirror has {found[0].version}"
                raise BadRuntime(f"{LIBC_DEV} {version} {arch}: {has}; fetch anew with --refresh")
            unpacked = Path(work) / "static"
            unpack(found[:1], unpacked)
            shutil.rmtree(place, ignore_errors=True)
            unpacked.rename(place)

    def _there(self, suite: str, arch: str) -> Runtime | None:
        fitting = [r for r in runtimes(self._cache) if r.arch == arch and r.serves(suite)]
        return fitting[-1] if fitting else None

    def _install(self, pair: Sequence[Package], suite: str, work: Path) -> Runtime:
        version, arch = pair[0].version, pair[0].arch
        place = self._cache / f"{glibc_of(version)}-{arch}"
        other = read_runtime(place)
        if other is not None and other.suite != suite:
            # Two suites are at one release: what the first brought serves both.
            both = replace(other, also_in=tuple(sorted({*other.also_in, suite})))
            _write(both)
            return both
        unpacked = work / "runtime"
        unpack(pair, unpacked)
        made = describe(unpacked, version, suite, arch)
        _write(made)
        if place.exists():
            place.rename(work / "old")
        unpacked.rename(place)
        return replace(made, folder=place)


def _write(runtime: Runtime) -> None:
    unfinished = runtime.folder / f".{MANIFEST}"
    unfinished.write_text(runtime.to_json())
    unfinished.replace(runtime.folder / MANIFEST)


def _from_mirror(
    work: Path, suite: str, arch: str, wanted: Sequence[str] = WANTED
) -> list[Package]:
    """Download a suite's packages: by its codename, or by its other name."""
    return by_either_name(suite, lambda name: _from_suite(work / name, name, suite, arch, wanted))


def _from_suite(
    work: Path, name: str, codename: str, arch: str, wanted: Sequence[str]
) -> list[Package]:
    apt = PrivateApt(work / "apt", mirror(), name, arch)
    open_suite(apt, name, codename, arch)
    found = {package.name: package for package in map(from_control, apt.download(wanted))}
    versions = {package.version for package in found.values()}
    if set(found) != set(wanted) or len(versions) != 1:
        all_of_them = f"{' and '.join(wanted)} of one version: {versions}"
        raise BadRuntime(f"{codename} {arch}: expected {all_of_them}")
    return [found[one] for one in wanted]


def fetch_all(
    fetcher: Fetcher, suites: Sequence[str], archs: Sequence[str], static: bool = False
) -> int:
    """Fetch every suite for every architecture, say a line for each; return how many failed."""
    failed = 0
    for arch in archs:
        for suite in suites:
            try:
                runtime, origin = fetcher.fetch(suite, arch)
                if static:
                    fetcher.fetch_static(runtime)
            except NoArchitecture as reason:
                print(f"{'-':<14} {reason}", flush=True)
            except (AptError, BadRuntime, OSError) as error:
                failed += 1
                print(f"{suite} {arch}: {error}", file=sys.stderr, flush=True)
            else:
                print(line(runtime, suite, origin), flush=True)
    return failed


def line(runtime: Runtime, suite: str, origin: str) -> str:
    """Return what is said of a runtime."""
    text = f"{runtime.name:<14} {runtime.package:<20} {suite:<12} {origin}".rstrip()
    if newer_than_tables(runtime.glibc):
        text += f"  (newer than the tables, which end at {name(NEWEST)}: not tested)"
    return text


def _choice(text: str, known: Sequence[str]) -> list[str]:
    chosen = [word for word in text.replace(",", " ").split() if word]
    unknown = [word for word in chosen if word not in known]
    if unknown or not chosen:
        raise argparse.ArgumentTypeError(f"{text!r}: expected some of {', '.join(known)}")
    return list(dict.fromkeys(chosen))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    head, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=head, epilog=rest)
    known = (*ARCHS, *LAYOUT_ARCHS)
    parser.add_argument(
        "--suites",
        type=lambda text: _choice(text, tuple(SUITES)),
        default=list(SUITES),
        help=f"some of {', '.join(SUITES)}, separated by commas; default: all",
    )
    parser.add_argument(
        "--archs",
        type=lambda text: _choice(text, known),
        help=f"some of {', '.join(known)}; default: {', '.join(ARCHS)}",
    )
    parser.add_argument(
        "--layouts", action="store_true", help=f"also {', '.join(LAYOUT_ARCHS)}, to read layouts of"
    )
    parser.add_argument(
        "--static", action="store_true", help="also libc6-dev, to link static programs with"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="default: .cache/runtimes")
    parser.add_argument(
        "--packages",
        type=Path,
        help="folder of .deb files to take first; default: ../shared/runtimes if it is there",
    )
    parser.add_argument(
        "--refresh", action="store_true", help="fetch again what is there, the suites may have more"
    )
    parser.add_argument("--list", action="store_true", help="only say what is there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch; exit status 1 if something could not be had."""
    arguments = _arguments(argv)
    archs = list(arguments.archs or ARCHS)
    if arguments.layouts:
        archs += [arch for arch in LAYOUT_ARCHS if arch not in archs]
    cache = arguments.cache.resolve()
    try:
        if arguments.list:
            for runtime in runtimes(cache):
                print(line(runtime, runtime.suite, ""))
            return 0
        folder = read_folder(arguments.packages)
        with alone(cache):
            fetcher = Fetcher(cache, folder, arguments.refresh)
            return 1 if fetch_all(fetcher, arguments.suites, archs, arguments.static) else 0
    except (AptError, BadRuntime, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was finished stays", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

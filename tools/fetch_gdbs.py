"""Bring the gdbs of Debian's suites, each with the C library and the Python that it was made for.

They go to .cache/gdbs/<suite>/, unpacked side by side; `.cache/gdbs/sid/gdb` runs one. Packages
come from the machine's own Debian mirror, or HEAPGLASS_MIRROR, by an apt of our own that changes
nothing on the system and needs no privileges. What is there already is not fetched again. Exit
status 1 if one could not be had.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]

from fetch_runtimes import alone  # noqa: E402
from gdbs import (  # noqa: E402
    CACHE,
    SUITES,
    BadGdb,
    Gdb,
    describe,
    keep_inside,
    read_gdb,
    write_scripts,
)
from packages import from_control, unpack  # noqa: E402
from private_apt import AptError, PrivateApt, mirror  # noqa: E402
from runtimes import BadRuntime  # noqa: E402
from suites import NoArchitecture, by_either_name, open_suite  # noqa: E402

ARCH = "amd64"
WANTED = ("gdb", "gdbserver", "python3-pyelftools")
UNUSED = ("doc", "info", "locale", "man", "perl", "perl5", "zoneinfo")  # of usr/share


def fetch(suite: str, cache: Path, refresh: bool = False) -> tuple[Gdb, str]:
    """Return a suite's gdb and where it came from: "mirror" or "there". The cache is locked.

    :raises AptError: if the mirror cannot be asked, or what it gives does not fit together.
    :raises BadGdb: if what it gives does not run.
    :raises BadRuntime: if a package cannot be unpacked.
    :raises NoArchitecture: if the suite is not there for this kind of machine.
    """
    if not refresh:
        try:
            return read_gdb(suite, cache), "there"
        except BadGdb:
            pass  # it is fetched
    with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as work:
        packages = by_either_name(suite, lambda name: _download(Path(work) / name, name, suite))
        made = _install(packages, suite, Path(work) / "gdb")
        place = cache / suite
        if place.exists():
            place.rename(Path(work) / "old")
        made.folder.rename(place)
    return read_gdb(suite, cache), "mirror"


def _download(work: Path, name: str, suite: str) -> list[Path]:
    apt = PrivateApt(work / "apt", mirror(), name, ARCH)
    open_suite(apt, name, suite, ARCH)
    return apt.download_whole(WANTED)


def _install(files: Sequence[Path], suite: str, folder: Path) -> Gdb:
    packages = [from_control(path) for path in files]
    versions = {package.name: package.version for package in packages}
    if not set(WANTED) <= set(versions):
        raise BadGdb(f"{suite}: expected {', '.join(WANTED)} among {len(files)} packages")
    root = folder / "root"
    root.mkdir(parents=True)
    unpack(packages, root)
    for name in UNUSED:
        shutil.rmtree(root / "usr" / "share" / name, ignore_errors=True)
    keep_inside(root)
    write_scripts(folder, suite)
    return describe(folder, suite, versions["gdb"])


def fetch_all(suites: Sequence[str], cache: Path, refresh: bool) -> int:
    """Fetch the gdb of every suite, say a line for each; return how many failed."""
    failed = 0
    for suite in suites:
        try:
            gdb, origin = fetch(suite, cache, refresh)
        except (AptError, BadGdb, BadRuntime, NoArchitecture, OSError) as error:
            failed += 1
            print(f"gdb of {suite}: {error}", file=sys.stderr, flush=True)
        else:
            print(f"gdb {gdb.package:<10} Python {gdb.python:<8} {suite:<10} {origin}", flush=True)
    return failed


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    head, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=head, epilog=rest)
    parser.add_argument("--suite", choices=SUITES, action="append", help="only this; repeatable")
    parser.add_argument("--cache", type=Path, default=CACHE, help="default: .cache/gdbs")
    parser.add_argument(
        "--refresh", action="store_true", help="fetch again what is there, the suites may have more"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch; exit status 1 if one could not be had."""
    arguments = _arguments(argv)
    cache = arguments.cache.resolve()
    try:
        with alone(cache):
            return 1 if fetch_all(arguments.suite or SUITES, cache, arguments.refresh) else 0
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was finished stays", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

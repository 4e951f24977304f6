"""The gdbs that were fetched: one folder a suite, with a script `gdb` that runs what lies there.

`<suite>/root` has gdb and gdbserver of the suite with all that they need: C library, loader, Python
with its standard library, pyelftools. Nothing of the machine's takes part, but for the program that
is looked at. `gdb.json` says what it is; without that file it is not finished.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "gdbs"
MANIFEST = "gdb.json"
SUITES = ("bullseye", "bookworm", "trixie", "sid")
PATIENCE = 60  # seconds for gdb to say which it is
_LIBDIRS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
_ASK = "python import sys; print('%d.%d.%d' % sys.version_info[:3], gdb.VERSION)"
_SCRIPT = """\
#!/bin/sh
# {program} of Debian {suite}, by its own loader and libraries.
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONHOME="$here/root/usr" PYTHONPYCACHEPREFIX="$here/bytecode"
unset PYTHONDONTWRITEBYTECODE PYTHONPATH
exec "$here/root/{loader}" --library-path "{libraries}" "$here/root/usr/bin/{program}" {options}"$@"
"""
_OPTIONS = {"gdb": '--data-directory "$here/root/usr/share/gdb" ', "gdbserver": ""}


class BadGdb(Exception):
    """A gdb that is not there, or not what it should be; one line."""


@dataclass(frozen=True)
class Gdb:
    """A gdb of a suite."""

    folder: Path
    suite: str
    package: str  # Debian's version, "13.1-3"
    version: str  # gdb's own, "13.1"
    python: str  # "3.11.2"

    @property
    def program(self) -> Path:
        """What to run; `gdbserver` lies beside it."""
        return self.folder / "gdb"


def keep_inside(root: Path) -> None:
    """Make the absolute links of an unpacked root lead into it, not into the machine's."""
    for folder, folders, files in os.walk(root):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink() and os.readlink(path).startswith("/"):
                inside = root / os.readlink(path).lstrip("/")
                path.unlink()
                path.symlink_to(os.path.relpath(inside, folder))


def write_scripts(folder: Path, suite: str) -> None:
    """Write `gdb` and `gdbserver`, which run what lies in `root` beside them.

    :raises BadGdb: if there is no loader.
    """
    names = [f"{libdir}/ld-linux-x86-64.so.2" for libdir in _LIBDIRS]
    loaders = [name for name in names if (folder / "root" / name).is_file()]
    if not loaders:
        raise BadGdb(f"{folder / 'root'}: expected the dynamic loader of libc6 at {names[-1]}")
    libraries = ":".join(f"$here/root/{libdir}" for libdir in _LIBDIRS)
    for program, options in _OPTIONS.items():
        path = folder / program
        path.write_text(
            _SCRIPT.format(
                program=program,
                suite=suite,
                loader=loaders[0],
                libraries=libraries,
                options=options,
            )
        )
        path.chmod(0o755)


def describe(folder: Path, suite: str, package: str) -> Gdb:
    """Run the gdb of a folder once, and write down what it says of itself.

    :raises BadGdb: if it does not run, or has no Python.
    """
    command = [str(folder / "gdb"), "-nx", "-batch", "-ex", _ASK]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PATIENCE,
        check=False,
    )
    found = re.search(r"^(\d+\.\d+\.\d+) .*?(\d+\.\d+)", done.stdout, re.M)
    if found is None:
        said = " ".join((done.stdout + done.stderr).split())[:200]
        raise BadGdb(f"gdb {package} of {suite} does not run here: {said}")
    fields = {"suite": suite, "package": package, "version": found[2], "python": found[1]}
    (folder / MANIFEST).write_text(json.dumps(fields, indent=1) + "\n")
    return Gdb(folder, **fields)


def read_gdb(suite: str, cache: Path = CACHE) -> Gdb:
    """Return the gdb of a suite.

    :raises BadGdb: if it was not fetched.
    """
    path = cache / suite / MANIFEST
    try:
        return Gdb(path.parent, **json.loads(path.read_text()))
    except FileNotFoundError:
        text = f"the gdb of {suite} is not in {cache}: run `python3 tools/fetch_gdbs.py`"
        raise BadGdb(text) from None
    except (ValueError, TypeError):
        raise BadGdb(f"{path} is not a gdb's manifest: remove {path.parent}") from None

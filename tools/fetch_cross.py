"""Bring cross compilers and an emulator for the machines that heapglass reads beside x86.

They are unpacked in .cache/cross and .cache/qemu, by an apt of our own that changes nothing on the
system and needs no privileges: Debian's cross compilers cannot be installed beside gcc-multilib,
which the tests on i386 need. The emulator is of a suite where it tells gdb the mappings of what it
runs (qemu 8.2 and later) and is linked statically. What is there already is not fetched again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from private_apt import AptError, PrivateApt, mirror

ROOT = Path(__file__).resolve().parents[1]
CROSS = ROOT / ".cache" / "cross"
QEMU = ROOT / ".cache" / "qemu"
DONE = "packages.txt"  # in each folder, what was unpacked in it; written last
CROSS_TOOLS = "gcc-12"
TRIPLES = {
    "arm64": "aarch64-linux-gnu",
    "armhf": "arm-linux-gnueabihf",
    "ppc64el": "powerpc64le-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
    "s390x": "s390x-linux-gnu",
}


class MissingTool(Exception):
    """A compiler or an emulator that was not fetched; the text says what to run."""


def compiler_packages() -> list[str]:
    """Return what a compiler for each machine is made of, beside the libraries of gcc itself."""
    return [
        name
        for arch, triple in TRIPLES.items()
        for name in (
            *(f"{CROSS_TOOLS}-{triple}", f"cpp-12-{triple}", f"binutils-{triple}"),
            *(f"libgcc-12-dev-{arch}-cross", f"libc6-dev-{arch}-cross"),
            f"linux-libc-dev-{arch}-cross",
        )
    ]


def bring(folder: Path, suite: str, packages: Sequence[str]) -> bool:
    """Download and unpack packages of a suite, unless that is done; return whether it was needed.

    :raises AptError: if one cannot be had.
    :raises subprocess.CalledProcessError: if one cannot be unpacked.
    """
    wanted = "\n".join([suite, *packages, ""])
    if (folder / DONE).is_file() and (folder / DONE).read_text() == wanted:
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as work:
        apt = PrivateApt(Path(work) / "apt", mirror(), suite, "amd64")
        apt.update()
        unpacked = Path(work) / "unpacked"
        for package in apt.download(packages):
            subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)
        (unpacked / DONE).write_text(wanted)
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)
    return True


def main() -> int:
    """Bring both; exit status 1 if something could not be had."""
    try:
        for folder, suite, packages in (
            (CROSS, "bookworm", compiler_packages()),
            (QEMU, "trixie", ["qemu-user"]),
        ):
            fetched = bring(folder, suite, packages)
            print(
                f"{folder.name}: {len(packages)} packages of {suite}{'' if fetched else ', there'}"
            )
    except (AptError, OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

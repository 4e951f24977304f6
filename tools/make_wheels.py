"""Makes wheels whose compiled loops serve glibc 2.17 and later, for x86_64 and aarch64.

    python tools/make_wheels.py [-o dist]

The compiler is zig, which brings the C libraries of other machines with it; it is installed from
PyPI into .cache. What was made is looked into: the library must be of the right machine and need
nothing that is newer. The recorder is in the wheel of the machine that makes it: a C compiler of
the system builds it.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

ROOT = Path(__file__).resolve().parents[1]
ZIG = "ziglang==0.14.1"
CACHE = ROOT / ".cache" / "zig"
OLDEST = (2, 17)
LIBRARY = "heapglass/native/libheapglass.so"
SOURCES = ("src", "setup.py", "pyproject.toml", "README.md", "LICENSE")
BUILT = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")


class Machine(NamedTuple):
    """A machine that a wheel is made for."""

    name: str
    elf: str  # e_machine

    @property
    def platform(self) -> str:
        """As the wheel's tag has it."""
        return f"manylinux_{OLDEST[0]}_{OLDEST[1]}_{self.name}"


MACHINES = (Machine("x86_64", "EM_X86_64"), Machine("aarch64", "EM_AARCH64"))


class BadWheel(Exception):
    """A wheel that would not serve; the text says why."""


def compiler() -> Path:
    """Return zig's program, installed if need be."""
    program = CACHE / "ziglang" / "zig"
    if not program.exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", str(CACHE), ZIG], check=True)
    return program


def make(machine: Machine, zig: Path, out: Path) -> Path:
    """Make a machine's wheel from a copy of the sources; return it."""
    for old in out.glob(f"*{machine.platform}.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "heapglass"
        copy.mkdir()
        for name in SOURCES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=BUILT)
            else:
                shutil.copy(source, copy)
        target = f"{machine.name}-linux-gnu.{OLDEST[0]}.{OLDEST[1]}"
        environment = {
            **os.environ,
            "HEAPGLASS_CC": f"{zig} cc -target {target} -s",
            "HEAPGLASS_MACHINE": machine.name,
            "ZIG_GLOBAL_CACHE_DIR": str(CACHE / "cache"),
            "ZIG_LOCAL_CACHE_DIR": str(CACHE / "cache"),
        }
        pip = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check"]
        option = f"--config-settings=--build-option=--plat-name={machine.platform}"
        subprocess.run([*pip, "--no-deps", option, "-w", out, copy], check=True, env=environment)
    wheels = list(out.glob(f"*{machine.platform}.whl"))
    if not wheels:
        raise BadWheel(f"no wheel of {machine.platform} was made")
    return wheels[0]


def check(wheel: Path, machine: Machine) -> tuple[int, ...]:
    """Look into a wheel; return the newest version of glibc that its library needs.

    :raises BadWheel: if the library is missing, of another machine, or needs a newer glibc.
    """
    if not wheel.name.endswith(f"-py3-none-{machine.platform}.whl"):
        raise BadWheel(f"{wheel.name}: it should end in -py3-none-{machine.platform}.whl")
    with zipfile.ZipFile(wheel) as packed:
        if LIBRARY not in packed.namelist():
            raise BadWheel(f"{wheel.name}: {LIBRARY} is not in it")
        library = ELFFile(io.BytesIO(packed.read(LIBRARY)))
    if library["e_machine"] != machine.elf:
        raise BadWheel(f"{wheel.name}: its library is of {library['e_machine']}")
    newest = max(needed(library), default=(0,))
    if newest > OLDEST:
        said = ".".join(map(str, newest))
        raise BadWheel(f"{wheel.name}: its library needs glibc {said}")
    return newest


def needed(library: ELFFile) -> list[tuple[int, ...]]:
    """Return the versions of glibc that a library asks for."""
    names = [
        auxiliary.name
        for section in library.iter_sections()
        if isinstance(section, GNUVerNeedSection)
        for _, auxiliaries in section.iter_versions()
        for auxiliary in auxiliaries
    ]
    found = (re.fullmatch(r"GLIBC_([\d.]+)", name) for name in names)
    return [tuple(map(int, one[1].split("."))) for one in found if one]


def main() -> int:
    """Make and check the wheels."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", type=Path, default=ROOT / "dist", help="the folder for them")
    out: Path = parser.parse_args().o
    out.mkdir(parents=True, exist_ok=True)
    zig = compiler()
    for machine in MACHINES:
        wheel = make(machine, zig, out)
        try:
            newest = check(wheel, machine)
        except BadWheel as bad:
            print(bad, file=sys.stderr)
            return 1
        print(f"{wheel}: {machine.elf}, glibc {'.'.join(map(str, newest))} and later")
    return 0


if __name__ == "__main__":
    sys.exit(main())

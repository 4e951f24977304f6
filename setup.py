"""Builds the compiled loops and the recorder where there is a C compiler.

Without it the Python loops serve, and `record` says what it needs. The recorder for programs of 32
bits needs the compiler's -m32.

One library for every Python (it is reached by ctypes), so a wheel is py3-none-PLATFORM. For wheels
of other machines HEAPGLASS_CC names a compiler of the loops and HEAPGLASS_MACHINE what it compiles
for; they must then compile (`make wheels`).
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from platform import machine

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

SOURCE = "src/heapglass/native/heapglass.c"
RECORDER = "src/heapglass/recorder/recorder.c"
LOOPS = "heapglass.native.libheapglass"
COMPILER = os.environ.get("HEAPGLASS_CC", "")
MACHINE = os.environ.get("HEAPGLASS_MACHINE", machine())
FLAGS = ["-std=gnu11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"]

# The recorder calls nothing of a C library by name: one build serves every glibc.
ALONE = ["-fno-builtin", "-fno-stack-protector", "-fno-tree-loop-distribute-patterns"]
ALONE_LINK = ["-nostdlib", "-Wl,-z,now", "-Wl,--exclude-libs,ALL", "-lgcc"]


def recorder(name: str, *more: str) -> Extension:
    """Return the recorder's library."""
    return Extension(
        f"heapglass.recorder.{name}",
        [RECORDER],
        extra_compile_args=[*FLAGS, *ALONE, *more],
        extra_link_args=[*more, *ALONE_LINK],
        optional=True,
    )


class BuildLoops(build_ext):
    """Makes a plain shared library, named without the Python that built it."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return where the library goes, beside the module that loads it."""
        return "/".join(fullname.split(".")) + ".so"

    def get_export_symbols(self, _extension: Extension) -> list[str]:
        """Return nothing: there is no module to initialise."""
        return []

    def build_extension(self, extension: Extension) -> None:
        """Build a library, the loops by the compiler that was named."""
        if not COMPILER or extension.name != LOOPS:
            super().build_extension(extension)
            return
        path = Path(self.get_ext_fullpath(extension.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        words = [*shlex.split(COMPILER), "-shared", "-fPIC", *FLAGS, SOURCE, "-o", str(path)]
        subprocess.run(words, check=True)


def recorders() -> list[Extension]:
    """Return the recorder's libraries, which this machine's compiler makes for this machine."""
    if machine() != MACHINE:
        return []
    both = MACHINE in ("x86_64", "AMD64")
    return [recorder("librecorder"), *([recorder("librecorder32", "-m32")] if both else [])]


class AnyPython(bdist_wheel):
    """Says that the wheel serves every Python 3 of its platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the wheel's tag."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(LOOPS, [SOURCE], extra_compile_args=FLAGS, optional=not COMPILER),
        *recorders(),
    ],
    cmdclass={"build_ext": BuildLoops, "bdist_wheel": AnyPython},
)

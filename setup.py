"""Builds the compiled loops where there is a C compiler; without them the Python loops serve.

One library for every Python (it is reached by ctypes), so a wheel is py3-none-PLATFORM.
"""

from __future__ import annotations

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

SOURCE = "src/heapglass/native/heapglass.c"
FLAGS = ["-std=gnu11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"]


class BuildLoops(build_ext):
    """Makes a plain shared library, named without the Python that built it."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return where the library goes, beside the module that loads it."""
        return "/".join(fullname.split(".")) + ".so"

    def get_export_symbols(self, _extension: Extension) -> list[str]:
        """Return nothing: there is no module to initialise."""
        return []


class AnyPython(bdist_wheel):
    """Says that the wheel serves every Python 3 of its platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the wheel's tag."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            "heapglass.native.libheapglass",
            [SOURCE],
            extra_compile_args=FLAGS,
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLoops, "bdist_wheel": AnyPython},
)

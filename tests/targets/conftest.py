"""A small C library, built once, in the forms in which distributions ship theirs."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from .library import SOURCE, Library


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Build the library, its stripped form, its debug file, and others beside them."""
    folder = tmp_path_factory.mktemp("library")
    source = folder / "library.c"
    source.write_text(SOURCE)
    made = Library(folder)
    gcc = ("gcc", "-shared", "-fPIC", "-O1", "-nostdlib", "-Wl,--hash-style=gnu")
    run(*gcc, "-Wl,--build-id=0x1122334455667788", source, "-o", made.full)
    run(*gcc, "-Wl,--build-id=0x8877665544332211", source, "-o", made.other)
    run(*gcc, "-Wl,--build-id=none", source, "-o", made.nameless)
    run("objcopy", "--only-keep-debug", made.full, made.debug)
    run("objcopy", "--only-keep-debug", made.nameless, made.nameless_debug)
    run("strip", "-o", made.stripped, made.full)
    run("strip", "-o", made.linked, made.nameless)
    run("objcopy", f"--add-gnu-debuglink={made.nameless_debug}", made.linked)
    packed = folder / "packed.xz"
    packed.write_bytes(lzma.compress(made.debug.read_bytes()))
    shutil.copy(made.stripped, made.mini)
    run("objcopy", "--add-section", f".gnu_debugdata={packed}", made.mini)
    return made

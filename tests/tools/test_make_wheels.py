"""What is looked for in a wheel that was made; nothing is downloaded."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    found = importlib.util.spec_from_file_location("make_wheels", ROOT / "tools/make_wheels.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["make_wheels"] = module
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A library of this machine that asks for the C library's oldest memcpy's successor."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "one.c").write_text(
        "#include <string.h>\nvoid f (char *a, char *b, int n) { memmove (a, b, n); }\n"
    )
    words = ["gcc", "-shared", "-fPIC", "-fno-builtin", "-o", folder / "one.so", folder / "one.c"]
    subprocess.run(words, check=True)
    return (folder / "one.so").read_bytes()


def wheel(folder: Path, platform: str, library: bytes | None) -> Path:
    path = folder / f"heapglass-1-py3-none-{platform}.whl"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("heapglass/__init__.py", "")
        if library is not None:
            packed.writestr("heapglass/native/libheapglass.so", library)
    return path


def test_a_wheel_with_the_library_of_its_machine_is_good(
    tool: ModuleType, library: bytes, tmp_path: Path
):
    made = wheel(tmp_path, "manylinux_2_17_x86_64", library)
    assert (0,) < tool.check(made, tool.MACHINES[0]) <= (2, 17)


@pytest.mark.parametrize(
    ("platform", "machine", "has", "said"),
    [
        ("linux_x86_64", 0, True, "should end in -py3-none-manylinux_2_17_x86_64.whl"),
        ("manylinux_2_17_aarch64", 1, True, "its library is of EM_X86_64"),
        ("manylinux_2_17_x86_64", 0, False, "is not in it"),
    ],
)
def test_a_wheel_that_would_not_serve_is_refused(
    tool: ModuleType,
    library: bytes,
    tmp_path: Path,
    platform: str,
    machine: int,
    has: bool,
    said: str,
):
    made = wheel(tmp_path, platform, library if has else None)
    with pytest.raises(tool.BadWheel, match=said):
        tool.check(made, tool.MACHINES[machine])


def test_a_library_that_needs_a_newer_glibc_is_refused(
    tool: ModuleType, library: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = wheel(tmp_path, "manylinux_2_17_x86_64", library)
    monkeypatch.setattr(tool, "OLDEST", (2, 1))
    monkeypatch.setattr(tool.Machine, "platform", "manylinux_2_17_x86_64")
    with pytest.raises(tool.BadWheel, match="needs glibc 2"):
        tool.check(made, tool.MACHINES[0])

"""The program that gdb looks at, built once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.gdb.sessions import STOPPED, batch

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("gdb") / "program"
    source = HERE / "program.c"
    subprocess.run(["gcc", "-g", "-O0", "-pthread", "-o", built, source], check=True)
    return built


@pytest.fixture(scope="session")
def core(program: Path) -> Path:
    made = program.with_name("core")
    batch([*STOPPED, f"generate-core-file {made}"], program)
    assert made.stat().st_size
    return made

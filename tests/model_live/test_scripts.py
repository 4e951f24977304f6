"""Scripts that are kept as files: what random ones found, and the most eventful of them.

A random script that fails writes itself to the same folder (shrunk: the last one written is the
shortest), so the find is played from then on, on every runtime.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .real import ARCHES, RELEASES, runtime
from .script_file import SCRIPTS, play_file

FILES = sorted(SCRIPTS.glob("*.script"))


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("glibc", RELEASES)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_script(path: Path, glibc: str, arch: str) -> None:
    session = play_file(runtime(glibc, arch), path)
    assert session.check() > 0

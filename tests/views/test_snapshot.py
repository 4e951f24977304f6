"""`snapshot` and `diff` as they are shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from heapglass.arguments import find_command, parse
from heapglass.commands import ask
from heapglass.errors import BadRequest, BadTarget
from heapglass.heap.target import Target
from heapglass.render import json_pieces, text_lines

from ..analysis.test_whatif import target_of
from ..locate.modelled import Played, play


class Door:
    """A door that keeps snapshots, as gdb's does."""

    def __init__(self) -> None:
        self.played: Played = play("2.36", threads=1)
        self.kept: dict[str, Any] = {}

    def target(self) -> Target:
        target = target_of(self.played)
        target.kept = self.kept
        return target

    @contextmanager
    def open(self, spec: str) -> Iterator[Target]:
        """Know one core."""
        if spec != "core":
            raise BadTarget(spec, "there is no such file")
        yield self.target()

    def answer(self, line: str, target: Target | None = None) -> Any:
        name, *words = line.split()
        command = find_command(name)
        request = parse(command, words)
        request.open = self.open
        return ask(command, target, request)

    def text(self, line: str) -> str:
        return "\n".join(text_lines(self.answer(line, self.target())))

    def document(self, line: str) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(
            "".join(json_pieces(self.answer(f"{line} --json", self.target())))
        )
        return made


def test_a_snapshot_is_kept_under_a_name() -> None:
    door = Door()
    assert "none was taken" in door.text("snapshot")
    said = door.document("snapshot before --contents sums")
    assert (said["name"], said["contents"]) == ("before", "checksums")
    block = door.played.allocator.malloc(24)
    door.document("snapshot after")
    listed = door.document("snapshot")["snapshots"]
    assert [(one["name"], one["contents"]) for one in listed] == [
        ("after", "whole"),
        ("before", "checksums"),
    ]
    for line in ("diff before after", "diff before", "diff before now", "diff before core"):
        found = door.document(line)
        assert found["counts"]["taken"] == {"count": 1, "bytes": 32}
        (chunk,) = found["chunks"]
        assert chunk["user"] == hex(block)
        assert (chunk["kind"], chunk["state"], chunk["new_state"]) == ("taken", "tcache", "used")
        assert (chunk["bin"], chunk["new_bin"]) == ("tcache[0x20]", None)
        assert (
            found["growth"] == [{"size": 32, "before": 1, "after": 2, "count": 1, "bytes": 32}]
            or found["growth"][0]["count"] == 1
        )
    assert found["contents"] == "by checksum"


def test_the_bytes_that_changed_are_told() -> None:
    door = Door()
    block = door.played.allocator.malloc(60000)
    door.text("snapshot before")
    for at in (0, 100, 200, 300, 400):
        door.played.allocator.write(block + at, b"!!")
    said = door.text("diff before")
    (chunk,) = door.document("diff before")["chunks"]

    assert chunk["ranges"] == [[0, 2], [100, 102], [200, 202], [300, 302], [400, 402]]
    assert "written" in said
    assert "0x0-0x2, 0x64-0x66, 0xc8-0xca, … 2 more" in said


def test_a_file_is_compared_with_the_heap_now(tmp_path: Path) -> None:
    door = Door()
    path = str(tmp_path / "before.snap")
    said = door.document(f"snapshot -o {path}")
    assert said["file"] == path
    door.played.allocator.malloc(300000)
    found = door.document(f"diff {path}")

    assert found["counts"]["new"]["count"] == 1
    assert found["totals"][1]["mmapped"]["count"] == 1
    assert "… " in door.text(f"diff {path} --limit 0")


def test_nothing_differs() -> None:
    door = Door()
    said = door.text("diff core core")

    assert "nothing differs" in said
    assert "none differs" in said
    assert "as many of each size" in said


def test_two_processes_are_noticed() -> None:
    door = Door()
    door.text("snapshot before")
    door.played = play("2.36", threads=1, heap_base=0x555556000000)

    assert "whose addresses are random" in " ".join(door.document("diff before")["warnings"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("diff before", "there is no such file"),
        ("snapshot now", "'now' is the heap as it is"),
    ],
)
def test_what_is_not_there(line: str, message: str) -> None:
    door = Door()
    with pytest.raises((BadRequest, BadTarget), match=message):
        door.answer(line, door.target())


def test_in_the_shell_a_snapshot_needs_a_file() -> None:
    door = Door()
    target = target_of(door.played)
    with pytest.raises(BadRequest, match="snapshot needs a file"):
        door.answer("snapshot", target)
    with pytest.raises(BadRequest, match="kept by gdb only"):
        door.answer("snapshot before", target)
    with pytest.raises(BadRequest, match="diff needs two"):
        door.answer("diff core", None)

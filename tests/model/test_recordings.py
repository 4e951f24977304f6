"""The model against what the real allocators of 21 releases answered: fixtures/traces.

Random traces with the heap's and main_arena's bytes at their end, and misuse, with the words or
the signal with which each release ended it.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heapglass.model.replay import Replay, replay
from heapglass.model.trace import Trace, read_trace

TRACES = Path(__file__).resolve().parents[2] / "fixtures" / "traces"
RELEASES = sorted((path.name for path in TRACES.iterdir()), key=lambda name: int(name[2:]))


def unpacked(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes())


def key_words(played: Replay, address: int, real: bytes) -> tuple[list[int], set[bytes]]:
    """Where the bytes differ, and what stands in the real ones where the model has its key."""
    layout = played.allocator.layout
    ours = played.allocator.read(address, len(real))
    machine = played.allocator.machine
    key = machine.load(machine.at["tcache_key"]).to_bytes(8, "little")
    differ, real_keys = [], set()
    for at in range(0, len(real), layout.word):
        if ours[at : at + 8] != real[at : at + 8]:
            if ours[at : at + 8] == key and layout.has("tcache_key_random"):
                real_keys.add(real[at : at + 8])
            else:
                differ.append(address + at)
    return differ, real_keys


@pytest.mark.parametrize("name", [f"random-{number}" for number in range(1, 5)])
@pytest.mark.parametrize("release", RELEASES)
def test_a_random_trace(release: str, name: str) -> None:
    folder = TRACES / release
    path = folder / f"{name}.jsonl.xz"
    played = replay(read_trace(str(path)))
    assert not played.mismatches
    assert played.calls == len(unpacked(path).splitlines()) - 1 > 1000
    base, _ = played.image()
    differ, keys = key_words(played, base, unpacked(folder / f"{name}.heap.xz"))
    assert not differ
    assert len(keys) <= 1  # the one word that a process draws by chance
    arena = unpacked(folder / f"{name}.arena.xz")
    assert played.allocator.read(played.allocator.places.main_arena, len(arena)) == arena


def scripts(release: str) -> Iterator[list[dict[str, Any]]]:
    """The misuse scripts of a release, one after the other in one file."""
    script: list[dict[str, Any]] = []
    for line in unpacked(TRACES / release / "misuse.jsonl.xz").splitlines():
        said = json.loads(line)
        if "heapglass_trace" in said and script:
            yield script
            script = []
        script.append(said)
    yield script


@pytest.mark.parametrize("release", RELEASES)
def test_misuse(release: str, tmp_path: Path) -> None:
    names, ends = set(), set()
    for lines in scripts(release):
        path = tmp_path / "trace.jsonl"
        path.write_text("\n".join(json.dumps(line) for line in lines))
        trace: Trace = read_trace(str(path))
        played = replay(trace)
        assert not played.mismatches, lines[0]["name"]
        assert played.calls == len(lines) - 1, lines[0]["name"]
        assert (played.abort is not None) == ("abort" in lines[-1])
        assert (played.fault is not None) == ("signal" in lines[-1])
        names.add(lines[0]["name"])
        ends.add(lines[-1].get("abort"))
    assert len(names) == 53
    assert len(ends) > 10


def test_there_are_21_releases() -> None:
    assert len(RELEASES) == 21

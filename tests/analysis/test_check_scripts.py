"""Corruption scripts of 21 real releases: before the call that ends the program, `check` knows.

Each script is played up to its last call. Where the damage is visible at rest, the damaged word is
named, and what glibc then said is among what is predicted. The outcome is printed as a table.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heapglass.analysis.check import Finding, check_heap
from heapglass.heap.heap import Heap
from heapglass.locate import Overrides, locate
from heapglass.targets.trace import open_trace

TRACES = Path(__file__).resolve().parents[2] / "fixtures" / "traces"
RELEASES = sorted((path.name for path in TRACES.iterdir()), key=lambda name: int(name[2:]))

# The heap is whole until the last call: it frees what is free already, or what is no block.
AT_THE_CALL = {
    *("botcake", "double_free_fasttop", "double_free_prev", "double_free_tcache"),
    *("double_free_top", "double_free_tcache_key_cleared"),
    *("free_inside", "free_misaligned", "realloc_misaligned"),
}


def scripts(release: str) -> Iterator[list[dict[str, Any]]]:
    """The scripts of a release in which malloc ended the program."""
    script: list[dict[str, Any]] = []
    packed = (TRACES / release / "misuse.jsonl.xz").read_bytes()
    for line in [*lzma.decompress(packed).splitlines(), b'{"heapglass_trace": 1}']:
        said = json.loads(line)
        if "heapglass_trace" in said and script:
            if "abort" in script[-1] or "signal" in script[-1]:
                yield script
            script = []
        script.append(said)


def damage(script: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """The ranges that the script overwrote, the last first."""
    written = []
    for call in reversed(script):
        if call.get("op") == "write":
            at = int(call["ptr"], 16) + call.get("offset", 0)
            written.append((at, at + len(call["bytes"]) // 2))
    return written


def named(finding: Finding, written: list[tuple[int, int]]) -> bool:
    """Whether a finding has a word that the script overwrote, or one that malloc made of it."""
    if finding.rule == "twice":
        return True  # freed while it was in a list: no write of the script's
    if any(word.what == "head" for word in finding.words) or not finding.is_chunk:
        return True  # malloc took the link over into the head of the list
    return any(low <= word.address < high for word in finding.words for low, high in written)


@pytest.mark.parametrize("release", RELEASES)
def test_damage_is_named_before_the_call_that_notices(
    release: str, tmp_path: Path, record_property: Any
) -> None:
    seen, path = [], tmp_path / "trace.jsonl"
    for script in scripts(release):
        name, last = script[0]["name"], script[-1]
        path.write_text("\n".join(json.dumps(line) for line in script[:-1]))
        with open_trace(str(path)) as source:
            findings = check_heap(Heap(locate(source, Overrides()))).findings
        if name in AT_THE_CALL:
            assert not [one for one in findings if one.severity == "error"], name
            continue
        end = last.get("abort") or "SIGSEGV"
        about = [one for one in findings if named(one, damage(script))]
        assert about, f"{name}: {end}"
        said = {outcome.says for one in about for outcome in one.outcomes}
        assert end in said, f"{name}: {end} is not in {said}"
        assert all(one.cause is not None for one in about), name
        seen.append((release, name, about[0].rule, hex(about[0].address), end))
    assert len(seen) >= 20
    record_property("check_scripts", seen)

"""Threads recorded in the gdbs of four Debian suites, played by the model without a difference."""

from __future__ import annotations

from pathlib import Path

import pytest
from gdbs import SUITES, BadGdb, read_gdb
from programs import MissingRuntime, build, find_runtime
from session import NOWHERE, run_gdb, settings

from heapglass.model.replay import replay
from heapglass.model.trace import read_trace


@pytest.mark.parametrize("suite", SUITES)
def test_threads_are_traced(suite: str, tmp_path: Path) -> None:
    try:
        gdb = read_gdb(suite)
        runtime = find_runtime("2.41", "amd64")
    except (BadGdb, MissingRuntime) as error:
        pytest.fail(str(error), pytrace=False)
    trace, script = tmp_path / "t.jsonl", tmp_path / "t.gdb"
    start = [*settings(NOWHERE), f"file {build(runtime, 'churn')}"]
    lines = [*start, f"heapglass trace start {trace} --stacks 1", "run 3 1 4 60"]
    run_gdb(script, lines, gdb=(str(gdb.program),))

    assert "order is not sure" not in script.with_suffix(".log").read_text()
    played = replay(read_trace(str(trace)), keep_going=True)
    assert played.mismatches == []
    assert played.calls > 300

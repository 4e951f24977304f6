"""Measures `heap chunks` of a million chunks in gdb, live and on the core, against a plain read.

    python bench/million.py [--gdb GDB]

Prints seconds of CPU time and, what the claims are made from, the ratio to one
`Inferior.read_memory` of the same bytes in the same run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"


def gdb(command: str, words: list[str], program: Path) -> list[str]:
    """Run gdb in batch mode; return the lines that it printed."""
    setup = ["-ex", "set pagination off", "-ex", "set debuginfod enabled off"]
    ran = subprocess.run(
        [command, "-nx", "-batch", *setup, str(program), *words],
        check=False,
        capture_output=True,
        text=True,
    )
    if "BENCH " not in ran.stdout:
        sys.exit(f"gdb printed no result:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    return ran.stdout.splitlines()


def result(lines: list[str]) -> dict[str, float]:
    """Return the line that bench/in_gdb.py printed."""
    line = next(line for line in lines if line.startswith("BENCH "))
    found: dict[str, float] = json.loads(line[len("BENCH ") :])
    return found


def main() -> None:
    """Build the program, measure it live and as a core, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gdb", default="gdb")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program, core = Path(folder) / "million", Path(folder) / "core"
        subprocess.run(["gcc", "-O1", "-g", "-o", program, BENCH / "million.c"], check=True)
        source = ["-ex", f"source {ROOT / 'gdbext' / 'heapglass.py'}"]
        measure = [*source, "-ex", f"source {BENCH / 'in_gdb.py'}"]
        stop = ["-ex", "break heap_ready", "-ex", "run"]
        live = gdb(options.gdb, [*stop, *measure, "-ex", f"generate-core-file {core}"], program)
        dead = gdb(options.gdb, ["-ex", f"core-file {core}", *measure], program)
    head = ("target", "chunks", "bytes", "read_memory", "--min", "ratio", "--top 10", "ratio")
    print("| " + " | ".join(head) + " |")
    print("| --- " * len(head) + "|")
    keys = ("chunks", "bytes", "read_memory_s", "chunks_min_s", "ratio_min")
    for name, lines in (("live", live), ("core", dead)):
        found = result(lines)
        cells = [name, *(str(found[key]) for key in (*keys, "chunks_top_s", "ratio_top"))]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

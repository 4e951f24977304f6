"""Runs inside gdb: times `heapglass chunks` against one read of the same bytes.

gdb has sourced the extension and stopped the program. Prints one JSON line.
"""

import json
import time

import gdb

REPEAT = 3


def seconds(action):
    """Return the best of REPEAT runs, in CPU seconds."""
    best = None
    for _ in range(REPEAT):
        start = time.process_time()
        action()
        took = time.process_time() - start
        best = took if best is None else min(best, took)
    return best


def run(command):
    """Return what a gdb command prints."""
    return gdb.execute(command, to_string=True)


heaps = json.loads(run("heapglass heaps --json"))["heaps"]
start, end = (int(heaps[0][key], 16) for key in ("start", "end"))
inferior = gdb.selected_inferior()
chunks = heaps[0]["chunks"]
plain = seconds(lambda: inferior.read_memory(start, end - start))
filtered = seconds(lambda: run("heapglass chunks --min 0x1300"))
top = seconds(lambda: run("heapglass chunks --top 10"))
rows = len(run("heapglass chunks --min 0x1300 --limit 5").splitlines())
result = {
    "chunks": chunks,
    "bytes": end - start,
    "read_memory_s": round(plain, 3),
    "chunks_min_s": round(filtered, 3),
    "chunks_top_s": round(top, 3),
    "ratio_min": round(filtered / plain, 1),
    "ratio_top": round(top / plain, 1),
    "lines": rows,
}
print("BENCH " + json.dumps(result))

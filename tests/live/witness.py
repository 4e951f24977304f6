"""What a process looks like from outside: its writable memory and how often it ran."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path


def state(pid: int) -> dict[str, str]:
    """Digests of every writable mapping, and the scheduler's counts of every thread.

    A stopped process that nobody touches has the same state for ever.
    """
    return {**_memory(pid), **_schedule(pid)}


def _memory(pid: int) -> dict[str, str]:
    found = {}
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, permissions = line.split()[:2]
            start, end = (int(part, 16) for part in span.split("-"))
            if "w" in permissions:
                found[line] = hashlib.sha256(os.pread(memory, end - start, start)).hexdigest()
    finally:
        os.close(memory)
    return found


def _schedule(pid: int) -> dict[str, str]:
    """Context switches and state of each thread: they change if it is ever resumed."""
    return {
        str(task): " ".join(re.findall(r"^(?:State|.*_ctxt_switches):\s*(.*)$", text, re.M))
        for task in Path(f"/proc/{pid}/task").iterdir()
        for text in [(task / "status").read_text()]
    }

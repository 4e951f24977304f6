"""Threads of gdb's inferior, with their thread pointers where a register has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import gdb

from heapglass.source import Thread

# The register that is the thread pointer, by gdb's and by qemu's name; where a target has none it
# is found by structure (heapglass.locate.tls).
POINTERS = {
    "x86_64": ("fs_base",),
    "x32": ("fs_base",),
    "aarch64": ("tpidr", "TPIDR_EL0"),
    "arm": ("tpidruro", "TPIDRURO"),
    "riscv64": ("tp",),
    "ppc64": ("r13",),
    "ppc64le": ("r13",),
}


@contextmanager
def selection_kept() -> Iterator[None]:
    """Give the user back the thread and the frame that were selected."""
    thread = gdb.selected_thread()
    frame = None
    with suppress(gdb.error):
        frame = gdb.selected_frame()
    try:
        yield
    finally:
        if thread is not None and thread.is_valid():
            thread.switch()
        if frame is not None and frame.is_valid():
            frame.select()


def read_threads(abi: str) -> list[Thread]:
    """Return the inferior's threads, ascending by id."""
    threads = []
    with selection_kept():
        for thread in gdb.selected_inferior().threads():
            pid, lwp, _ = thread.ptid
            thread.switch()
            tag_ctl = _register("tag_ctl") if abi == "aarch64" else None
            made = Thread(lwp or pid, thread.num, _pointer(abi), _register("sp"), tag_ctl)
            threads.append(made)
    return sorted(threads)


def _pointer(abi: str) -> int | None:
    if abi == "s390x":
        high, low = _register("acr0"), _register("acr1")
        return None if high is None or low is None else high << 32 | low
    for name in POINTERS.get(abi, ()):
        value = _register(name)
        if value:
            return value
    return None


def _register(name: str) -> int | None:
    """Return a register of the newest frame, None if gdb does not have it."""
    try:
        value = gdb.newest_frame().read_register(name)
        number = int(value)
        return number if number >= 0 else number + (1 << 8 * int(value.type.sizeof))
    except (gdb.error, ValueError, RuntimeError, TypeError):
        return None

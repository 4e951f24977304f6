"""Threads of gdb's inferior, with their thread pointers where a register has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import gdb

from heapglass.source import Stop, Thread

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
FAULTS = (4, 5, 7, 8, 11)  # signals that have si_addr
# General registers that may hold pointers, by gdb's names.
_X86_64 = "rax rbx rcx rdx rsi rdi rbp r8 r9 r10 r11 r12 r13 r14 r15"
_RISCV = "t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"
_R32 = " ".join(f"r{number}" for number in range(32))
GENERAL = {
    "x86_64": _X86_64,
    "x32": _X86_64,
    "i386": "eax ebx ecx edx esi edi ebp",
    "aarch64": " ".join(f"x{number}" for number in range(31)),
    "arm": " ".join(f"r{number}" for number in range(13)),
    "riscv64": _RISCV,
    "ppc64": _R32,
    "ppc64le": _R32,
    "s390x": " ".join(f"r{number}" for number in range(16)),
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


def selected_thread() -> int | None:
    """Return the id of the thread that the user has selected."""
    thread = gdb.selected_thread()
    if thread is None:
        return None
    pid, lwp, _ = thread.ptid
    return int(lwp or pid)


def read_threads(abi: str) -> list[Thread]:
    """Return the inferior's threads, ascending by id."""
    threads = []
    selected = gdb.selected_thread()
    with selection_kept():
        for thread in gdb.selected_inferior().threads():
            pid, lwp, _ = thread.ptid
            thread.switch()
            tag_ctl = _register("tag_ctl") if abi == "aarch64" else None
            at = _pointer(abi), _register("sp")
            stop = _stop() if selected is not None and thread.num == selected.num else None
            threads.append(Thread(lwp or pid, thread.num, *at, tag_ctl, _general(abi), stop))
    return sorted(threads, key=lambda thread: thread.id)


def _stop() -> Stop:
    """Return what stopped the selected thread, as far as gdb knows."""
    signal = _number("$_siginfo.si_signo") or 0
    address = _number("$_siginfo._sifields._sigfault.si_addr") if signal in FAULTS else None
    return Stop(signal, address, _register("pc"))


def _number(expression: str) -> int | None:
    try:
        value = int(gdb.parse_and_eval(expression).cast(gdb.lookup_type("unsigned long")))
    except (gdb.error, RuntimeError, ValueError):
        return None
    return value


def _general(abi: str) -> tuple[tuple[str, int], ...]:
    values = [(name, _register(name)) for name in GENERAL.get(abi, "").split()]
    return tuple((name, value) for name, value in values if value is not None)


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

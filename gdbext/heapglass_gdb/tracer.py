"""Breakpoints at malloc and behind it: what they see goes into a `Recording`.

All are gdb's own and let the process go on; nothing in it is written or called. If gdb holds all
threads while one is at a breakpoint (target-non-stop off), calls are let through one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import gdb

from heapglass.errors import MemoryFault

from .exports import Libc, read
from .recording import ARGUMENTS, BREAKS, FREES, Call, Recording
from .registers import Registers, frames

LOCKING = "scheduler-locking"
DEAD = "ZX"  # states of a thread that runs no more


class Point(gdb.Breakpoint):
    """A breakpoint of ours. *seen* tells whether the process is to stop."""

    def __init__(self, address: int, seen: Callable[[], bool]) -> None:
        super().__init__(f"*{address:#x}", internal=True)
        self.silent = True
        self._seen = seen

    def stop(self) -> bool:
        """Do what there is to do; go on unless the user wanted to see this."""
        return self._seen()


class Watch(gdb.Breakpoint):
    """A hardware watchpoint on the word behind a block; malloc itself may write there."""

    def __init__(self, address: int, seen: Callable[[], bool]) -> None:
        kind = {"type": gdb.BP_WATCHPOINT, "wp_class": gdb.WP_WRITE, "internal": True}
        super().__init__(f"*(unsigned long *) {address:#x}", **kind)
        self._seen = seen

    def stop(self) -> bool:
        """Stop unless malloc wrote."""
        return self._seen()


@dataclass
class StopOn:
    """When the process shall stop."""

    double_free: bool = False
    non_chunk: bool = False
    sizes: set[int] = field(default_factory=set)

    def words(self) -> list[str]:
        """Return it as a user types it."""
        kinds = [("double-free", self.double_free), ("non-chunk", self.non_chunk)]
        return [name for name, on in kinds if on] + [f"size {size}" for size in sorted(self.sizes)]


class Tracer:
    """Records one process."""

    def __init__(self, libc: Libc, recording: Recording, stacks: int, stop_on: StopOn) -> None:
        self._libc, self.recording = libc, recording
        self._stacks, self.stop_on = stacks, stop_on
        self._registers = Registers(libc)
        self._returns: dict[int, Point] = {}
        self._ending: set[int] = set()  # threads whose function has returned
        self._leaving: set[int] = set()  # those that empty their tcache just now
        self._leave_points: list[Point] = []
        self.watches: dict[int, Watch] = {}
        self.fault = ""  # what went wrong while the process ran
        self.serial = holds_all()
        self._before = str(gdb.parameter(LOCKING))
        self._points = list(self._entries())

    def _entries(self) -> Iterable[Point]:
        seen: dict[int, str] = {}
        for name, address in self._libc.functions.items():
            seen.setdefault(address, name)  # one function may have two names
        for address, name in seen.items():
            yield Point(address, self._guarded(partial(self._enter, name)))
        if self._libc.last_step:
            yield Point(self._libc.last_step, self._guarded(self._last_step))

    def _guarded(self, seen: Callable[[], bool]) -> Callable[[], bool]:
        """Whatever goes wrong must not stop the process, nor be lost."""

        def run() -> bool:
            try:
                return seen()
            except Exception as error:
                self.fault = self.fault or f"{type(error).__name__}: {error}"
                return False

        return run

    # --- at breakpoints -----------------------------------------------------------------------

    def _enter(self, name: str) -> bool:
        tid, recording = current(), self.recording
        stack, back, words = self._registers.entry()
        after = self._registers.after(stack)
        inside = recording.inside.get(tid)
        if inside is not None and stack < inside.stack:
            return False  # a call inside of a call
        if inside is not None:
            recording.leave_undone(tid)  # left by longjmp
        if name in BREAKS and self._libc.holds(back):
            return False  # malloc's own
        clear = self._settle(tid)
        call: Call | None
        if self._is_drain(tid, name, words[0], back):
            call = recording.enter_drain(tid, words[0], back, after)
        else:
            call = recording.enter(tid, name, words, back, after)
            if call is not None and self._stacks:
                call.extra["stack"] = frames(self._stacks)
        if call is None:
            return False
        if back not in self._returns:
            self._returns[back] = Point(back, self._guarded(partial(self._return, back)))
        if self.serial and clear:
            self._lock(True)
        return self._wanted(call.op, call.values) if call.op != "thread_drain" else False

    def _is_drain(self, tid: int, name: str, block: int, back: int) -> bool:
        """Whether glibc frees what a thread that ends had in its tcache, and then the struct."""
        if not block or name not in FREES or tid not in self._ending:
            return False
        return not self.recording.is_live(block) and self._libc.holds(back)

    def _return(self, address: int) -> bool:
        tid, recording = current(), self.recording
        call = recording.inside.get(tid)
        if call is None or call.back != address or self._registers.stack() != call.stack:
            return False
        recording.leave(tid, self._registers.result())
        self._lock(False)
        return False

    # --- a thread's end -----------------------------------------------------------------------

    def _last_step(self) -> bool:
        """A thread's function has returned: look where it leaves malloc, if that is not known."""
        tid = current()
        if tid == self._libc.pid or tid not in self.recording.threads:
            return False
        self._ending.add(tid)
        if not self._leave_points:
            _, back, _ = self._registers.entry()
            self._leave_points = self._find_leaving(back)
        return False

    def _find_leaving(self, back: int) -> list[Point]:
        """Breakpoints before and behind what empties a thread's tcache, and nothing else.

        It is exported up to 2.33. Later, start_thread calls in a row: the destructors of C++, those
        of the thread's keys, and it.
        """
        if self._libc.leaving:
            return [Point(self._libc.leaving, self._guarded(self._leave_by_call))]
        before, behind = third_call(self._libc.abi, back)
        if not before:
            return []
        return [
            Point(before, self._guarded(self._leaves)),
            Point(behind, self._guarded(self._has_left)),
        ]

    def _leave_by_call(self) -> bool:
        _, back, _ = self._registers.entry()
        if len(self._leave_points) == 1:
            self._leave_points.append(Point(back, self._guarded(self._has_left)))
        return self._leaves()

    def _leaves(self) -> bool:
        tid = current()
        if tid in self._ending:
            self._settle(tid)
            self._leaving.add(tid)
            self._lock(True)
        return False

    def _has_left(self) -> bool:
        tid = current()
        if tid in self._leaving:
            self._leaving.discard(tid)
            self._ending.discard(tid)
            self.recording.end_thread(tid, alive=True)
            self._lock(False)
        return False

    def _settle(self, tid: int) -> bool:
        """See which threads are gone; whether this one may run alone: no other ends just now."""
        recording = self.recording
        known = recording.threads if tid not in recording.threads else self._ending
        for other in list(known):
            self._bury(other)
        unseen = self._ending if not self._leave_points else self._leaving
        overlaps = any(other != tid for other in (*recording.inside, *unseen))
        recording.unsure += overlaps
        return not overlaps

    def _bury(self, tid: int) -> None:
        if state(self._libc.pid, tid) in DEAD and tid != self._libc.pid:
            self._ending.discard(tid)
            self._leaving.discard(tid)
            self.recording.end_thread(tid)

    def _lock(self, on: bool) -> None:
        if self.serial and (on or not (self.recording.inside or self._leaving)):
            gdb.execute(f"set {LOCKING} {'on' if on else self._before}", to_string=True)

    # --- stops --------------------------------------------------------------------------------

    def _wanted(self, op: str, values: dict[str, object]) -> bool:
        """Whether the user wants to see this call; says why."""
        recording, wanted = self.recording, self.stop_on
        block = values.get("ptr") if op in FREES else values.get("old")
        if isinstance(block, int) and block and not recording.is_live(block):
            before = recording.freed.get(block)
            if before is not None and wanted.double_free:
                return tell(f"{op} of {block:#x}, which was freed by {before.text()}")
            if before is None and wanted.non_chunk:
                seen = "malloc did not give" if recording.fresh else "was not given while recording"
                return tell(f"{op} of {block:#x}, which {seen}")
        if wanted.sizes and values.get("size") in wanted.sizes and op not in FREES:
            return tell(f"{op} asks for {values['size']} bytes")
        return False

    def watch(self, block: int, address: int) -> None:
        """Stop when something but malloc writes to the word behind a block.

        :raises gdb.error: if the machine has no watchpoint left.
        """

        def seen() -> bool:
            if current() in self.recording.inside:
                return False
            return tell(f"a write to {address:#x}, behind the block {block:#x}")

        self.watches[block] = Watch(address, seen)

    def died(self, signal: str) -> None:
        """The selected thread got a signal that ends the process."""
        self.recording.died(current(), signal)
        self._lock(False)

    def close(self) -> None:
        """Take all breakpoints away and finish the trace."""
        points: list[gdb.Breakpoint] = [*self._points, *self._returns.values()]
        points += self._leave_points
        for point in [*points, *self.watches.values()]:
            with suppress(RuntimeError, gdb.error):
                point.delete()
        for tid in list(self.recording.threads):
            if state(self._libc.pid, tid):
                self._bury(tid)
        self.recording.finish()
        with suppress(gdb.error):
            self._lock(False)


NAMES = tuple(ARGUMENTS)


def third_call(abi: str, at: int) -> tuple[int, int]:
    """Return where the second of two calls in a row stands, and where it returns; else 0, 0."""
    try:
        code = read(at, 10)
    except MemoryFault:
        return 0, 0
    if abi in ("x86_64", "i386") and code[0] == code[5] == 0xE8:
        return at + 5, at + 10
    words = [int.from_bytes(code[start : start + 4], "little") >> 26 for start in (0, 4)]
    if abi == "aarch64" and words == [0x25, 0x25]:
        return at + 4, at + 8
    return 0, 0


def current() -> int:
    """Return the kernel's number of the selected thread."""
    pid, lwp, _ = gdb.selected_thread().ptid
    return int(lwp or pid)


def state(pid: int, tid: int) -> str:
    """Return the letter of a thread's state, "X" if there is no such thread any more."""
    try:
        with open(f"/proc/{pid}/task/{tid}/stat", "rb") as file:
            said = file.read()
    except OSError:
        return "X"
    return chr(said[said.rfind(b")") + 2])


def holds_all() -> bool:
    """Whether gdb holds all threads when one comes to a breakpoint, as it was told."""
    try:
        said = gdb.execute("maint show target-non-stop", to_string=True)
    except gdb.error:
        return False
    return "currently off" in said or '"off"' in said or " is off" in said


def tell(text: str) -> bool:
    """Say why the process stops."""
    gdb.write(f"heapglass: {text}\n")
    return True

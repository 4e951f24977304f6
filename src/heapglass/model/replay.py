"""Playing a trace: the model's answers beside the recorded ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import BadTarget, MallocAbort, MemoryFault
from .allocator import Allocator, Thread
from .kernel import BREAK, UNKNOWN
from .trace import GIVES, RECORDED, Call, Trace

MOST_THREADS = 500


class Mismatch(NamedTuple):
    """A call whose recorded answer is not the model's."""

    line: int
    expected: str
    got: str


class Ending(NamedTuple):
    """The call that did not return, and why."""

    line: int
    message: str
    thread: int = 1  # that made it
    pointer: int | None = None  # that it was given
    aborted: bool = True  # with malloc's words; else it crashed


@dataclass
class Replay:
    """What playing a trace gave."""

    allocator: Allocator
    threads: dict[int, Thread]
    calls: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    pointers: list[int | None] = field(default_factory=list)  # None: the call gives none
    abort: Ending | None = None
    fault: Ending | None = None  # malloc itself would get a SIGSEGV

    def image(self) -> tuple[int, bytes]:
        """Return (heap_base, bytes) from the heap's base to the end of top.

        :raises MemoryFault: if something of it is not mapped any more.
        """
        machine = self.allocator.machine
        base = machine.kernel.start_brk
        top = machine.load(machine.main + machine.o_top)
        end = top + machine.chunksize(top) if top else 0
        if not base <= end <= machine.kernel.brk:
            end = machine.kernel.brk
        return base, self.allocator.read(base, end - base)


def new_allocator(trace: Trace) -> Allocator:
    """Return the allocator that a trace's header asks for."""
    head = trace.header
    return Allocator(
        head.glibc,
        head.abi,
        head.tunables,
        heap_base=head.heap_base,
        page_size=head.page_size,
        main_arena=head.main_arena,
        mmap_top=head.mmap_top,
        ncpu=head.ncpu or 1,
    )


def replay(trace: Trace, keep_going: bool = False) -> Replay:
    """Play a trace to its end, to the first difference, or to where malloc ends the program.

    :raises BadTarget: if a line makes no sense.
    :raises UnsupportedGlibc: if the tables do not cover its release.
    """
    return _Player(trace, keep_going).run()


class _Player:
    def __init__(self, trace: Trace, keep_going: bool) -> None:
        self._trace, self._keep_going = trace, keep_going
        allocator = new_allocator(trace)
        self._names: dict[str, int] = {}
        self._ended: dict[int, Thread] = {}
        self._places: list[int | None] = []  # what mmap answered in the call that runs
        self._call: Call | None = None
        if trace.header.maps == RECORDED:
            allocator.kernel.recorded = self._recorded
        self.result = Replay(allocator, {1: allocator})

    def run(self) -> Replay:
        """Play all calls."""
        for call in self._trace.calls:
            if self._play(call) and not self._keep_going:
                break
            if self.result.abort or self.result.fault:
                break
        return self.result

    def _play(self, call: Call) -> bool:
        """Play a call; whether it was not as recorded."""
        result, expected = self.result, _expected(call)
        result.calls += 1
        self._call, self._places = call, list(call.maps)
        pointer: int | None = None
        try:
            pointer = self._do(call)
            got = hex(pointer) if pointer is not None else "returns"
        except MallocAbort as error:
            got, result.abort = f"abort: {error}", self._ending(call, str(error))
        except MemoryFault as error:
            got, result.fault = "signal: SIGSEGV", self._ending(call, str(error), False)
        result.pointers.append(pointer)
        if expected is None:
            different = bool(result.abort or result.fault)
            expected = "returns"
        else:
            different = expected != got
        if different:
            result.mismatches.append(Mismatch(call.line, expected, got))
        return different

    def _ending(self, call: Call, message: str, aborted: bool = True) -> Ending:
        key = "old" if call.op == "realloc" else "ptr"
        name = "old_id" if call.op == "realloc" else "id"
        given = call.op in ("free", "realloc", "free_sized", "free_aligned_sized")
        pointer = self._pointer(call, key, name) if given else None
        return Ending(call.line, message, call.thread, pointer, aborted)

    # --- the calls ----------------------------------------------------------------------------

    def _do(self, call: Call) -> int | None:
        """Do what a call says; its pointer, None if it gives none."""
        values = call.values
        if call.op == "thread_start":
            self._start(call)
            return None
        if call.op == "brk":
            was = self.result.allocator.kernel.sbrk(values["delta"])
            return self.result.allocator.layout.max_address if was is None else was
        thread = self.result.threads.get(call.thread)
        if thread is None and call.late:
            thread = self._ended.get(call.thread)
        thread = thread or self._start(call)
        if call.op == "thread_drain":
            self._not_main(call)
            return thread.drain() or 0
        if call.op in GIVES:
            pointer = self._allocate(thread, call)
            if "id" in values:
                self._names[values["id"]] = pointer
            return pointer
        _VOID[call.op](self, thread, call)
        return None

    def _start(self, call: Call) -> Thread:
        if call.thread in self.result.threads:
            raise BadTarget(
                self._trace.name, f"line {call.line}: thread {call.thread} runs already"
            )
        if len(self.result.threads) >= MOST_THREADS:
            raise BadTarget(self._trace.name, f"line {call.line}: too many threads")
        self.result.threads[call.thread] = thread = self.result.allocator.thread()
        return thread

    def _allocate(self, thread: Thread, call: Call) -> int:
        values = call.values
        if call.op == "realloc":
            return thread.realloc(self._pointer(call, "old", "old_id"), values["size"])
        if call.op == "calloc":
            return thread.calloc(values["nmemb"], values["size"])
        if call.op == "posix_memalign":
            return thread.posix_memalign(values["alignment"], values["size"])[1]
        function: Callable[..., int] = getattr(thread, call.op)
        words = [values["alignment"]] if "alignment" in values else []
        return function(*words, values["size"])

    def _recorded(self, size: int, perms: str) -> int | None:
        """Where the real kernel placed it: as the call says, else as its pointer tells."""
        call, machine = self._call, self.result.allocator.machine
        if self._places and perms != BREAK:
            return self._places.pop(0)
        if call is None or call.op not in GIVES or "ptr" not in call.values:
            return UNKNOWN
        ptr = int(call.values["ptr"])
        if not ptr:
            return None
        if perms == BREAK:
            return UNKNOWN
        if perms == "---":  # a heap, which is looked for in twice its size, then exactly
            most = machine.heap_max_size()
            return None if size > most else ptr & -most
        return ptr - machine.HDR & -machine.kernel.page_size

    def _pointer(self, call: Call, key: str = "ptr", name_key: str = "id") -> int:
        values = call.values
        if key in values:
            return int(values[key])
        name = values.get(name_key)
        if name is None:
            return 0
        if name not in self._names:
            where = f"line {call.line}"
            raise BadTarget(self._trace.name, f"{where}: no block was given the id {name!a}")
        return self._names[name]

    def _free(self, thread: Thread, call: Call) -> None:
        thread.free(self._pointer(call))

    def _free_sized(self, thread: Thread, call: Call) -> None:
        thread.free_sized(self._pointer(call), call.values.get("size", 0))

    def _write(self, _: Thread, call: Call) -> None:
        at = self._pointer(call) + call.values.get("offset", 0)
        self.result.allocator.write(at, call.values["bytes"])

    def _exit(self, thread: Thread, call: Call) -> None:
        self._not_main(call)
        self._ended[call.thread] = self.result.threads.pop(call.thread)
        thread.exit()

    def _not_main(self, call: Call) -> None:
        if call.thread == 1:
            raise BadTarget(self._trace.name, f"line {call.line}: thread 1 cannot end")

    def _trim(self, thread: Thread, call: Call) -> None:
        thread.malloc_trim(call.values.get("pad", 0))

    def _option(self, thread: Thread, call: Call) -> None:
        thread.mallopt(call.values["param"], call.values["value"])


_VOID: dict[str, Callable[[_Player, Thread, Call], Any]] = {
    "free": _Player._free,
    "free_sized": _Player._free_sized,
    "free_aligned_sized": _Player._free_sized,
    "write": _Player._write,
    "thread_exit": _Player._exit,
    "malloc_trim": _Player._trim,
    "mallopt": _Player._option,
}


def _expected(call: Call) -> str | None:
    """What a call is recorded to have answered; None: nothing is known."""
    if call.abort is not None:
        return f"abort: {call.abort}"
    if call.signal is not None:
        return "signal: SIGSEGV"  # SIGBUS, for a wild pointer that is no address, is the same
    if "ptr" in call.values and (call.op in GIVES or call.op in ("brk", "thread_drain")):
        return hex(call.values["ptr"])
    return None

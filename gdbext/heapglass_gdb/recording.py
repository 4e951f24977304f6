"""Calls that begin and end, put in their order and written as a trace. Knows no breakpoints."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from heapglass.errors import BadRequest, MemoryFault
from heapglass.model.trace import RECORDED, Header, Origin, call_line, origin
from heapglass.recorder.convert import abort_text, heap_max_size

from .exports import Libc, read

BREAKS = ("sbrk", "brk")
FREES = ("free", "free_sized", "free_aligned_sized")
# The arguments of what is recorded, in their order; "to" is where a pointer is put.
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "malloc": ("size",),
    "calloc": ("nmemb", "size"),
    "realloc": ("old", "size"),
    "reallocarray": ("old", "nmemb", "size"),
    "memalign": ("alignment", "size"),
    "aligned_alloc": ("alignment", "size"),
    "posix_memalign": ("to", "alignment", "size"),
    "valloc": ("size",),
    "pvalloc": ("size",),
    "free": ("ptr",),
    "free_sized": ("ptr", "size"),
    "free_aligned_sized": ("ptr", "alignment", "size"),
    "malloc_trim": ("pad",),
    "mallopt": ("param", "value"),
    "sbrk": ("delta",),
    "brk": ("delta",),  # where the break shall be; what was it until then is taken off
}


@dataclass
class Call:
    """A call of a thread, from its first instruction to behind its last."""

    op: str
    thread: int
    values: dict[str, Any]
    back: int  # where it returns to
    stack: int  # the stack pointer behind it
    extra: dict[str, Any] = field(default_factory=dict)
    was: int = 0  # brk: where the break was
    done: bool = False
    dropped: bool = False


class Recording:
    """A trace that is being written, and what is known of the blocks in it."""

    def __init__(self, libc: Libc, out: IO[str], path: str) -> None:
        self.libc, self.path = libc, path
        self._out = out
        self.calls = 0
        self.unsure = 0  # calls of which the order is not sure
        self.fresh = True
        self.threads: dict[int, int] = {libc.pid: 1}  # kernel's number to ours
        self.numbers = 1  # of threads, so far
        self._late: dict[int, int] = {}  # threads that have left malloc, and are not gone yet
        self.inside: dict[int, Call] = {}  # by the kernel's number of the thread
        self._queue: deque[Call] = deque()
        self.given: dict[int, Origin] = {}  # who gave a block last
        self.freed: dict[int, Origin] = {}  # who took it back since
        self._next = 0  # where main_arena.next is
        self._newest = 0
        self._heap = heap_max_size(libc.version, libc.abi)
        self._began = False

    # --- threads ------------------------------------------------------------------------------

    def number(self, tid: int) -> int:
        """Return our number of a thread; its first call begins it in the trace."""
        if tid in self._late:
            return self._late[tid]
        if tid not in self.threads:
            self.numbers += 1
            self.threads[tid] = self.numbers
            self._event("thread_start", self.numbers, tid=tid)
        return self.threads[tid]

    def end_thread(self, tid: int, alive: bool = False) -> None:
        """Write that a thread has left malloc, or (not *alive*) is gone."""
        if not alive:
            self._late.pop(tid, None)
        number = self.threads.pop(tid, None)
        call = self.inside.pop(tid, None)
        if call is not None:
            call.done = call.dropped = True
        if number is None or number == 1:
            return
        if alive:
            self._late[tid] = number
        self._event("thread_exit", number, tid=tid)

    def enter_drain(self, tid: int, block: int, back: int, stack: int) -> Call:
        """Begin to free a block of the tcache of a thread that ends."""
        call = Call("thread_drain", self.number(tid), {"ptr": block}, back, stack)
        self.inside[tid] = call
        self._queue.append(call)
        return call

    def leave_undone(self, tid: int) -> None:
        """A call was left by longjmp: what it did is not known."""
        call = self.inside.pop(tid)
        call.done = call.dropped = True
        self.unsure += 1
        self._flush()

    def _event(self, op: str, thread: int, **values: Any) -> None:
        self._begin()
        self._queue.append(Call(op, thread, values, 0, 0, done=True))
        self._flush()

    # --- calls --------------------------------------------------------------------------------

    def enter(
        self, tid: int, op: str, words: tuple[int, ...], back: int, stack: int
    ) -> Call | None:
        """Begin a call; None if it is of no effect."""
        self._begin()
        values = self._values(op, words)
        if values is None:
            return None
        call = Call(op, self.number(tid), values, back, stack)
        if op == "reallocarray":
            call.op = "realloc"
        elif op == "sbrk":
            call.op = "brk"
        elif op == "brk":
            call.was = words[0] - values["delta"]
        if tid in self._late:
            call.extra["late"] = True
        self.inside[tid] = call
        self._queue.append(call)
        return call

    def _values(self, op: str, words: tuple[int, ...]) -> dict[str, Any] | None:
        values: dict[str, Any] = dict(zip(ARGUMENTS[op], words))
        if op in FREES and not values["ptr"]:
            return None
        if op == "reallocarray":
            product = values.pop("nmemb") * values["size"]
            if product >> 8 * self.libc.word:
                return None
            values["size"] = product
        if op == "brk":
            values["delta"] -= self.libc.word_at(self.libc.break_at) or values["delta"]
        for key, bits in (("delta", 8 * self.libc.word), ("param", 32), ("value", 32)):
            if key in values:
                low = values[key] & (1 << bits) - 1
                values[key] = low - (low >> bits - 1 << bits)
        return None if op in BREAKS and not values["delta"] else values

    def leave(self, tid: int, result: int) -> None:
        """End the call that a thread is in."""
        call = self.inside.pop(tid)
        call.done = True
        if call.op == "thread_drain":
            self._flush()
            return
        to = call.values.pop("to", None)
        if to is not None:
            result = 0 if result & 0xFFFFFFFF else self.libc.word_at(to)
        if call.was:
            result = (1 << 8 * self.libc.word) - 1 if result & 0xFFFFFFFF else call.was
        if call.op not in (*FREES, "malloc_trim", "mallopt"):
            call.values["ptr"] = result
            places = self._places(result) if call.op != "brk" else []
            if places:
                call.extra["maps"] = places
        self._note(call, result)
        self._flush()

    def _places(self, block: int) -> list[int | None]:
        """Return where a new arena's heap and the block's own mapping begin, if they are."""
        places: list[int | None] = []
        newest = self.libc.word_at(self._next) if self._next else 0
        if newest != self._newest:
            self._newest = newest
            places += [None, newest & -self._heap]
        word = self.libc.word
        if block:
            try:
                header = read(block - 2 * word, 2 * word)
            except MemoryFault:
                return places
            before, size = (
                int.from_bytes(header[at : at + word], self.libc.order)  # type: ignore[arg-type]
                for at in (0, word)
            )
            if size & 2:
                places.append(block - 2 * word - (before & ~1))
        return places

    def _note(self, call: Call, result: int) -> None:
        old = call.values["ptr"] if call.op in FREES else call.values.get("old")
        self.calls += 1
        stack = tuple(call.extra.get("stack", ()))
        this = origin(self.calls, call.op, call.thread, call.values, stack)
        if call.op in FREES:
            result = 0
        if old and (call.op in FREES or result or not call.values["size"]):
            self.freed[old] = this
        if result and "ptr" in call.values and call.op != "brk":
            self.given[result] = this
            self.freed.pop(result, None)

    def is_live(self, block: int) -> bool:
        """Whether a block was given and not taken back, as far as it was recorded."""
        return block in self.given and block not in self.freed

    def died(self, tid: int, signal: str) -> None:
        """Write that the call a thread is in ended the process."""
        call = self.inside.pop(tid, None)
        if call is None:
            return
        call.values.pop("to", None)
        said = self.libc.abort_text() if signal == "SIGABRT" else ""
        if said:
            call.extra["abort"] = abort_text(said)
        else:
            call.extra["signal"] = signal
        call.done = True
        self.calls += 1
        self._flush()

    # --- output -------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Write the header: at the first event, when the library is ready to be read."""
        if self._began:
            return
        self._began = True
        libc = self.libc
        base, self.fresh = libc.start_brk()
        arena, self._next = libc.main_arena()
        self._newest = libc.word_at(self._next) if self._next else 0
        self.fresh = self.fresh and bool(arena)
        header = Header(
            libc.version,
            libc.abi,
            base,
            libc.page_size,
            libc.tunables(),
            arena,
            ncpu=libc.ncpu,
            maps=RECORDED,
            fresh=self.fresh,
            by="gdb",
        )
        self._write(header.line())

    def _flush(self) -> None:
        """Write what has ended, up to the first call that has not."""
        while self._queue and self._queue[0].done:
            call = self._queue.popleft()
            if call.dropped:
                continue
            values = {**call.values, **call.extra}
            if call.thread != 1:
                values["thread"] = call.thread
            self._write(call_line(call.op, **values))

    def _write(self, line: str) -> None:
        try:
            self._out.write(line + "\n")
        except OSError as error:
            raise BadRequest(f"cannot write {self.path}: {error.strerror}") from error

    def finish(self) -> None:
        """Write what is left; calls that have not ended are left out."""
        self._begin()
        for call in self.inside.values():
            call.done = call.dropped = True
        self.inside.clear()
        self._flush()

"""A trace file as a target: the model plays it, and its memory is read like any other.

The one module of this room that imports the model: what it makes is a `Source` like the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from ..model.replay import Ending, Replay, replay
from ..model.trace import NOT_FRESH, read_trace
from ..source import Machine, Module, Part, Stop, Symbol, Thread

LIBC = "/lib/libc.so.6"  # the name that the model's C library goes by
TLS = ("tcache", "thread_arena")


def open_trace(path: str) -> TraceSource:
    """Play a trace file, to its end if it can be.

    :raises BadTarget: if it is none, or a line makes no sense.
    :raises UnsupportedGlibc: if its release is not in the tables.
    """
    trace = read_trace(path)
    return TraceSource(path, replay(trace, keep_going=True), trace.header.fresh)


class TraceSource:
    """The process that a trace describes, as it is after the last call."""

    pid: int | None = None
    kind = "trace"

    def __init__(self, name: str, played: Replay, fresh: bool = True) -> None:
        self.replay = played
        allocator = played.allocator
        layout = allocator.layout
        self.name = name
        self.machine = Machine(layout.abi, layout.word, layout.order)
        self.memory = allocator.memory
        self.warnings = [*([] if fresh else [NOT_FRESH]), *_warnings(self.replay)]
        self._release = layout.release

    def __enter__(self) -> TraceSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held open."""

    def threads(self) -> Sequence[Thread]:
        """Return the threads that have not ended."""
        ending = self.replay.abort or self.replay.fault
        return [
            _ended(Thread(number, tp=thread.tp), ending)
            for number, thread in sorted(self.replay.threads.items())
        ]

    def auxv(self) -> dict[int, int]:
        """Return the page size, AT_PAGESZ."""
        return {6: self.replay.allocator.kernel.page_size}

    def modules(self) -> Sequence[Module]:
        """Return the simulated C library, which no file is behind."""
        return [Module(LIBC, 0, "", "", "")]

    def parts(self, module: Module) -> Sequence[Part]:  # noqa: ARG002
        """Return nothing: no ELF file was loaded."""
        return []

    def symbols(self, name: str) -> Sequence[Symbol]:
        """Return malloc's variables."""
        places = self.replay.allocator.places
        if name in TLS:
            offset = getattr(places.tls, name)
            return [Symbol(name, offset, self.machine.word, "symbol", LIBC, True)]
        address = places.symbols().get(name)
        if address is None:
            return []
        return [Symbol(name, address, 0, "symbol", LIBC)]

    def symbol_at(self, address: int) -> Symbol | None:  # noqa: ARG002
        """Return nothing: no file was loaded."""
        return None

    def frame_at(self, thread: int, address: int) -> str:  # noqa: ARG002
        """Return nothing: there are no stacks."""
        return ""

    def file_bytes(self, module: Module, pattern: bytes, limit: int) -> bytes | None:  # noqa: ARG002
        """Return the banner of the simulated library, if that is what is looked for."""
        banner = b"GNU C Library (the model) stable release version " + self._release.encode()
        return banner[:limit] if pattern in banner else None


def _ended(thread: Thread, ending: Ending | None) -> Thread:
    """Return a thread with why it ended; the pointer that it passed is in a register."""
    if ending is None or ending.thread != thread.id:
        return thread
    given = () if ending.pointer is None else (("argument", ending.pointer),)
    stop = Stop(6, message=ending.message) if ending.aborted else Stop(11)
    return thread._replace(registers=given, stop=stop)


def _warnings(played: Replay) -> Sequence[str]:
    said = []
    if played.mismatches:
        first = played.mismatches[0]
        said.append(
            f"line {first.line}: recorded {first.expected}, the model {first.got} "
            f"({len(played.mismatches)} differences: heapglass replay lists them)"
        )
    if played.abort:
        said.append(f"malloc aborted at line {played.abort.line}: {played.abort.message}")
    if played.fault:
        said.append(f"malloc crashed at line {played.fault.line}: {played.fault.message}")
    return said

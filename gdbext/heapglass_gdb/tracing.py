"""`heap trace`: recording starts, waits for the C library, stops, and says how it is."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import IO, Any

import gdb

from heapglass.arguments import evaluate
from heapglass.errors import BadRequest, BadTarget, HeapglassError, NotFound
from heapglass.recorder.convert import open_output
from heapglass.render.escape import visible
from heapglass.table import Answer, Fact, Facts, Kind

from .exports import find_libc, read
from .expressions import evaluate_in_gdb
from .kept import kept
from .recording import Recording
from .registers import CONVENTIONS
from .tracer import NAMES, StopOn, Tracer

NON_STOP = "target-non-stop"
FATAL = ("SIGABRT", "SIGSEGV", "SIGBUS")
KINDS = ("double-free", "non-chunk", "size", "write", "off")
NOTHING = "heapglass: nothing was recorded: no C library was loaded (is it static?)\n"
LIVE = (
    "threads overlap: the order of calls that did is not sure (exact if the recording is started "
    "before the process)"
)
NOT_FRESH = "malloc was in use already: the model cannot replay this from its start"


class Tracing:
    """The one recording that there may be."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None
        self._waiting: tuple[str, int, StopOn] | None = None
        self._files = ExitStack()
        self._held = False  # whether target-non-stop was changed

    # --- what a user asks ---------------------------------------------------------------------

    def answer(self, request: Any) -> Answer:
        """Do what `heap trace` was told.

        :raises HeapglassError: if it cannot be.
        """
        action = request.action or ""
        if action == "start":
            return self._start(request)
        if action == "stop":
            return self._stop()
        if action == "stop-on":
            return self._stop_on(request)
        return _answer(self._facts())

    def _start(self, request: Any) -> Answer:
        if self.tracer is not None or self._waiting is not None:
            raise BadRequest("a recording runs already", "heap trace stop")
        if not request.what:
            raise BadRequest("trace start needs a file", "heap trace start FILE")
        stop_on = StopOn()
        for text in request.stop_on or ():
            _add(stop_on, *text.replace("=", " ").split())
        self._waiting = request.what, request.stacks or 0, stop_on
        try:
            inferior = gdb.selected_inferior()
            if inferior.pid:
                _check_native(inferior)
                self._begin(int(inferior.pid))
            else:
                self._hold_all()
        except NotFound:
            pass  # the library is not loaded yet
        except HeapglassError:
            self._waiting = None
            raise
        _listen(self)
        return _answer(self._facts(), self._warnings())

    def _begin(self, pid: int) -> None:
        """Record a process whose C library is loaded.

        :raises NotFound: if it is not.
        """
        assert self._waiting is not None
        path, stacks, stop_on = self._waiting
        libc = find_libc(pid, NAMES)
        if libc.abi not in CONVENTIONS:
            raise BadTarget(f"process {pid}", f"calls of {libc.abi} cannot be recorded")
        out: IO[str] = self._files.enter_context(open_output(path))
        self.tracer = Tracer(libc, Recording(libc, out, path), stacks, stop_on)
        self._waiting = None

    def _hold_all(self) -> None:
        """Let gdb hold all threads while one is at a breakpoint: before the process begins."""
        with suppress(gdb.error):
            gdb.execute(f"maint set {NON_STOP} off", to_string=True)
            self._held = True

    def _stop(self) -> Answer:
        if self.tracer is None:
            if self._waiting is None:
                raise BadRequest("nothing is recorded", "heap trace start FILE")
            self._waiting = None
            self._release()
            return _answer([Fact("", "recording", "stopped before it began")])
        facts, warnings = self._close()
        return _answer(facts, warnings)

    def _stop_on(self, request: Any) -> Answer:
        tracer = self.tracer
        if tracer is None and self._waiting is None:
            raise BadRequest("nothing is recorded", "heap trace start FILE")
        if not request.what:
            raise BadRequest("stop on what?", "heap trace stop-on " + "|".join(KINDS))
        words = [request.what, *([request.value] if request.value else [])]
        stop_on = tracer.stop_on if tracer else self._waiting[2]  # type: ignore[index]
        if words[0] == "write":
            self._watch(words)
        elif words[0] == "off":
            stop_on.double_free = stop_on.non_chunk = False
            stop_on.sizes.clear()
            for watch in tracer.watches.values() if tracer else ():
                watch.delete()
            if tracer:
                tracer.watches.clear()
        else:
            _add(stop_on, *words)
        return _answer(self._facts())

    def _watch(self, words: list[str]) -> None:
        if self.tracer is None or len(words) < 2:
            raise BadRequest(
                "a write is watched for behind a block that is there",
                "heap trace stop-on write ADDR, when it has been given",
            )
        block = evaluate_in_gdb(words[1])
        libc = self.tracer.recording.libc
        size = int.from_bytes(read(block - libc.word, libc.word), libc.order)  # type: ignore[arg-type]
        behind = block - libc.word + (size & ~7)
        try:
            self.tracer.watch(block, behind)
        except (gdb.error, RuntimeError) as error:
            raise BadRequest(f"{behind:#x} cannot be watched: {error}", "delete a watch") from error

    def origins(self, block: int) -> list[tuple[str, str]]:
        """Return who gave a block and who took it back, as far as it was recorded."""
        if self.tracer is None:
            return []
        recording = self.tracer.recording
        found = [("allocated", recording.given), ("freed", recording.freed)]
        return [(name, known[block].text()) for name, known in found if block in known]

    # --- what gdb tells -----------------------------------------------------------------------

    def loaded(self, _event: object) -> None:
        """A file was loaded: maybe the C library."""
        inferior = gdb.selected_inferior()
        if self._waiting is None or not inferior.pid:
            return
        try:
            _check_native(inferior)
            self._begin(int(inferior.pid))
        except NotFound:
            return
        except HeapglassError as error:
            self._waiting = None
            gdb.write(visible(f"heapglass: nothing is recorded: {error}") + "\n", gdb.STDERR)

    def stopped(self, event: Any) -> None:
        """The process stopped: maybe for good, inside of a call."""
        if self.tracer and isinstance(event, gdb.SignalEvent) and event.stop_signal in FATAL:
            self.tracer.died(str(event.stop_signal))

    def exited(self, _event: object) -> None:
        """The process ended: the trace is whole."""
        if self.tracer is None:
            self._release()
            if self._waiting is not None:
                self._waiting = None
                gdb.write(NOTHING, gdb.STDERR)
            return
        facts, warnings = self._close()
        said = ", ".join(f"{fact.label} {fact.value}" for fact in facts)
        gdb.write(visible(f"heapglass: recorded: {said}") + "\n")
        for text in warnings:
            gdb.write(visible(f"! {text}") + "\n")

    # --- the end ------------------------------------------------------------------------------

    def _close(self) -> tuple[list[Fact], list[str]]:
        tracer = self.tracer
        assert tracer is not None
        self.tracer = None
        tracer.close()
        self._files.close()
        self._release()
        recording = tracer.recording
        warnings = [] if recording.fresh else [NOT_FRESH]
        if recording.unsure:
            warnings.append(
                f"of {recording.unsure} calls the order is not sure: threads overlapped"
            )
        if tracer.fault:
            warnings.append(f"something could not be recorded: {tracer.fault}")
        return _recorded(tracer), warnings

    def _release(self) -> None:
        if self._held:
            with suppress(gdb.error):  # not while a process lives: when it has ended, then
                gdb.execute(f"maint set {NON_STOP} auto", to_string=True)
                self._held = False

    def _facts(self) -> list[Fact]:
        if self.tracer is not None:
            facts = [Fact("state", "state", "recording"), *_recorded(self.tracer)]
            words = [*self.tracer.stop_on.words()]
            words += [f"write {block:#x}" for block in self.tracer.watches]
        elif self._waiting is not None:
            path, _, stop_on = self._waiting
            facts = [
                Fact("state", "state", "waiting for the C library"),
                Fact("file", "file", path),
            ]
            words = stop_on.words()
        else:
            return [Fact("state", "state", "nothing is recorded")]
        return [*facts, *([Fact("stop_on", "stops on", ", ".join(words))] if words else [])]

    def _warnings(self) -> list[str]:
        return [LIVE] if self.tracer is not None and not self.tracer.serial else []


def _recorded(tracer: Tracer) -> list[Fact]:
    recording = tracer.recording
    return [
        Fact("file", "file", recording.path),
        Fact("calls", "calls", recording.calls, Kind.COUNT),
        Fact("threads", "threads", recording.numbers, Kind.COUNT),
    ]


def _answer(facts: list[Fact], warnings: list[str] | None = None) -> Answer:
    return Answer("trace", [Facts("", facts)], warnings or [])


def _add(stop_on: StopOn, kind: str = "", value: str = "", *_: str) -> None:
    if kind == "double-free":
        stop_on.double_free = True
    elif kind == "non-chunk":
        stop_on.non_chunk = True
    elif kind == "size" and value:
        stop_on.sizes.add(evaluate(value))
    else:
        raise BadRequest(
            f"cannot stop on {kind} {value}".rstrip(), "double-free, non-chunk, size N"
        )


def _check_native(inferior: gdb.Inferior) -> None:
    connection = getattr(inferior, "connection", None)
    if connection is not None and connection.type != "native":
        raise BadTarget(
            f"process {inferior.pid}",
            "only a process of this machine can be recorded",
            "heapglass record, where it runs",
        )


def _listen(tracing: Tracing) -> None:
    mine = kept("trace")
    if mine.get("listening") is tracing:
        return
    mine["listening"] = tracing
    gdb.events.new_objfile.connect(tracing.loaded)
    gdb.events.cont.connect(tracing.loaded)
    gdb.events.stop.connect(tracing.stopped)
    gdb.events.exited.connect(tracing.exited)


def tracing() -> Tracing:
    """Return the one that there is, also when heapglass was sourced again."""
    mine = kept("trace")
    if "tracing" not in mine:
        mine["tracing"] = Tracing()
    found: Tracing = mine["tracing"]
    return found

"""What the next calls would do: the model goes on from a target, copy-on-write.

Nothing is written to the target. What is not known of it, and matters here, is said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import BadRequest, MallocAbort, MemoryFault
from ..glibc import messages
from ..heap.heap import Heap
from ..heap.segments import top_end
from ..heap.target import HeapThread, Target
from ..model import places
from ..model.allocator import Thread
from ..model.kernel import PMD
from ..model.overlay import Overlay, ThreadState
from .calls import GIVES, Call, Ref, Value
from .changes import Effects, Watcher

MOST_THREADS = 256  # whose tcaches the model knows
STEPS = 1 << 14  # of a list beyond the longest that there is, after which it never ends
NEW = "new"  # the name of a thread that is started for the call


@dataclass
class Outcome:
    """What a call did. *value* is what it returned, None if nothing, or it did not return."""

    call: Call
    thread: int
    value: int | None = None
    abort: str | None = None
    check: str | None = None  # the part of malloc that aborted
    fault: str | None = None  # malloc itself would get a SIGSEGV
    printed: list[str] = field(default_factory=list)  # complaints after which it went on (to 2.26)
    effects: Effects = field(default_factory=Effects)


class WhatIf:
    """A heap that can be played on with: `run` as often as one likes.

    :raises NotFound: if main_arena or mp_ is not known.
    :raises BadRequest: if the model cannot go on from this target.
    """

    def __init__(self, heap: Heap, thread: int | None = None) -> None:
        self.heap = heap
        self.outcomes: list[Outcome] = []
        self.warnings: list[str] = []
        self.ended = False
        target = heap.target
        self._order = _ordered(target.threads, thread)
        self.overlay = make_overlay(heap, self._order, self.warnings)
        players: list[Thread] = [self.overlay, *self.overlay.others]
        self._players = {one.id: player for one, player in zip(self._order, players)}
        self._numbers = {one.number: one.id for one in target.threads if one.number is not None}
        if not self._order:
            self._players = {0: self.overlay}
        longest = max((len(found.chunks) for found in heap.lists), default=0)
        self.overlay.machine.loops = longest + STEPS
        self._watcher = Watcher(heap, self.overlay, self._players)
        self._said_place = False

    def run(self, calls: Sequence[Call]) -> list[Outcome]:
        """Play calls; none after one that ended the program.

        :raises BadRequest: if a call names a thread that is not there.
        """
        done = []
        for call in calls:
            if self.ended:
                break
            done.append(self._play(call))
            self.outcomes.append(done[-1])
        return done

    def _play(self, call: Call) -> Outcome:
        thread = self._thread(call.thread)
        outcome = Outcome(call, thread)
        values = [self._value(value) for value in call.values]
        header, machine = self.heap.layout.header, self.overlay.machine
        about = values[0] - header if _takes(call) and values[0] else None
        readable = self._looked(lambda: self._watcher.begin(about))
        told = len(machine.complaints.told)
        try:
            outcome.value = _run(self._players[thread], call.call, values)
        except MallocAbort as error:
            outcome.abort, outcome.check = str(error), where(str(error))
            self.ended = True
        except MemoryFault as error:
            outcome.fault, self.ended = str(error), True
        outcome.printed = machine.complaints.told[told:]
        given = outcome.value if call.call in GIVES and outcome.value else None
        chunk = None if given is None else given - header
        if readable is not None:
            outcome.effects = (
                self._looked(lambda: self._watcher.end(thread, chunk, not self.ended)) or Effects()
            )
        self._say_placed(outcome.effects)
        return outcome

    def _looked(self, look: Callable[[], Effects]) -> Effects | None:
        """Return what was seen; None, which is said, where the heap cannot be read."""
        try:
            return look()
        except MemoryFault as fault:
            self.warnings.append(f"what a call changes cannot be told: {fault}")
            return None

    def _value(self, value: Value) -> Any:
        if isinstance(value, Ref):
            value = (self.outcomes[value.call].value or 0) + value.offset
        return value & self.heap.layout.max_address if isinstance(value, int) else value

    def _thread(self, said: str | None) -> int:
        """Return the id of the thread that calls, by its id or gdb's number; `new` starts one."""
        if said is None:
            return next(iter(self._players))
        if said == NEW:
            player = self.overlay.thread()
            self._players[-player.number] = player
            return -player.number
        number = int(said, 0) if said.isalnum() and said[0].isdigit() else -1
        number = number if number in self._players else self._numbers.get(number, number)
        if number not in self._players:
            known = ", ".join(str(one) for one in self._players)
            raise BadRequest(f"no thread {said!a}", f"threads: {known}, {NEW}")
        return number

    def _say_placed(self, effects: Effects) -> None:
        odd = any((high - low) % PMD == 0 and high - low >= PMD for low, high in effects.mapped)
        if not effects.mapped or self._said_place:
            return
        self._said_place = True
        regions = self.heap.target.memory.regions()
        if not regions:
            self.warnings.append(
                "the mappings of this target are not known: neither is where mmap puts something"
            )
        elif odd and self.heap.layout.abi == "x86_64":
            self.warnings.append(
                "a mapping of whole huge pages is placed as Linux 6.7 and later place it"
            )


def _takes(call: Call) -> bool:
    return call.call in ("free", "realloc", "malloc_usable_size")


def where(text: str) -> str | None:
    """Return the part of malloc that ends a program with a text."""
    known = next((row.where for row in messages.MESSAGES if row.text == text), None)
    if known is not None:
        return known
    return next((row.function for row in messages.ASSERTIONS if row.expression in text), None)


_RUN: dict[str, Callable[..., Any]] = {
    "write": lambda thread, at, data: thread.machine.space.write(at, data),
    "mallopt": lambda thread, option, value: thread.mallopt(_int(option), _int(value)),
    "posix_memalign": lambda thread, *values: thread.posix_memalign(*values)[1],
}


def _int(value: Any) -> Any:
    """Return a word as C's int; a name as it is."""
    return value if isinstance(value, str) else (value + (1 << 31) & 0xFFFFFFFF) - (1 << 31)


def _run(thread: Thread, call: str, values: Sequence[Any]) -> int | None:
    found = _RUN.get(call)
    if found is not None:
        return found(thread, *values)  # type: ignore[no-any-return]
    return getattr(thread, call)(*values)  # type: ignore[no-any-return]


# --- the overlay ----------------------------------------------------------------------------------


def _ordered(threads: Sequence[HeapThread], first: int | None) -> list[HeapThread]:
    """Return the threads, the one that calls first.

    :raises BadRequest: if there is none of that id.
    """
    if first is None:
        return list(threads)[:MOST_THREADS]
    own = [one for one in threads if one.id == first] or [
        one for one in threads if one.number == first
    ]
    if not own:
        known = ", ".join(str(one.id) for one in list(threads)[:8])
        raise BadRequest(f"no thread {first}", f"threads: {known}")
    return [*own, *(one for one in threads if one.id != own[0].id)][:MOST_THREADS]


def make_overlay(
    heap: Heap, threads: Sequence[HeapThread], warnings: list[str] | None = None
) -> Overlay:
    """Return the model on a target's memory, with all that is known of it.

    What is not known, and may change what malloc does, is put to *warnings*.

    :raises NotFound: if main_arena or mp_ is not known.
    """
    target, layout = heap.target, heap.layout
    said = warnings if warnings is not None else []
    main = target.require_main_arena().address
    if target.mp is None:
        raise BadRequest("mp_ was not found: the model needs it", "give --mp ADDR")
    variables = {
        name: place.address for name, place in target.names.items() if name in places.VARIABLES
    }
    area = next(iter(target.addresses_of("aligned_heap_area")), None)
    if area is not None and _word(heap, area) % heap.heap_max == 0:
        variables["aligned_heap_area"] = area
    said += _unknown(heap, threads, variables)
    brk, top = _break(target, heap), _mmap_top(target)
    if top is None:
        said.append("which mapping is the stack is not known: where mmap begins is a guess")
    if not heap.arenas[0].has_top(layout):
        brk = brk or _first_break(target)
        said.append(f"malloc has not moved the break yet: it is taken to be at {brk:#x}")
    elif not brk:
        said.append(
            "where the break is, is not known: it is taken to be the end of top, as if nobody else "
            "had used sbrk"
        )
    return Overlay(
        target.memory,
        layout,
        main,
        target.mp.address,
        [_state(one, main, len(threads)) for one in threads] or [ThreadState(0, main, True)],
        variables,
        target.page_size,
        brk,
        top or 0,
        ncpu=os.cpu_count() or 1,
        thp_aligned=layout.abi == "x86_64",
    )


def _state(thread: HeapThread, main: int, count: int) -> ThreadState:
    arena = thread.arena or 0
    if not thread.arena_known and count == 1:
        arena = main
    return ThreadState(
        thread.tcache or 0,
        arena,
        thread.tcache_state == "unknown",
        thread.tcache_state == "disabled",
    )


def _unknown(heap: Heap, threads: Sequence[HeapThread], variables: dict[str, int]) -> Iterator[str]:
    """Say what is not known and may matter."""
    layout = heap.layout
    if layout.has("tcache"):
        lost = [str(one.id) for one in threads if one.tcache_state == "unknown"]
        if lost or not threads:
            whose = f"of thread {', '.join(lost[:8])}" if lost else "of the thread"
            yield (f"the tcache {whose} was not found: the model goes on as if nothing were in it")
    homeless = [str(one.id) for one in threads if not one.arena_known]
    if homeless and len(threads) > 1:
        yield f"the arena of thread {', '.join(homeless[:8])} is not known: it gets one at its call"
    if layout.has("tcache_key_random") and "tcache_key" not in variables:
        yield (
            "tcache_key was not found: the key of a cached block is taken for it; without one, a "
            "double free is not noticed"
        )
    if layout.has("fastbins") and "global_max_fast" not in variables:
        yield "global_max_fast was not found: it is taken to be what a process starts with"
    if not heap.arenas[0].has_top(layout):
        yield "malloc has not been called yet: the tunables that it will start with are not known"


def _break(target: Target, heap: Heap) -> int:
    """Return the program's break: __curbrk, else where [heap] ends; 0: not known.

    libc's and the loader's own are not alike: who moves the break keeps where it then was.
    """
    regions = target.memory.regions()
    for address in target.addresses_of("__curbrk"):
        said = _word(heap, address)
        page = target.page_size
        if any(r.start < said <= r.end and r.end - said < page for r in regions):
            return said
    named = next((region.end for region in regions if region.path == "[heap]"), 0)
    main = heap.arenas[0]
    if named or not main.contiguous or not main.has_top(heap.layout):
        return named
    end = top_end(heap.words, main)
    return end if any(region.end == end for region in regions) else 0


def _mmap_top(target: Target) -> int | None:
    """Return below which address mmap places, None if it is not known; 0: the names say it.

    The stack of the first thread is above that, whatever else is up there.
    """
    regions = target.memory.regions()
    if any(region.path == "[stack]" for region in regions):
        return 0
    main = next((one for one in target.threads if one.id == target.pid), None)
    if main is None or not main.sp:
        return None
    at = next((n for n, r in enumerate(regions) if r.start <= main.sp < r.end), 0)
    return regions[at - 1].end if at else None


def _word(heap: Heap, address: int) -> int:
    try:
        return heap.words.word(address)
    except MemoryFault:
        return 0


def _first_break(target: Target) -> int:
    """Return where the lowest file ends, with the zeros behind it: that is the program."""
    end = 0
    for region in target.memory.regions():
        if end and region.start != end:
            break
        end = region.end
    return end

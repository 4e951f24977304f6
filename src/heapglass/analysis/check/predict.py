"""What glibc would say, and at which call: the model plays the likely calls on a copy.

Each call begins from the heap as it is: an overlay keeps what the model writes, the target is not
touched. So the text is that of this very release, tunables and all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ...errors import HeapglassError, MallocAbort, MemoryFault
from ...heap.heap import Heap
from ...model.allocator import Thread
from ...model.overlay import Overlay
from ..whatif import make_overlay
from .finding import Finding, Outcome
from .places import Places

STEPS = 1 << 14  # of a list, after which the model gives up
AGAIN = 20  # times that a call is made, until a list is empty
MOST_THREADS = 64


class Trial(NamedTuple):
    """A call that may notice."""

    text: str
    run: Callable[[Thread], object]
    times: int = 1


def predict(places: Places, findings: list[Finding]) -> None:
    """Fill in what glibc would say of each finding; where the model cannot play, nothing."""
    for finding in findings:
        for trial in _trials(places, finding):
            outcome = _play(places.heap, finding, trial)
            if outcome is None:
                return
            if outcome.says and outcome not in finding.outcomes:
                finding.outcomes.append(outcome)


def _play(heap: Heap, finding: Finding, trial: Trial) -> Outcome | None:
    """Make a call on a copy; None if there can be no copy."""
    try:
        overlay = make_overlay(heap, heap.target.threads[:MOST_THREADS])
    except HeapglassError:
        return None
    overlay.machine.loops = STEPS
    thread = _thread_of(heap, overlay, finding)
    for time in range(trial.times):
        call = trial.text if trial.times == 1 else f"{trial.text}, call {time + 1}"
        try:
            trial.run(thread)
        except MallocAbort as abort:
            return Outcome(call, str(abort), True)
        except MemoryFault:
            return Outcome(call, "SIGSEGV", False)
        except HeapglassError:
            break
    return Outcome(trial.text, "", False)


def _thread_of(heap: Heap, overlay: Overlay, finding: Finding) -> Thread:
    """Return the thread that uses the arena of a finding, or has it in its tcache."""
    everyone = [overlay, *overlay.others]
    threads = list(zip(heap.target.threads, everyone))
    for known, thread in threads:
        cached = next((c for c in heap.tcaches if c.thread.id == known.id), None)
        if cached and any(finding.address in one.chunks for one in cached.lists):
            return thread
    for known, thread in threads:
        if known.arena == finding.arena:
            return thread
    return overlay


# --- calls ----------------------------------------------------------------------------------------


def _trials(places: Places, finding: Finding) -> Iterator[Trial]:
    """Yield the calls that are likely to meet what is wrong, the likeliest first."""
    chunk = finding.address
    if finding.is_chunk:
        near = [chunk, places.below(chunk), finding.next or places.above(chunk)]
        if (found := places.heap.marks.get(chunk)) is not None and found.min_size is not None:
            near.append(chunk + found.min_size)  # what its size in that list leads to
        for one in near:
            if one is None or one in places.tops or one in places.heap.owners:
                continue
            if one in places.heap.marks:
                continue
            yield _free(places, one)
            yield _realloc(places, one)
        if chunk in places.tops:
            yield _malloc(0x1000)
            yield _malloc(0x21000 - 0x100)
    if chunk in places.heap.marks or finding.list_label:
        yield from _sizes(places, finding)
    yield from _sorting(places, chunk if finding.is_chunk else 0)
    if finding.rule in ("size", "bin-size") and chunk in places.heap.marks:
        yield _free(places, chunk)  # once more


def _free(places: Places, chunk: int) -> Trial:
    mem = chunk + places.header
    return Trial(f"free ({mem:#x})", lambda thread: thread.free(mem))


def _realloc(places: Places, chunk: int) -> Trial:
    mem, size = chunk + places.header, places.size(chunk) or 0
    wanted = min(size, 0x10000) + 0x200
    return Trial(f"realloc ({mem:#x}, {wanted:#x})", lambda thread: thread.realloc(mem, wanted))


def _malloc(request: int, times: int = 1) -> Trial:
    return Trial(f"malloc ({request:#x})", lambda thread: thread.malloc(request), times)


def _sizes(places: Places, finding: Finding) -> Iterator[Trial]:
    """Yield requests that the list of a finding serves, until it is empty."""
    for found in places.heap.lists:
        if found.label != finding.list_label and finding.address not in found.chunks:
            continue
        size = found.min_size if found.min_size is not None else places.size(finding.address)
        if size is None or not places.layout.min_chunk <= size < 1 << 24:
            continue
        request = size - places.word
        again = min(AGAIN, 2 * len(found.chunks) + AGAIN // 2)
        yield _malloc(request, again if found.kind in ("tcache", "fast") else 2)


def _sorting(places: Places, chunk: int) -> Iterator[Trial]:
    """Yield requests that have the unsorted bin sorted, fast chunks merged, top used."""
    size = places.size(chunk) or 0 if chunk else 0
    largest = min(max(size + 0x100, 0x600), 0x18000)
    yield _malloc(largest)
    yield _malloc(0x18000)
    if places.layout.min_chunk <= size < places.layout.min_large:
        yield _malloc(size - places.word)
    if 4 * places.layout.min_chunk <= size < 1 << 24:
        yield _malloc(size // 2)

"""`try`: what calls of malloc would do from here, told by the model on a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..analysis.calls import GIVES, Call, parse_calls
from ..analysis.changes import Change, Effects, Seen
from ..analysis.whatif import Outcome, WhatIf
from ..heap.heap import Heap
from ..heap.target import Target
from ..table import Absent, Address, Answer, Data, Lines, Part, Style, Tag
from .cells import STATE_STYLES, finish, row_limit

CHANGES = 12  # lines about one call that are shown in text
SHOWN = 3  # chunks that moved alike, by address


def try_(target: Target, request: Any) -> Answer:
    """Tell what calls would return, and what they would change."""
    heap = Heap(target)
    thread = request.thread
    if thread is None and target.current in {one.id for one in target.threads}:
        thread = target.current
    stages: list[list[Call]] = []
    for text in (request.ops, *(request.then or ())):
        before = [call for stage in stages for call in stage]
        stages.append(parse_calls(text, request.evaluate, before))
    game = WhatIf(heap, thread)
    limit = row_limit(request, CHANGES)
    parts: list[Part] = []
    for number, stage in enumerate(stages):
        first = len(game.outcomes) + 1
        done = game.run(stage)
        if done:
            parts.append(Lines(_lines(done, first, limit), "then" if number else ""))
    left = sum(map(len, stages)) - len(game.outcomes)
    if left:
        parts.append(Lines([[Tag(f"{left} left: the program has ended", Style.DIM)]]))
    data = [_data(number, one) for number, one in enumerate(game.outcomes, 1)]
    parts += [Data("calls", data), Data("ended", game.ended)]
    heap.problems += game.warnings
    return finish(heap, "try", parts)


# --- text -----------------------------------------------------------------------------------------


def _lines(outcomes: Sequence[Outcome], first: int, limit: int | None) -> Iterator[list[Tag]]:
    for number, outcome in enumerate(outcomes, first):
        yield [
            Tag(f"{number:>3}  "),
            Tag(outcome.call.text, Style.STRONG),
            *_result(outcome, number),
        ]
        yield from ([Tag(f"     printed: {text}", Style.WARN)] for text in outcome.printed)
        told = list(_told(outcome.effects))
        yield from ([Tag("     "), *line] for line in told[:limit])
        if limit is not None and len(told) > limit:
            yield [Tag(f"     … {len(told) - limit} more (--all, or --limit N)", Style.DIM)]


def _result(outcome: Outcome, number: int) -> list[Tag]:
    """Return what stands behind a call: its result, or how it ended the program."""
    if outcome.abort is not None:
        check = f" (checked in {outcome.check})" if outcome.check else ""
        return [Tag("  aborts: "), Tag(outcome.abort, Style.BAD), Tag(check)]
    if outcome.fault is not None:
        return [Tag("  crashes: "), Tag(f"SIGSEGV in malloc, {outcome.fault}", Style.BAD)]
    if outcome.call.call in GIVES:
        said = f"{outcome.value:#x}" if outcome.value else "NULL"
        return [
            Tag("  = "),
            Tag(said, Style.GOOD if outcome.value else Style.WARN),
            Tag(f"  ${number}", Style.DIM),
        ]
    return [] if outcome.value is None else [Tag(f"  = {outcome.value}")]


def _told(effects: Effects) -> Iterator[list[Tag]]:
    moved: dict[tuple[Seen, Seen], list[int]] = {}
    for change in effects.chunks:
        was, now = change.before, change.after
        if was and now and was.bin and now.bin and was.size == now.size:
            moved.setdefault((was, now), []).append(change.address)
        else:
            yield list(_change(change))
    for (was, now), chunks in moved.items():
        shown = chunks if len(chunks) <= SHOWN else chunks[:SHOWN]
        more = f" and {len(chunks) - SHOWN} more" if len(chunks) > SHOWN else ""
        yield [Tag(f"{', '.join(map(hex, shown))}{more}  "), *_moved(was, now)]
    for av in effects.arenas:
        yield [Tag(f"a new arena, {av:#x}")]
    if effects.brk:
        before, after = effects.brk
        sign = "-" if after < before else "+"
        yield [Tag(f"the break {before:#x} -> {after:#x} ({sign}{abs(after - before):#x})")]
    for what, ranges in (("mapped", effects.mapped), ("unmapped", effects.unmapped)):
        for start, end in ranges:
            yield [Tag(f"{what} {start:#x}-{end:#x} ({end - start:#x})")]
    for name, old, new in effects.settings:
        yield [Tag(f"{name} {old:#x} -> {new:#x}", Style.DIM)]


def _change(change: Change) -> Iterator[Tag]:
    address, was, now, other = change
    yield Tag(f"{address:#x}  ")
    if was is not None and now is not None:
        yield from _moved(was, now)
    elif was is not None:
        yield from _seen(was)
        yield Tag(" -> gone" if other is None else f" -> in {other:#x}")
    elif now is not None:
        yield from _seen(now)
        yield Tag("  new" if other is None else f"  cut from {other:#x}", Style.DIM)


def _moved(was: Seen, now: Seen) -> Iterator[Tag]:
    whose = was.thread is not None and now.thread is not None  # from one cache to another
    yield from _seen(was, whose=whose)
    yield Tag(" -> ")
    yield from _seen(now, was.size, whose)


def _seen(seen: Seen, known: int | None = None, whose: bool = False) -> Iterator[Tag]:
    if seen.size != known:
        yield Tag(f"{seen.size:#x} ")
    yield Tag(seen.bin or seen.state, STATE_STYLES.get(seen.state, Style.PLAIN))
    if whose:
        yield Tag(f" of thread {seen.thread}")


# --- JSON -----------------------------------------------------------------------------------------


def _data(number: int, outcome: Outcome) -> dict[str, Any]:
    """Return a call as an object for JSON."""
    gives, effects = outcome.call.call in GIVES, outcome.effects
    value = outcome.value
    return {
        "number": number,
        "call": outcome.call.text,
        "name": outcome.call.name or None,
        "thread": outcome.thread if outcome.thread > 0 else None,
        "pointer": Address(value) if gives and value is not None else None,
        "returned": None if gives else value,
        "abort": outcome.abort,
        "check": outcome.check,
        "fault": outcome.fault,
        "printed": outcome.printed,
        "chunks": [
            {
                "address": Address(change.address),
                "before": _seen_data(change.before),
                "after": _seen_data(change.after),
                "other": Absent.NONE if change.other is None else Address(change.other),
            }
            for change in effects.chunks
        ],
        "settings": [one._asdict() for one in effects.settings],
        "arenas": [Address(av) for av in effects.arenas],
        "break": None if effects.brk is None else _span(effects.brk, "before", "after"),
        "mapped": [_span(one) for one in effects.mapped],
        "unmapped": [_span(one) for one in effects.unmapped],
    }


def _seen_data(seen: Seen | None) -> dict[str, Any] | None:
    return None if seen is None else seen._asdict()


def _span(pair: tuple[int, int], first: str = "start", last: str = "end") -> dict[str, Any]:
    return {first: Address(pair[0]), last: Address(pair[1])}

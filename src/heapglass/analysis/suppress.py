"""Leaks that are known and not to be told of: rules in LeakSanitizer's form.

A file has a rule a line, `leak:PATTERN`; lines that begin with # and empty ones say nothing. A
pattern matches a part of a name; `*` stands for anything, ^ and $ for the name's begin and end.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..errors import BadRequest
from .leaks import Leaks, Sum

MOST_BYTES, MOST_RULES = 1 << 20, 1 << 12
FORM = "leak:PATTERN"
NOTHING = Sum()

Names = Callable[[int], Iterable[str]]
"""What a row's block goes by: each source of such names is one of these."""


class Rule(NamedTuple):
    """A line of the file."""

    text: str
    pattern: re.Pattern[str]


@dataclass
class Suppressed:
    """What is left, and what each rule took."""

    left: Leaks
    by_rule: list[tuple[Rule, Sum]] = field(default_factory=list)  # in the order of the file
    total: Sum = NOTHING


def read_rules(path: str) -> list[Rule]:
    """Return the rules of a file.

    :raises BadRequest: if it cannot be read, or a line is no rule.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadRequest(f"--suppress {path}: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise BadRequest(f"--suppress {path}: more than {MOST_BYTES} bytes are no rules")
    lines = data.decode(errors="surrogateescape").splitlines()
    found = []
    for number, line in enumerate((line.strip() for line in lines), 1):
        if line and not line.startswith("#"):
            found.append(_rule(line, f"--suppress {path}, line {number}"))
    if len(found) > MOST_RULES:
        raise BadRequest(f"--suppress {path}: more than {MOST_RULES} rules")
    return found


def _rule(line: str, where: str) -> Rule:
    kind, colon, pattern = line.partition(":")
    if kind != "leak" or not colon or not pattern.strip("^*$"):
        raise BadRequest(f"{where}: {line[:80]!r} is no rule", f"a rule is {FORM}")
    return Rule(line, compiled(pattern))


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern as Python has it."""
    begin, end = pattern.startswith("^"), pattern.endswith("$")
    inner = pattern[begin : len(pattern) - end]
    parts = ".*".join(re.escape(part) for part in re.split(r"\*+", inner))
    return re.compile("^" * begin + parts + r"\Z" * end, re.DOTALL)


def suppress(found: Leaks, rules: Sequence[Rule], sources: Sequence[Names]) -> Suppressed:
    """Take away the blocks that a rule matches, and the leaked ones that these lead to.

    The first rule that matches counts. What hangs off a suppressed block goes with it, as it does
    in LeakSanitizer.
    """
    taken = _taken(found.leaked, rules, sources)
    lost = _taken(found.possibly, rules, sources)
    taken.update(list(_hanging(found, taken)))
    left = replace(
        found,
        leaked=array("I", [row for row in found.leaked if row not in taken]),
        possibly=array("I", [row for row in found.possibly if row not in lost]),
    )
    taken.update(lost)
    rows = sorted(taken)
    usable = dict(zip(rows, found.graph.usables(rows)))
    sums = {number: [0, 0] for number in range(len(rules))}
    for row, number in taken.items():
        sums[number][0] += 1
        sums[number][1] += usable[row]
    by_rule = [(rules[number], Sum(*held)) for number, held in sums.items() if held[0]]
    return Suppressed(left, by_rule, Sum(len(rows), sum(usable.values())))


def _taken(rows: Iterable[int], rules: Sequence[Rule], sources: Sequence[Names]) -> dict[int, int]:
    """Return the number of the rule that matches, by row."""
    known: dict[tuple[str, ...], int | None] = {}
    taken = {}
    for row in rows:
        names = tuple(name for source in sources for name in source(row) if name)
        if names not in known:
            known[names] = next(
                (n for n, rule in enumerate(rules) if any(map(rule.pattern.search, names))), None
            )
        number = known[names]
        if number is not None:
            taken[row] = number
    return taken


def _hanging(found: Leaks, taken: dict[int, int]) -> Iterator[tuple[int, int]]:
    """Yield what suppressed blocks lead to, with the rule of the first that does."""
    links = found.links
    places = {row: place for place, row in enumerate(links.rows)}
    seen = bytearray(len(links.rows))
    for row in taken:
        seen[places[row]] = 1
    for row, number in sorted(taken.items()):
        for place in links.flood(places[row], seen)[1:]:
            yield links.rows[place], number

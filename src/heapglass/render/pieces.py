"""What makes long answers fast: values that come again, and output in large pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from ..table import Address

Made = TypeVar("Made")
MOST_REMEMBERED = 1 << 14  # values of a column
MOST_AT_ONCE = 512  # pieces of text that are put out together


def remembered(make: Callable[[Any], Made]) -> Callable[[Any], Made]:
    """Return *make* with a memory: most cells of a column have few values, but for addresses."""
    known: dict[tuple[type, Any], Made] = {}

    def look(value: Any) -> Made:
        kind = value.__class__
        if kind is Address:
            return make(value)
        try:
            found = known.get((kind, value))
        except TypeError:  # a list
            return make(value)
        if found is None:
            if len(known) >= MOST_REMEMBERED:
                known.clear()
            found = known[kind, value] = make(value)
        return found

    return look


def in_blocks(pieces: Iterable[str]) -> Iterator[str]:
    """Yield text in larger and larger blocks: the first lines come at once, the rest fast."""
    source, count = iter(pieces), 1
    while block := "".join(islice(source, count)):
        yield block
        count = min(2 * count, MOST_AT_ONCE)

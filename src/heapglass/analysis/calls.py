"""Calls of malloc as a person types them: `free 0x…; a = malloc 0x80; thread 7: free(a)`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, Union

from ..errors import BadRequest

MOST_CALLS = 10_000
# What each call takes. A kind that ends with "?" may be left out.
CALLS: dict[str, tuple[str, ...]] = {
    "malloc": ("size",),
    "calloc": ("size", "size"),
    "realloc": ("pointer", "size"),
    "memalign": ("size", "size"),
    "aligned_alloc": ("size", "size"),
    "posix_memalign": ("size", "size"),
    "valloc": ("size",),
    "pvalloc": ("size",),
    "free": ("pointer",),
    "malloc_usable_size": ("pointer",),
    "write": ("pointer", "bytes"),
    "malloc_trim": ("size?",),
    "mallopt": ("option", "size"),
}
GIVES = frozenset(CALLS) - {"free", "malloc_usable_size", "write", "malloc_trim", "mallopt"}
_CALL = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*)\s*=\s*)?(?:thread\s+(?P<thread>[^:]+):\s*)?"
    r"(?:(?P<late>[A-Za-z_]\w*)\s*=\s*)?(?P<call>[a-z_]+)\b\s*(?P<rest>.*)",
    re.S,
)
_NAMED = re.compile(r"(\$\d+|[A-Za-z_]\w*)\s*(?:([+-])\s*(\w+))?")


class Ref(NamedTuple):
    """What an earlier call gave, and some bytes behind it."""

    call: int  # from 0
    offset: int = 0


Value = Union[int, str, bytes, Ref]


class Call(NamedTuple):
    """One call. *thread* is as it was typed, None: whoever calls by default."""

    text: str
    name: str  # of its result, empty: it has its number only
    thread: str | None
    call: str
    values: tuple[Value, ...]


def parse_calls(text: str, evaluate: Callable[[str], int], before: list[Call]) -> list[Call]:
    """Return the calls in a text, apart by `;`. *before*: those whose results it may name.

    :raises BadRequest: if one of them makes no sense.
    """
    made: list[Call] = []
    for part in re.split(r"[;\n]", text):
        if part.strip():
            made.append(_Reader(part.strip(), evaluate, [*before, *made]).call())
        if len(made) > MOST_CALLS:
            raise BadRequest(f"more than {MOST_CALLS} calls")
    return made


class _Reader:
    """Reads one call."""

    def __init__(self, text: str, evaluate: Callable[[str], int], before: list[Call]) -> None:
        self._text, self._evaluate = text, evaluate
        self._names = {f"${number + 1}": number for number in range(len(before))}
        self._names.update({call.name: n for n, call in enumerate(before) if call.name})

    def call(self) -> Call:
        """Return the call.

        :raises BadRequest: if it makes no sense.
        """
        found = _CALL.fullmatch(self._text)
        if found is None or found["call"] not in CALLS:
            raise BadRequest(f"{self._text!r} is no call", f"calls: {', '.join(CALLS)}")
        call, kinds = found["call"], CALLS[found["call"]]
        words = _words(found["rest"].strip())
        least = sum(not kind.endswith("?") for kind in kinds)
        if not least <= len(words) <= len(kinds):
            takes = " ".join(kind.rstrip("?").upper() for kind in kinds)
            raise BadRequest(f"{self._text!r}: {call} takes {takes}")
        values = tuple(self._value(word, kind) for word, kind in zip(words, kinds))
        name = found["name"] or found["late"] or ""
        if name and call not in GIVES:
            raise BadRequest(f"{self._text!r}: {call} gives no pointer to name")
        thread = found["thread"]
        return Call(self._text, name, thread.strip() if thread else None, call, values)

    def _value(self, word: str, kind: str) -> Value:
        if kind == "bytes":
            try:
                return bytes.fromhex(word)
            except ValueError:
                raise BadRequest(f"{self._text!r}: {word!r} is not hexadecimal bytes") from None
        if kind == "option" and word.startswith("M_"):
            return word
        named = _NAMED.fullmatch(word)
        if named and named[1] in self._names and kind == "pointer":
            offset = self._evaluate(named[3]) if named[3] else 0
            return Ref(self._names[named[1]], -offset if named[2] == "-" else offset)
        if re.fullmatch(r"\$\d+", word):
            raise BadRequest(f"{self._text!r}: there is no call {word[1:]} before it")
        return self._evaluate(word)


def _words(rest: str) -> list[str]:
    """Return the arguments: apart by blanks, or in brackets and apart by commas."""
    if rest.startswith("(") and rest.endswith(")"):
        inside = rest[1:-1].strip()
        return [word.strip() for word in _apart(inside)] if inside else []
    return rest.split()


def _apart(text: str) -> list[str]:
    """Cut at the commas that are in no brackets of their own."""
    words, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            words.append("")
        else:
            words[-1] += letter
    return words

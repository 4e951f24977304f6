"""What every answer must be, whatever the target: the contract, and nothing that steers."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NoReturn

STATUS = (0, 1, 2)
UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def complaints(words: Sequence[str], status: int, out: str, err: str) -> Iterator[str]:
    """Yield what is wrong with an answer."""
    if status not in STATUS:
        yield f"exit status {status}"
    if "Traceback" in out + err or "a fault in heapglass" in err or "not enough memory" in err:
        yield f"said: {err[:400]!r}"
    if status == 2 and (err.count("\n") != 1 or not err.startswith("heapglass: ")):
        yield f"no error in one line: {err[:200]!r}"
    records = "--format" in words  # rows and nothing else: warnings go to standard error
    if status != 2 and err and not (records and _all_ours(err)):
        yield f"status {status}, but said {err[:200]!r}"
    if status != 2 and not out and not records:
        yield "an empty answer"
    yield from _steering(out)
    yield from _steering(err)
    if "--json" in words and status != 2:
        yield from _json(out)


def _all_ours(err: str) -> bool:
    return all(line.startswith("heapglass: ") for line in err.splitlines())


def _steering(text: str) -> Iterator[str]:
    for char in set(text):
        if char not in "\n\t" and unicodedata.category(char) in UNSAFE:
            at = text.index(char)
            yield f"{char!a} gets out: {text[max(0, at - 60) : at + 60]!a}"
            return


def _json(out: str) -> Iterator[str]:
    if not out.isascii():
        yield "JSON that is not ASCII"
    try:
        said = json.loads(out, parse_constant=_constant)
    except ValueError as error:
        yield f"no JSON: {error}"
        return
    if not isinstance(said, dict) or said.get("heapglass") != 1 or "warnings" not in said:
        yield "not a document of heapglass"


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")

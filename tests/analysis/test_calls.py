"""Calls as a person types them."""

from __future__ import annotations

import pytest

from heapglass.analysis.calls import Call, Ref, parse_calls
from heapglass.arguments import evaluate
from heapglass.errors import BadRequest


def parse(text: str, before: str = "") -> list[Call]:
    return parse_calls(text, evaluate, parse_calls(before, evaluate, []) if before else [])


def test_calls_are_apart_by_semicolons():
    one, two, three = parse("malloc 24;\n free 0x10 ; realloc(0x20, 3);")

    assert one == Call("malloc 24", "", None, "malloc", (24,))
    assert two == Call("free 0x10", "", None, "free", (16,))
    assert three == Call("realloc(0x20, 3)", "", None, "realloc", (32, 3))


def test_results_have_names_and_numbers():
    calls = parse(
        "a = malloc 1; thread 7: b = calloc 2 3; free a; write b+8 4142; free $1", "free 1"
    )

    assert calls[1].name == "b"
    assert calls[1].thread == "7"
    assert [call.values[0] for call in calls[2:]] == [Ref(1), Ref(2, 8), Ref(0)]
    assert calls[3].values[1] == b"AB"


def test_a_thread_may_stand_behind_the_name():
    (call,) = parse("x = thread new: malloc 9")

    assert (call.name, call.thread, call.call) == ("x", "new", "malloc")


def test_an_expression_with_commas_goes_to_the_door():
    seen: list[str] = []

    def convert(text: str) -> int:
        seen.append(text)
        return 1

    parse_calls("realloc(f(a, b), c[1]); free(p->next)", convert, [])

    assert seen == ["f(a, b)", "c[1]", "p->next"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mallok 3", "'mallok 3' is no call"),
        ("42", "'42' is no call"),
        ("malloc", "'malloc': malloc takes SIZE"),
        ("malloc 1 2", "malloc takes SIZE"),
        ("realloc 1", "realloc takes POINTER SIZE"),
        ("free $2", "there is no call 2 before it"),
        ("free a; a = malloc 3", "'a' is no number"),
        ("a = free 3", "free gives no pointer to name"),
        ("write 1 4", "'4' is not hexadecimal bytes"),
    ],
)
def test_what_makes_no_sense_is_said(text: str, message: str):
    with pytest.raises(BadRequest) as caught:
        parse(text)

    assert message in str(caught.value)


def test_there_is_an_end():
    with pytest.raises(BadRequest, match="more than 10000 calls"):
        parse("malloc 1;" * 10_001)

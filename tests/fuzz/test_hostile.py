"""A thousand mutated targets, the same each time, and every target that ever failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heapglass.commands import COMMANDS

from .lines import chosen, patterns
from .mutate import recipes
from .recipe import HOSTILE, Recipe, Splice, base_bytes, from_text, target_bytes
from .run import SOME, Verdict, ask_all
from .verdict import complaints

COUNT, SEED, WORKERS = 1000, 20230, 2
FAILED_ONCE = sorted(HOSTILE.glob("*.json"))
GOOD = '{"heapglass": 1, "command": "info", "target": {}, "warnings": []}\n'


def said(verdict: Verdict) -> str:
    """What was wrong, with the recipe that repeats it."""
    return f"{verdict.recipe.text()[:2000]}: {json.dumps(verdict.bad, indent=1)}"


def test_a_thousand_hostile_targets_break_nothing():
    verdicts = list(ask_all(recipes(SEED, COUNT), WORKERS, SOME))

    assert [said(verdict) for verdict in verdicts if verdict.bad] == []
    assert len(verdicts) == COUNT
    answered, found_faults, refused = (sum(v.statuses[n] for v in verdicts) for n in range(3))
    assert answered > 3 * COUNT  # most are read in part: it is not that all are refused
    assert found_faults
    assert refused


def test_what_failed_once_fails_no_more():
    verdicts = list(ask_all([from_text(path.read_text()) for path in FAILED_ONCE], WORKERS))

    assert FAILED_ONCE
    assert [said(verdict) for verdict in verdicts if verdict.bad] == []


def test_every_command_is_asked_with_every_argument_of_its_examples():
    names = {words[0] for words in patterns()}

    assert names == {command.name for command in COMMANDS}
    assert ("chunk", "A") in patterns()
    assert len({words for seed in range(200) for words in chosen(SOME, seed)}) == len(patterns())


def test_a_recipe_is_the_same_after_it_was_written():
    for recipe in recipes(7, 40):
        assert from_text(recipe.text()) == recipe
        assert target_bytes(from_text(recipe.text())) == target_bytes(recipe)


def test_a_recipe_changes_what_it_says():
    base = "cores/2.43-amd64-empty.core"
    made = target_bytes(Recipe(base, (Splice(4, 2, "ab", 3), Splice(0, 0, "00")), cut=10))

    assert made == (b"\0" + base_bytes(base)[:4] + b"\xab\xab\xab" + base_bytes(base)[6:])[:10]


@pytest.mark.parametrize(
    ("words", "status", "out", "err", "complaint"),
    [
        (["info"], 0, "", "", "an empty answer"),
        (["info"], 3, "x\n", "", "exit status 3"),
        (["info"], 2, "", "heapglass: a\nb\n", "no error in one line"),
        (["info"], 2, "", "Traceback (most recent call last)\n", "said"),
        (["info"], 2, "", "heapglass: a fault in heapglass: X\n", "said"),
        (["info"], 0, "x\n", "heapglass: y\n", "but said"),
        (["info"], 0, "a\x1b[2Jb\n", "", "gets out"),
        (["info"], 2, "", "heapglass: a\u202eb\n", "gets out"),
        (["info", "--json"], 0, GOOD.replace("{}", "NaN"), "", "no JSON"),
        (["info", "--json"], 0, GOOD + "x", "", "no JSON"),
        (["info", "--json"], 0, "[]\n", "", "not a document"),
        (["info", "--json"], 0, GOOD.replace("info", "é"), "", "not ASCII"),
    ],
)
def test_a_wrong_answer_is_noticed(
    words: list[str], status: int, out: str, err: str, complaint: str
):
    assert any(complaint in text for text in complaints(words, status, out, err))


def test_a_right_answer_is_not_complained_about():
    assert list(complaints(["info", "--json"], 0, GOOD, "")) == []
    assert list(complaints(["info"], 1, "a\tb é\n", "")) == []
    assert list(complaints(["info"], 2, "", "heapglass: core: it is empty\n")) == []


def test_a_failing_target_is_kept_as_a_small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from . import run

    monkeypatch.setattr(run, "HOSTILE", tmp_path)
    recipe = next(recipes(3, 1))
    path = run.keep(Verdict(recipe, [{"words": [], "said": "x"}], (0.0, ""), 1, (0, 0, 1)))

    assert from_text(path.read_text()) == recipe

"""Styles as terminal colours. Colour is never the only carrier of what a cell says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..table import Style

_CODES = {
    Style.PLAIN: "",
    Style.DIM: "2",
    Style.STRONG: "1",
    Style.GOOD: "32",
    Style.NOTE: "36",
    Style.WARN: "33",
    Style.BAD: "1;31",
    Style.ONE: "36",
    Style.TWO: "35",
    Style.THREE: "34",
    Style.FOUR: "33",
    Style.FIVE: "32",
    Style.SIX: "91",
}
Paint = Callable[[str, Style], str]


def plain(text: str, _style: Style) -> str:
    """Return the text as it is."""
    return text


def ansi(text: str, style: Style) -> str:
    """Return the text between the escape sequences of its style."""
    code = _CODES[style]
    return f"\x1b[{code}m{text}\x1b[0m" if code and text else text


def wants_colour(choice: str, is_terminal: bool, environment: Mapping[str, str]) -> bool:
    """Tell whether to colour: *choice* is auto, always or never; auto honours NO_COLOR, TERM."""
    if choice != "auto":
        return choice == "always"
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    return is_terminal

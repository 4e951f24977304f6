"""Words that are stored mangled: turned and mixed with a key."""

from __future__ import annotations

from typing import NamedTuple


class Hidden(NamedTuple):
    """Words whose plain value lies in [low, high): the stored one turned back, then key mixed in.

    *behind*: what the plain value of the word behind must lie in, too; empty: anything.
    """

    low: int
    high: int
    key: int
    rotate: int  # bits to the left, of the stored word
    behind: tuple[int, int] = (0, 0)

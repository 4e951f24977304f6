"""Headers that memalign takes as it finds them: a chunk of a small bin that says another size."""

from __future__ import annotations

import pytest

from .play import Session
from .real import ARCHES, RELEASES, runtime
from .scripts import OFF, Hand

ALIGNMENT, REQUEST = 64, 100
NB = 112  # its chunk, in both word sizes


@pytest.mark.parametrize("next_word", [0x21, 0x20])
@pytest.mark.parametrize("extra", [-16, 0, 16, 32])
@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("glibc", RELEASES)
def test_memalign_cuts_what_the_header_says(
    glibc: str, arch: str, extra: int, next_word: int
) -> None:
    session = Session(runtime(glibc, arch), dict(OFF))
    hand, least = Hand(session), session.model.layout.min_chunk
    blocks = []
    for number in range(24):
        blocks.append(hand.m(NB + ALIGNMENT + least))
        hand.m(24 + 16 * (number % 4))
    for aligned in (True, False):
        block = next(at for at in blocks if (at % ALIGNMENT == 0) == aligned)
        blocks.remove(block)
        hand.f(block)
        hand.m(5000)  # sorts it
        hand.size(block, NB + extra | 1)
        hand.put(block - 2 * hand.word + NB + extra + hand.word, next_word)
        hand.put(block - 2 * hand.word + NB + extra + 0x20 + hand.word, next_word)
        session.call("a", ALIGNMENT, REQUEST)
        session.look_everywhere()
    # A build that carries later fixes has its assertion some lines further down.
    session.end = session.end.rpartition("assertion failed: ")[2]
    assert session.check() > 0

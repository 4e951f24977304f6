"""Safe-linking there and back, with and without the position."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heapglass.glibc.safelink import protect, recover, reveal

ADDRESSES = st.integers(0, (1 << 47) - 1)


@given(ADDRESSES, ADDRESSES)
def test_what_was_protected_is_revealed(position, pointer):
    assert reveal(position, protect(position, pointer)) == pointer


@given(ADDRESSES, st.integers(0, 0xFFF))
def test_a_word_that_points_into_its_own_page_gives_itself_away(position, offset):
    pointer = (position & ~0xFFF) | offset

    assert recover(protect(position, pointer)) == pointer


def test_the_end_of_a_list_leaks_the_page():
    assert protect(0x5555555592A0, 0) == 0x555555559

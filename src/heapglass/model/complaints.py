"""What malloc does where it finds the heap broken: end the program, or (to 2.26) maybe go on.

Up to 2.26 malloc_printerr marks the arena as corrupt, which arena_get avoids from then on, and
check_action (M_CHECK_ACTION, MALLOC_CHECK_) says whether the program ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

from ..errors import MallocAbort
from ..glibc import messages
from ..glibc.layout import Layout
from .space import Space

ARENA_CORRUPT = 4  # in flags
TELLS, ENDS = 1, 2  # bits of check_action
DEFAULT_ACTION = TELLS | ENDS

Result = TypeVar("Result")


class Refused(Exception):
    """A call of malloc's inside is given up: `errout` in the source."""


class Complaints:
    """malloc_printerr and failed assertions."""

    def __init__(self, layout: Layout, space: Space, flags: int, action: int) -> None:
        self._layout, self._flags, self._action = layout, flags, action
        self._texts = messages.messages_of(layout.version)
        if layout.as_of:  # what was backported brought its texts
            self._texts = frozenset(row.text for row in messages.MESSAGES)
        self.load, self.store = space.accessors(4)
        self.marks = layout.has("arena_corrupt_bit")
        self._guarded = 0  # how many calls that can be given up are under way
        self.told: list[str] = []  # what was printed before the program went on

    def abort(self, text: str) -> NoReturn:
        """End the program, or give up the call."""
        assert text in self._texts, text
        raise Refused(text) if self._guarded else MallocAbort(text)

    def fail(self, key: str) -> NoReturn:
        """End the program as a failed assertion does."""
        raise MallocAbort(messages.assertion(key, self._layout.version))

    def tell(self, av: int, text: str, action: int | None = None) -> None:
        """malloc_printerr where the call goes on behind it, if the program does."""
        if not self.marks:
            self.abort(text)
        if av:
            self.store(av + self._flags, self.load(av + self._flags) | ARENA_CORRUPT)
        action = self.load(self._action) if action is None else action
        if action & ENDS:
            raise MallocAbort(text)
        if action & TELLS:
            self.told.append(text)

    def corrupt(self, av: int) -> bool:
        """arena_is_corrupt."""
        return self.marks and bool(self.load(av + self._flags) & ARENA_CORRUPT)

    def given_up(
        self,
        run: Callable[..., Result],
        arena: Callable[..., int],
        result: Result,
    ) -> Callable[..., Result]:
        """Return *run* so that it gives *result* where its `errout` would be, if there is one."""
        if not self.marks:
            return run

        def guarded(*arguments: int) -> Result:
            self._guarded += 1
            try:
                return run(*arguments)
            except Refused as refused:
                said = str(refused)
            finally:
                self._guarded -= 1
            self.tell(arena(*arguments), said)
            return result

        return guarded

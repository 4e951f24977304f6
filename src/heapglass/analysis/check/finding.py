"""What a check finds: a rule that does not hold, where, the words that say so, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

ERROR, WARNING = "error", "warning"

# What must be true, by the name of the rule.
RULES: dict[str, str] = {
    "size": "a chunk's size leads to the next chunk: at least MINSIZE, aligned, not past the heap",
    "flags": "M is clear in a heap, A is set in chunks in use of threads' arenas and nowhere else",
    "prev-inuse": "P says whether the chunk before is in use",
    "prev-size": "behind a free chunk stands its size once more (prev_size)",
    "unlisted": "a free chunk is in a bin, a fastbin or a tcache",
    "unmerged": "no two free chunks lie side by side, none before top",
    "link": "fd and bk of neighbours in a bin lead to each other",
    "listed": "what a list leads to is a chunk of the heap that the program does not have",
    "twice": "a chunk is in one list, once",
    "bin-size": "a bin has chunks of its own sizes only",
    "bin-order": "a large bin is sorted, the largest chunk first",
    "nextsize": "the first chunks of each size of a large bin form a ring",
    "binmap": "a bin that holds chunks is marked in binmap",
    "tcache-next": "next of a cached chunk leads to a chunk, protected since 2.32",
    "tcache-count": "a tcache's counter says how many chunks its list holds",
    "tcache-key": "a cached chunk has the tcache's key behind next (since 2.29)",
    "fast-fd": "fd of a fast chunk leads to a chunk, protected since 2.32",
    "have-fastchunks": "have_fastchunks is set while a fastbin holds chunks",
    "top": "top ends where its heap ends, at the end of a page, and its P is set",
    "fencepost": "a closed piece of the heap ends in fenceposts",
    "system-mem": "system_mem is what the arena's heaps have, and at most max_system_mem",
    "heap-info": "the heaps of a thread's arena are linked by prev, and lead to their arena",
    "arena-ring": "the arenas form a ring through next",
    "mmapped": "n_mmaps and mmapped_mem are what the mapped chunks have",
    "missing": "the memory of a heap can be read",
}


class Word(NamedTuple):
    """A word of memory that is evidence."""

    address: int
    value: int
    what: str  # "size", "prev_size", "fd", …
    expected: str = ""  # what should stand there, in words or as a number


class Cause(NamedTuple):
    """The likeliest reason for what was found, and what speaks for it."""

    kind: str  # one of KINDS
    culprit: int | None  # the chunk whose owner did wrong
    text: str
    why: tuple[str, ...] = ()


OVERFLOW, OFF_BY_NULL, UNDERFLOW = "overflow", "off-by-one null", "underflow"
USE_AFTER_FREE, DOUBLE_FREE = "use after free", "double free"
NOT_A_CHUNK, FOREIGN, UNKNOWN_CAUSE = "not a chunk", "foreign pointer", "unknown"
KINDS = (
    *(OVERFLOW, OFF_BY_NULL, UNDERFLOW, USE_AFTER_FREE, DOUBLE_FREE),
    *(NOT_A_CHUNK, FOREIGN, UNKNOWN_CAUSE),
)


class Outcome(NamedTuple):
    """What glibc would do at a call: its text, or that it crashes."""

    call: str
    says: str
    abort: bool  # whether it is an abort with this text


@dataclass
class Finding:
    """A rule that does not hold."""

    rule: str  # of RULES
    address: int  # the chunk that is damaged, or the arena or variable
    message: str
    arena: int | None = None
    severity: str = ERROR
    words: list[Word] = field(default_factory=list)
    skipped: tuple[int, int] | None = None  # the stretch in which no chunk is known
    is_chunk: bool = True
    next: int | None = None  # the chunk behind, where it is known
    list_label: str = ""  # the list that it is about
    cause: Cause | None = None
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def abort(self) -> str | None:
        """The text that glibc would print at the likeliest call; None: at none that was tried."""
        return next((outcome.says for outcome in self.outcomes if outcome.abort), None)

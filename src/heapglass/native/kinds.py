"""What blocks are, told by their holders' words, their own, and their bytes: a column of kinds."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .buffer import Buffer
from .rows import Numbered

(
    NO_KIND,
    TABLE,  # the first word leads into a file: to a table of virtual functions, say
    TREE,  # a node of std::map or std::set: colour, parent, left, right
    LIST,  # a node of a list that leads both ways: next, prev
    VECTOR,  # held by begin, end, end of storage
    STRING,  # held by pointer, length, capacity
    DEQUE_MAP,
    DEQUE_PART,
    BUCKETS,  # of std::unordered_map or _set
    HASH_NODE,
    KEYED,  # by a word that is one of those that a recogniser gave
    TEXT,
    POINTERS,
    ZEROS,
) = range(14)
LEAST_TEXT, LEAST_CAPACITY, LEAST_MAP = 4, 15, 8
NODES_A_ROW = 8  # of hash tables that are looked at, for each row there is
MOST_GROUPS = 1 << 20


class Group(NamedTuple):
    """Blocks in use that are alike."""

    kind: int
    key: int  # the word that told it, 0 if none did
    size: int  # of the chunk
    state: int
    blocks: int
    row: int  # the first of them


class Requests(NamedTuple):
    """What tells whether a chunk can be the answer to a request."""

    alignment: int
    least: int  # MINSIZE
    page: int


class Kinds:
    """The kind and the key of each row of a graph; the first way that tells one counts."""

    def __init__(self, graph: Numbered, requests: Requests) -> None:
        self.graph, self.requests = graph, requests
        self.kind = bytearray(graph.count)
        self.key = array("Q", [0]) * graph.count
        self.steps = NODES_A_ROW * graph.count

    def held_by(self, roots: Iterable[Buffer]) -> None:
        """Tell what the words of roots hold as libstdc++'s containers hold their memory.

        A vector's buffer (begin, end, end of storage), a string's (pointer, length, capacity: there
        stands a zero), a deque's map and parts, a hash table's buckets and nodes. The request that
        these words mean must be one that malloc answers with a chunk of this size.
        """
        raise NotImplementedError

    def held_by_blocks(self) -> None:
        """Tell the same from the words of all blocks in use."""
        raise NotImplementedError

    def by_words(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Tell tables, tree and list nodes from the blocks' own first words.

        *ranges*: ascending, what a first word that is a table's address can lead into. A node needs
        one neighbour that leads back, and none that is a block and does not.
        """
        raise NotImplementedError

    def by_key(self, offset: int, keys: array[int]) -> None:
        """Tell the blocks whose word at *offset* is one of *keys*, which ascend."""
        raise NotImplementedError

    def by_contents(self) -> None:
        """Tell text, zeros and arrays of pointers among the rest."""
        raise NotImplementedError

    def tally(self) -> tuple[list[Group], int]:
        """Return the groups of blocks in use, and how many blocks there was no room for."""
        raise NotImplementedError

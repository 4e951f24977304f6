"""Dominators of a graph, in nearly linear time.

Lengauer and Tarjan, "A fast algorithm for finding dominators in a flowgraph",
1979; the simple form.
"""

from __future__ import annotations

from collections.abc import Sequence


def immediate_dominators(after: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Return the nodes in the order of a depth-first search from node 0, and who dominates each.

    *after*: where each node leads; all are reached from node 0. A node's immediate dominator is the
    last node that every way from 0 to it goes through; that of node 0 is 0.
    """
    order, parents = _search(after)
    place = [0] * len(after)
    for number, node in enumerate(order):
        place[node] = number
    before: list[list[int]] = [[] for _ in after]
    for node, ends in enumerate(after):
        for end in ends:
            before[place[end]].append(place[node])
    found = _Forest(before, [place[parents[node]] for node in order]).dominators()
    above = [0] * len(after)
    for number, node in enumerate(order):
        above[node] = order[found[number]]
    return order, above


def _search(after: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    order, parents, seen = [0], [0] * len(after), bytearray(len(after))
    seen[0] = 1
    stack = [(0, 0)]
    while stack:
        node, number = stack.pop()
        ends = after[node]
        while number < len(ends) and seen[ends[number]]:
            number += 1
        if number < len(ends):
            stack.append((node, number + 1))
            end = ends[number]
            seen[end], parents[end] = 1, node
            order.append(end)
            stack.append((end, 0))
    return order, parents


class _Forest:
    """The algorithm's forest. Nodes are numbers of the search; *before*: what leads to each."""

    def __init__(self, before: Sequence[Sequence[int]], parents: Sequence[int]) -> None:
        self._before = before
        self._parents = parents
        self._semi = list(range(len(parents)))
        self._label = list(range(len(parents)))
        self._ancestor: list[int | None] = [None] * len(parents)

    def dominators(self) -> list[int]:
        """Return each node's immediate dominator."""
        semi, parents = self._semi, self._parents
        above = [0] * len(parents)
        buckets: list[list[int]] = [[] for _ in parents]
        for node in range(len(parents) - 1, 0, -1):
            for one in self._before[node]:
                semi[node] = min(semi[node], semi[self._least(one)])
            buckets[semi[node]].append(node)
            self._ancestor[node] = parents[node]
            for one in buckets[parents[node]]:
                least = self._least(one)
                above[one] = least if semi[least] < semi[one] else parents[node]
            buckets[parents[node]].clear()
        for node in range(1, len(parents)):
            if above[node] != semi[node]:
                above[node] = above[above[node]]
        return above

    def _least(self, node: int) -> int:
        """Return the node with the least semidominator on the way up the forest, and shorten it."""
        ancestor, label, semi = self._ancestor, self._label, self._semi
        way = []
        while (up := ancestor[node]) is not None and ancestor[up] is not None:
            way.append(node)
            node = up
        for one in reversed(way):
            up = ancestor[one]
            assert up is not None
            if semi[label[up]] < semi[label[one]]:
                label[one] = label[up]
            ancestor[one] = ancestor[up]
        return label[way[0] if way else node]

"""What memory shows of the layout: each group of it (a struct, safe-linking, the tcache's key).

Where the release is known, its own tables are taken unless memory contradicts them: distributions
backport (RHEL 8's 2.28 has the tcache of 2.30 and the safe-linking of 2.32). Where it is not
known, each group narrows the releases that are possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..glibc.layout import Layout, layout_for
from ..glibc.releases import Version, name, releases

Score = Callable[[Layout], int]  # how much speaks for a layout; 0: nothing does
KEYS = ("tcache_key_struct", "tcache_key_random")


def _value(layout: Layout, group: str) -> object:
    """Return what a layout has of a group; equal for releases that do not differ in it."""
    if group == "tcache_key":
        return tuple(layout.has(key) for key in KEYS)
    if group in ("safe_linking", "max_fast_byte"):
        return layout.has(group)
    return layout.structs[group]


class Shape:
    """A layout while it is being found out. *version* None: the release is not known."""

    def __init__(self, start: Layout, version: Version | None) -> None:
        self.layout = start
        self.evidence: list[str] = []
        self.warnings: list[str] = []
        self.known = version is not None
        self.possible = [version] if version is not None else self._like(start, "malloc_state")
        if not self.known:
            self.evidence.append("malloc_state")
            self._narrow(self.possible)

    def choose(self, group: str, what: str, score: Score) -> None:
        """Take the layout that memory speaks for; *what* says it in words, for the user."""
        if self.known:
            self._correct(group, what, score)
            return
        options = list(self._options(group))
        if len(options) < 2:
            return
        scores = [score(option) for option in options]
        best = max(scores)
        if not best:
            return
        fitting = [v for o, s in zip(options, scores) if s == best for v in self._like(o, group)]
        narrowed = [version for version in self.possible if version in fitting]
        if narrowed and len(narrowed) < len(self.possible):
            self.evidence.append(what)
            self._narrow(narrowed)

    def _correct(self, group: str, what: str, score: Score) -> None:
        if score(self.layout):
            return
        own = self.layout
        scored = [(score(o), -n, o) for n, o in enumerate(self._options(group))]
        best, _, layout = max(scored, default=(0, 0, own), key=lambda row: row[:2])
        if not best:
            return
        self.layout = layout
        since = dict(layout.as_of)[group]
        self.warnings.append(
            f"glibc {own.release} with the {what} of {name(since)}: memory shows it, so a later "
            "change was taken into this build"
        )

    def variants(self, group: str) -> list[Layout]:
        """Return what a group may look like, the likeliest first; one if the release is known."""
        return [self.layout] if self.known else list(self._options(group))

    def _options(self, group: str) -> Iterator[Layout]:
        """Yield layouts that differ in a group, this one's own first."""
        seen = [_value(self.layout, group)]
        if not self.known:
            yield self.layout
        for version in self.possible if not self.known else releases():
            other = self._following(group, version)
            if _value(other, group) not in seen:
                seen.append(_value(other, group))
                yield other

    def _following(self, group: str, version: Version) -> Layout:
        one = self.layout
        groups = ("tcache_entry", group) if group == "tcache_key" else (group,)
        as_of = tuple(sorted({**dict(one.as_of), **dict.fromkeys(groups, version)}.items()))
        return layout_for(one.version, one.word, one.order, one.alignment, one.abi, as_of)

    def _like(self, layout: Layout, group: str) -> list[Version]:
        """Return the releases whose own tables have the same of a group."""
        found = []
        for version in releases():
            other = layout_for(version, layout.word, layout.order, abi=layout.abi)
            same = _value(other, group) == _value(layout, group)
            if same and other.alignment == layout.alignment:
                found.append(version)
        return found

    def _narrow(self, possible: list[Version]) -> None:
        """Keep these releases; read with the newest of them."""
        one, self.possible = self.layout, possible
        self.layout = layout_for(possible[-1], one.word, one.order, one.alignment, one.abi)

    @property
    def said(self) -> str:
        """The releases that are possible, in words: "2.35 to 2.41"."""
        first, last = name(self.possible[0]), name(self.possible[-1])
        return first if first == last else f"{first} to {last}"

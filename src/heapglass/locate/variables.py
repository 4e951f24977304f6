"""`narenas`, `global_max_fast`, `perturb_byte`, `tcache_key`: by symbol, else by the code.

They have no shape of their own. What tells them is how malloc's code uses them; see `code`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..glibc.layout import Layout
from ..heap.target import Place, Target
from ..source import Source
from .code import find_by_code
from .libraries import Library
from .shape import Shape

VARIABLES = (
    "global_max_fast",
    "narenas",
    "perturb_byte",
    "tcache_key",
    "__tcache_dummy",
    "mtag_enabled",
)


def settle_max_fast(source: Source, target: Target, shape: Shape, library: Library | None) -> None:
    """Let global_max_fast say its width: a byte since 2.37. For a release that nothing names."""
    known = [s for s in source.symbols("global_max_fast") if s.value and s.size]
    own = [s for s in known if library and library.holds(s.value)] or known

    def score(layout: Layout) -> int:
        width = 1 if layout.has("max_fast_byte") else layout.word
        if own:
            return int(own[0].size == width)
        if library is None or target.mp is None:
            return 0
        return int("global_max_fast" in find_by_code(replace(target, layout=layout), library, {}))

    if shape.layout.has("fastbins"):
        shape.choose("max_fast_byte", "width of global_max_fast", score)


class Names(Mapping[str, Place]):
    """The variables that were found, by name. The code is read when somebody first looks."""

    def __init__(self, source: Source, target: Target, library: Library | None) -> None:
        self._source = source
        self._target = target
        self._library = library
        self._read = False
        self.found: dict[str, Place] = dict(self._symbols())

    def _symbols(self) -> Iterator[tuple[str, Place]]:
        """Yield the variables that have symbols; nothing but the symbol speaks for them."""
        for name in VARIABLES:
            symbols = [s for s in self._source.symbols(name) if not s.tls and s.value]
            if self._library is not None:  # a program may have a function that is called so
                symbols = [s for s in symbols if self._library.has(s)]
            for symbol in symbols[:1]:
                yield name, Place(symbol.value, symbol.how, symbol.module)

    def _all(self) -> dict[str, Place]:
        if not self._read:
            self._read = True
            if self._library is not None and self._target.mp is not None:
                places = find_by_code(self._target, self._library, self.found)
                for name, place in places.items():
                    self.found.setdefault(name, place)
        return {name: self.found[name] for name in VARIABLES if name in self.found}

    def __getitem__(self, name: str) -> Place:
        return self.found[name] if name in self.found else self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

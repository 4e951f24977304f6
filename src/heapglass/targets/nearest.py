"""Which symbol an address lies in: a sorted index of a table, made when first asked for."""

from __future__ import annotations

from array import array
from bisect import bisect_right

from .symbols import SymbolTable

MOST_INDEXED = 1 << 22  # symbols of a table
MOST_NESTED = 8  # symbols that are tried: an inner one may end before the address
NEAR_UNSIZED = 1 << 16  # bytes behind a symbol without a size that still go by its name


class Nearest:
    """The symbols of a table in the order of their addresses, less those of threads."""

    def __init__(self, table: SymbolTable) -> None:
        self._table = table
        found = sorted(table.addresses(MOST_INDEXED))
        self._values = array("Q", [value for value, _ in found])
        self._rows = [row for _, row in found]

    def find(self, value: int) -> tuple[str, int, int] | None:
        """Return name, value and size of the symbol that an address of the file lies in.

        One without a size serves where nothing else does, if it is near.
        """
        at = bisect_right(self._values, value)
        unsized: tuple[str, int, int] | None = None
        for row in reversed(range(max(at - MOST_NESTED, 0), at)):
            entry = self._table.entry(self._rows[row])
            if entry is None:
                continue
            offset = value - entry.value
            if offset < entry.size:
                return self._table.name_at(self._rows[row]), entry.value, entry.size
            if not entry.size and offset < NEAR_UNSIZED and unsized is None:
                unsized = self._table.name_at(self._rows[row]), entry.value, 0
        return unsized

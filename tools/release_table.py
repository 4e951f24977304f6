"""Put the tables, which runs of tests leave in .cache, into README.md and docs.

They go between two lines ``<!-- release table -->``, that of other machines between two lines
``<!-- machines table -->``. Run after `make live gdbs abis`; what has no table stays as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARKER = "<!-- release table -->\n"
MACHINES = "<!-- machines table -->\n"
TABLES = (
    ("README.md", MARKER, "release-table.md"),
    ("docs/targets.md", MARKER, "symbols-table.md"),
    ("docs/targets.md", MACHINES, "machines-table.md"),
    ("docs/gdb.md", MARKER, "gdbs-table.md"),
)


def with_table(text: str, table: str, marker: str = MARKER) -> str:
    """*text* with *table* in place of what stood between the two markers.

    :raises ValueError: if there are not two of them.
    """
    parts = text.split(marker)
    if len(parts) != 3:
        raise ValueError(f"expected two lines {marker.strip()!r}, found {len(parts) - 1}")
    return f"{parts[0]}{marker}\n{table.strip()}\n\n{marker}{parts[2]}"


def main() -> int:
    """Rewrite the pages; exit status 2 if a table or the markers are missing."""
    status = 0
    for name, marker, table in TABLES:
        page = ROOT / name
        try:
            found = (ROOT / ".cache" / table).read_text()
            page.write_text(with_table(page.read_text(), found, marker))
        except FileNotFoundError as error:
            print(f"{error.filename} is missing: run `make live gdbs abis` first", file=sys.stderr)
            status = 2
        except ValueError as error:
            print(f"{page}: {error}", file=sys.stderr)
            status = 2
    return status


if __name__ == "__main__":
    sys.exit(main())

"""Put the tables, which runs of tests/live and tests/gdbs leave in .cache, into README.md and docs.

They go between two lines ``<!-- release table -->``. Run after `make live gdbs`.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLES = {
    ROOT / "README.md": ROOT / ".cache" / "release-table.md",
    ROOT / "docs" / "targets.md": ROOT / ".cache" / "symbols-table.md",
    ROOT / "docs" / "gdb.md": ROOT / ".cache" / "gdbs-table.md",
}
MARKER = "<!-- release table -->\n"


def with_table(text: str, table: str) -> str:
    """*text* with *table* in place of what stood between the two markers.

    :raises ValueError: if there are not two of them.
    """
    parts = text.split(MARKER)
    if len(parts) != 3:
        raise ValueError(f"expected two lines {MARKER.strip()!r}, found {len(parts) - 1}")
    return f"{parts[0]}{MARKER}\n{table.strip()}\n\n{MARKER}{parts[2]}"


def main() -> int:
    """Rewrite the pages; exit status 2 if a table or the markers are missing."""
    for page, table in TABLES.items():
        try:
            page.write_text(with_table(page.read_text(), table.read_text()))
        except FileNotFoundError as error:
            print(f"{error.filename} is missing: run `make live gdbs` first", file=sys.stderr)
            return 2
        except ValueError as error:
            print(f"{page}: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

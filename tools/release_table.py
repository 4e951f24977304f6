"""Put the release table, which a run of tests/live leaves in .cache, into README.md.

It goes between two lines ``<!-- release table -->``. Run after `pytest tests/live`.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / ".cache" / "release-table.md"
README = ROOT / "README.md"
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
    """Rewrite README.md; exit status 2 if the table or the markers are missing."""
    try:
        README.write_text(with_table(README.read_text(), TABLE.read_text()))
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: run `pytest tests/live` first", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"{README}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

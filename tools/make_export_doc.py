"""Write the examples of docs/export.md: each query is run on the export of a fixture core.

    python tools/make_export_doc.py

A query is a block marked `sql`; the block behind it is what DuckDB prints. Only those are replaced.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "export.md"
CORE = ROOT / "fixtures" / "cores" / "2.36-amd64-threads.core.xz"
EXAMPLE = re.compile(r"(```sql\n(.*?)```\n\n)```\n.*?```\n", re.S)


def written(text: str) -> str:
    """Return the page with the answers of its queries.

    :raises SystemExit: if the export fails.
    """
    sys.path.insert(0, str(ROOT / "src"))
    import duckdb

    from heapglass import cli

    with tempfile.TemporaryDirectory() as folder:
        where = ["--debug-dir", str(ROOT / "fixtures" / "debug"), "--sysroot", "/none"]
        words = ["export", str(CORE), *where, "--glibc", "2.36", "-o", folder, "--json"]
        if cli.main(words):
            raise SystemExit("the export failed")
        connection = duckdb.connect()
        connection.execute(f"SET file_search_path = '{folder}'")

        def answered(found: re.Match[str]) -> str:
            said = connection.sql(found[2])
            rows = [said.columns, *([str(cell) for cell in row] for row in said.fetchall())]
            widths = [max(len(row[n]) for row in rows) for n in range(len(said.columns))]
            lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths)) for row in rows]
            return f"{found[1]}```\n" + "".join(f"{line.rstrip()}\n" for line in lines) + "```\n"

        return EXAMPLE.sub(answered, text)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))

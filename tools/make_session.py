"""Puts a real gdb session, run now, into README.md between the two lines `<!-- session -->`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
MARKER = "<!-- session -->\n"
COMMANDS = ("heap explain", "heap chunks")


def session() -> str:
    """Return what a user sees: the abort, then heapglass's answers."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "overflow"
        source = ROOT / "fixtures" / "programs" / "overflow.c"
        subprocess.run(["gcc", "-w", "-g", "-O0", "-o", program, source], check=True)
        script = Path(folder) / "script"
        words = [f"echo \\n(gdb) {command}\\n\n{command}\n" for command in COMMANDS]
        script.write_text(
            "set debuginfod enabled off\nset startup-with-shell off\nset width 0\n"
            f"source {ROOT / 'gdbext' / 'heapglass.py'}\nrun\n" + "".join(words)
        )
        ran = subprocess.run(
            ["gdb", "-nx", "-batch", "-x", str(script), str(program)],
            capture_output=True,
            text=True,
            check=True,
        )
    abort = next(line for line in ran.stderr.splitlines() if line.startswith("malloc"))
    _, _, answers = ran.stdout.partition("\n(gdb) ")
    return f"(gdb) run\n{abort}\nProgram received signal SIGABRT, Aborted.\n\n(gdb) {answers}"


def main() -> int:
    """Rewrite README.md; exit status 2 without the markers."""
    parts = README.read_text().split(MARKER)
    if len(parts) != 3:
        print(f"{README}: expected two lines {MARKER.strip()!r}", file=sys.stderr)
        return 2
    said = session().rstrip()
    README.write_text(f"{parts[0]}{MARKER}\n```\n{said}\n```\n\n{MARKER}{parts[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Who may import whom: the table of the design, read from the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "heapglass"
GDBEXT = ROOT / "gdbext"

DESIGN = ROOT / "docs" / "design.md"
MAY = {
    "errors": set(),
    "table": set(),
    "memory": {"errors"},
    "room": {"errors"},
    "progress": set(),
    "source": {"memory"},
    "glibc": {"errors"},
    "native": {"errors", "memory"},
    "targets": {"errors", "memory", "progress", "room", "source", "glibc"},
    "locate": {"errors", "memory", "source", "glibc", "heap"},
    "heap": {"errors", "memory", "progress", "source", "glibc", "native"},
    "model": {"errors", "memory", "glibc"},
    "recorder": {"errors", "glibc", "model"},
    "targets/trace.py": {"errors", "source", "model"},
    "views/replay.py": {"heap", "table", "model", "views"},
    "analysis/check/predict.py": {"errors", "heap", "model", "analysis"},
    "analysis/changes.py": {"errors", "glibc", "heap", "model"},
    "analysis/verify.py": {"errors", "glibc", "heap", "model", "analysis"},
    "analysis/whatif.py": {"errors", "glibc", "heap", "model", "analysis"},
    "analysis": {"errors", "memory", "source", "glibc", "native", "heap"},
    "views/origins.py": {"heap", "table", "model"},
    "views/record.py": {"errors", "recorder", "table"},
    "export": {"errors", "glibc", "native", "heap", "analysis"},
    "views/map.py": {"errors", "heap", "analysis", "table", "render", "views"},
    "views/export.py": {"errors", "heap", "table", "export", "views"},
    "views": {"errors", "memory", "glibc", "native", "heap", "analysis", "table"},
    "render": {"errors", "table"},
    "commands": {"views", "table"},
    "arguments": {"commands", "errors"},
    "cli": {
        *("arguments", "commands", "render", "targets", "locate", "table", "errors"),
        "progress",
    },
    "gdbext": {
        *("arguments", "commands", "render", "targets", "locate", "table", "errors"),
        *("memory", "progress", "room", "source", "glibc", "heap", "model", "recorder"),
    },
}
ENTRANCES = {"__init__": set(), "__main__": {"cli"}}  # the version, and `python -m heapglass`
SOURCES = [*sorted(PACKAGE.rglob("*.py")), *sorted(GDBEXT.rglob("*.py"))]
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]


def room(path: Path) -> str:
    """The room that a file is in, as the table calls it; some files have a line of their own."""
    if GDBEXT in path.parents:
        return "gdbext"
    place = path.relative_to(PACKAGE)
    return str(place) if str(place) in MAY else _without_suffix(place.parts[0])


def _without_suffix(name: str) -> str:
    return name[: -len(".py")] if name.endswith(".py") else name


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside of functions, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield str(node.module)
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
                continue
            top = GDBEXT if GDBEXT in path.parents else ROOT / "src"
            package = path.parent.relative_to(top).parts
            stem = package[: len(package) - node.level + 1]
            tail = (node.module,) if node.module else ()
            yield from (".".join((*stem, *tail, alias.name)) for alias in node.names)


def rooms(path: Path) -> set[str]:
    """The rooms of heapglass that a file imports from."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "heapglass" and len(parts) > 1:
            inside = parts[1]
            is_room = (PACKAGE / inside).is_dir() or (PACKAGE / f"{inside}.py").exists()
            found.add(inside if is_room else "__init__")
    return found


def calls(path: Path) -> set[str]:
    """The names of all functions that a file calls, as written."""
    nodes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {ast.unparse(node.func) for node in nodes}


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_a_room_imports_only_what_the_design_allows(path: Path):
    own = room(path)

    assert rooms(path) - {own, "__init__"} <= {**MAY, **ENTRANCES}[own]


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_gdb_is_imported_in_its_room_only(path: Path):
    has = {name.split(".")[0] for name in imported(path)}

    assert room(path) == "gdbext" or not has & {"gdb", "heapglass_gdb"}


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_output_is_written_at_the_doors_only(path: Path):
    made = calls(path)

    assert "print" not in made or room(path) == "cli"
    assert "sys.stdout.write" not in made or room(path) == "cli"
    assert "gdb.write" not in made or room(path) == "gdbext"


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_annotations_are_not_evaluated(path: Path):
    text = path.read_text()
    bare = path.name in ("__init__.py", "__main__.py") or path == GDBEXT / "heapglass.py"

    assert bare or "from __future__ import annotations" in text


def test_the_table_names_every_room_that_there_is():
    assert {room(path) for path in SOURCES} == {*MAY, *ENTRANCES}


def test_the_design_has_the_same_table():
    said: dict[str, set[str]] = {}
    for line in DESIGN.read_text().split("## Who may import what")[1].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 2 or not cells[0] or cells[0] == "room" or "---" in cells[0]:
            continue
        plain, _, more = cells[1].partition("(gdbext also")
        allowed = {name.strip() for name in plain.split(",")} - {"nothing", ""}
        for own in cells[0].split(", "):
            extra = set(re.findall(r"\w+", more)) - {"and", "gdb"} if own == "gdbext" else set()
            said[own] = allowed | extra

    assert said == MAY


def test_the_rules_see_relative_and_nested_imports(tmp_path: Path):
    heap = PACKAGE / "heap" / "heap.py"
    views = PACKAGE / "views" / "chunks.py"

    assert "heapglass.heap.columns" in {name.rpartition(".")[0] for name in imported(heap)}
    assert {"heap", "table", "errors"} <= rooms(views)
    nested = tmp_path / "nested.py"
    nested.write_text("def f():\n    import gdb\n    gdb.write('')\n    print()\n")
    assert set(imported(nested)) == {"gdb"}
    assert calls(nested) == {"gdb.write", "print"}


def test_everything_is_imported_with_the_standard_library_and_pyelftools_alone():
    modules = sorted(
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if path.stem not in ("__main__", "__init__")
    )
    script = (
        "import importlib, sys\n"
        "for name in ('zstandard', 'lz4', 'lz4.frame', 'gdb'): sys.modules[name] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "roots = {n.partition('.')[0] for n, m in sys.modules.items() if m is not None}\n"
        "places = {n: getattr(sys.modules[n], '__file__', '') or '' for n in roots}\n"
        "print(sorted(n for n, f in places.items() if '-packages' in f))\n"
    )
    words = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, 'src')\n{script}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stderr == ""
    # What -I cannot keep out: hooks of a virtual environment and of an editable installation.
    hooks = {"_virtualenv", "_distutils_hack"}
    assert {n for n in ast.literal_eval(done.stdout) if "editable" not in n} - hooks == {"elftools"}

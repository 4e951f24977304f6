"""What a user sources in gdb: finds the library, registers the commands, nothing else."""

import sys
from pathlib import Path

import gdb

_HERE = Path(__file__).resolve().parent
_OLDEST = (3, 9)


def _add_path(folder: Path) -> None:
    """Put a folder in front of the module path."""
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))


def _find_elftools() -> bool:
    """Whether pyelftools can be imported, maybe from the project's own virtual environment."""
    try:
        import elftools  # noqa: F401
    except ImportError:
        found = sorted(_HERE.parent.glob(".venv/lib/python3*/site-packages/elftools"))
        if not found:
            return False
        sys.path.append(str(found[-1].parent))  # pyelftools is plain Python: any version serves
    return True


def _missing() -> str:
    """Say what is missing, empty: nothing."""
    if sys.version_info < _OLDEST:
        return f"this gdb has Python {sys.version.split()[0]}, 3.9 or newer is needed"
    if not _find_elftools():
        return "pyelftools is missing: install the package python3-pyelftools, or run `make demo`"
    return ""


def _register() -> None:
    """Import the library and define the commands."""
    _add_path(_HERE)
    _add_path(_HERE.parent / "src")  # in front: this file has the package's name
    for name in [n for n in sys.modules if n.partition(".")[0] in ("heapglass", "heapglass_gdb")]:
        del sys.modules[name]  # sourced again: the files may have changed
    import heapglass_gdb

    heapglass_gdb.register()


_problem = _missing()
if _problem:
    gdb.write(f"heapglass is not loaded: {_problem}\n", gdb.STDERR)
else:
    _register()

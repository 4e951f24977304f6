"""What a user sources in gdb: finds the library, registers the commands, nothing else."""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent


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


if _find_elftools():
    _add_path(_HERE)
    _add_path(_HERE.parent / "src")  # in front: this file has the package's name
    for _name in [n for n in sys.modules if n.partition(".")[0] in ("heapglass", "heapglass_gdb")]:
        del sys.modules[_name]  # sourced again: the files may have changed
    import heapglass_gdb

    heapglass_gdb.register()
else:
    pass

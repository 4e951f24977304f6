"""Read struct offsets of real C libraries from their debug files into fixtures/layouts/*.json.

The runtimes are those of tools/fetch_runtimes.py --layouts. Each file says what one build of glibc
looks like: structs with every field, malloc.c's variables, word size and byte order. Tests hold
the tables of heapglass against them. Needs pyelftools.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools")]

from dwarf_layouts import Description, Member, NoLayout, describe  # noqa: E402
from runtimes import CACHE, BadRuntime, Runtime, runtimes  # noqa: E402

LAYOUTS = ROOT / "fixtures" / "layouts"


def document(runtime: Runtime, found: Description) -> dict[str, Any]:
    """Return what a layout's file holds. Offsets and sizes are bytes."""
    return {
        "glibc": runtime.glibc,
        "package": runtime.package,
        "arch": runtime.arch,
        "machine": found.machine,
        "build_id": found.build_id,
        "word": found.word,
        "order": found.order,
        "structs": {
            name: {"size": shape.size, "fields": {m.name: _field(m) for m in shape.members}}
            for name, shape in sorted(found.structs.items())
        },
        "symbols": {name: symbol._asdict() for name, symbol in sorted(found.symbols.items())},
    }


def _field(member: Member) -> dict[str, Any]:
    field: dict[str, Any] = {"offset": member.offset, "size": member.size, "count": member.length}
    if member.bits is not None:
        field["bits"] = list(member.bits)
    return field


def text(value: Any, depth: int = 0) -> str:
    """Write JSON with a line for each field and each symbol, in the order given."""
    if not isinstance(value, Mapping) or not any(isinstance(v, Mapping) for v in value.values()):
        return json.dumps(value)
    inner = " " * (depth + 1)
    rows = [f"{inner}{json.dumps(key)}: {text(item, depth + 1)}" for key, item in value.items()]
    return "{\n" + ",\n".join(rows) + "\n" + " " * depth + "}"


def read(runtime: Runtime, folder: Path = LAYOUTS) -> str:
    """Write one runtime's file and return what to say of it.

    :raises NoLayout: if its debug file does not have it.
    """
    found = describe(
        runtime.libc, runtime.folder / runtime.loader, runtime.folder / runtime.debug_dir
    )
    path = folder / f"{runtime.name}.json"
    unfinished = path.with_suffix(".new")
    unfinished.write_text(text(document(runtime, found)) + "\n")
    unfinished.replace(path)
    fields = sum(len(shape.members) for shape in found.structs.values())
    return f"{runtime.name:<14} {runtime.package:<20} {fields} fields, {len(found.symbols)} symbols"


def _try(runtime: Runtime, folder: Path) -> tuple[str, bool]:
    try:
        return read(runtime, folder), True
    except (NoLayout, OSError) as error:
        return f"{runtime.name}: {error}", False


def main(argv: Sequence[str] | None = None) -> int:
    """Read every runtime of the cache; exit status 1 if one could not be read."""
    head, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=head, epilog=rest)
    parser.add_argument("names", nargs="*", metavar="NAME", help="as 2.36-amd64; default: all")
    parser.add_argument("--cache", type=Path, default=CACHE, help="default: .cache/runtimes")
    parser.add_argument("--to", type=Path, default=LAYOUTS, help="default: fixtures/layouts")
    arguments = parser.parse_args(argv)
    try:
        there = {runtime.name: runtime for runtime in runtimes(arguments.cache)}
    except BadRuntime as error:
        print(error, file=sys.stderr)
        return 1
    names = arguments.names or list(there)
    missing = sorted(set(names) - there.keys())
    if missing or not names:
        which = ", ".join(missing) or "no runtime"
        print(
            f"{arguments.cache} has {'not ' if missing else ''}{which}: "
            "run tools/fetch_runtimes.py --layouts first",
            file=sys.stderr,
        )
        return 1
    arguments.to.mkdir(parents=True, exist_ok=True)
    return 1 if _read_all([there[name] for name in names], arguments.to) else 0


def _read_all(chosen: Sequence[Runtime], folder: Path) -> int:
    """Read them side by side; return how many could not be read."""
    failed = 0
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for said, good in pool.map(_try, chosen, [folder] * len(chosen)):
            failed += not good
            print(said, file=sys.stdout if good else sys.stderr, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())

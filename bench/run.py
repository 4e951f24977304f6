"""Measures heapglass on heaps whose leaks are known, beside a plain C loop over the same bytes.

    python bench/run.py [--millions 1 10] [--threads 1 8] [--repeat 3] [--gef GEF.PY]

For each size: a program is filled, its core is taken, and the shell door is asked with the compiled
loops and with the Python ones. For a million chunks gdb is asked too, live and on the core, and GEF
(--gef) beside it. CPU seconds of the whole process (user and system, best of --repeat), its largest
resident set, and the ratio to the C loop of the same run. Peers that are found (chap,
core_analyzer) run on the same cores, up to ten million chunks; what takes them longer than
--patience is given up. Prints Markdown: docs/performance.md is such a run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
IN_SHELL = (
    ("totals: `stats`", ["stats"]),
    ("`chunks --limit 20`", ["chunks", "--limit", "20"]),
    (
        "`chunks --where … --top 10`",
        ["chunks", "--where", "size > 0x100 and state == 'used'", "--top", "10"],
    ),
    ("`leaks`", ["leaks"]),
    ("`refs ADDR`", ["refs", "ADDR"]),
    ("`find 0xdeadbeef`", ["find", "0xdeadbeef"]),
    ("`types`", ["types"]),
)
WITH_PYTHON = ("stats", "leaks")  # asked of the Python loops also where there are many chunks
MOST_FOR_PYTHON, MOST_AT_ALL = 1, 10  # millions of chunks for all commands, and for those two
IN_GDB = ("", "chunks --limit 20", "bins", "chunks --all", "leaks")
IN_GEF = ("", "heap chunks", "heap bins")
IN_PEERS = {"chap": "count leaked\n", "core_analyzer": "heap\nquit\n"}


class Cost(NamedTuple):
    """What a process took."""

    seconds: float  # of CPU time, user and system
    mebibytes: int  # largest resident set
    output: str
    status: int = 0  # negative: the signal that ended it


def cost(words: Sequence[str], out: Path | None = None, repeat: int = 1, **more: str) -> Cost:
    """Run a process to its end, so many times; what it prints is kept, or goes to a file.

    :raises SystemExit: if it fails.
    """
    found = [once(words, out, more) for _ in range(repeat)]
    for one in found:
        if one.status not in (0, 1):
            sys.exit(f"{' '.join(words)} ended with {one.status}: {one.output[-400:]}")
    return min(found)


def once(
    words: Sequence[str],
    out: Path | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
    typed: str = "",
    patience: int | None = None,
) -> Cost:
    """Run a process once, with so much CPU time at the most; *typed* is its standard input."""
    environment = {**os.environ, **more}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed: compiled by an earlier run
    with ExitStack() as files:
        kept = files.enter_context(tempfile.TemporaryFile("w+"))
        given = files.enter_context(tempfile.TemporaryFile("w+"))
        output = kept if out is None else files.enter_context(out.open("w"))
        given.write(typed)
        given.seek(0)
        process = subprocess.Popen(
            words, stdin=given, stdout=output, stderr=subprocess.DEVNULL, env=environment
        )
        if patience is not None:
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (patience, patience))
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        kept.seek(0)
        said = kept.read()
    seconds = used.ru_utime + used.ru_stime
    return Cost(seconds, used.ru_maxrss >> 10, said, process.returncode)


def build(folder: Path) -> None:
    """Compile the programs."""
    planted = [str(BENCH / "planted.cc"), "-pthread"]
    subprocess.run(["g++", "-O2", "-g", "-o", folder / "planted", *planted], check=True)
    yardstick = [folder / "yardstick", BENCH / "yardstick.c"]
    subprocess.run(["gcc", "-O2", "-o", *yardstick], check=True)


def fill(folder: Path, millions: int, threads: int, gdb: str) -> tuple[Path, dict[str, Any]]:
    """Run the program, take its core; return it and what was planted."""
    name = f"{millions}m-{threads}t"
    core, report = folder / f"{name}.core", folder / f"{name}.json"
    if not core.exists():
        arguments = f"run {millions} {threads} {report}"
        words = [
            gdb,
            "-nx",
            "-batch",
            "-ex",
            "set debuginfod enabled off",
            "-ex",
            "break heap_ready",
        ]
        words += ["-ex", arguments, "-ex", f"generate-core-file {core}", str(folder / "planted")]
        subprocess.run(words, check=True, capture_output=True)
    return core, json.loads(report.read_text())


def heapglass(core: Path, words: Sequence[str], native: bool, *more: str, repeat: int = 1) -> Cost:
    """Ask the shell door."""
    command = [sys.executable, "-m", "heapglass", words[0], str(core), *words[1:], *more]
    which = {"PYTHONPATH": str(ROOT / "src"), "HEAPGLASS_NATIVE": str(int(native))}
    return cost(command, None, repeat, **which)


def main_heap(core: Path) -> tuple[str, str, str]:
    """Return the file offsets of the main heap's chunks in a core, and a block in its middle."""
    said = json.loads(heapglass(core, ["heaps"], True, "--json").output)["heaps"]
    start, end = (int(said[0][key], 16) for key in ("start", "end"))
    with core.open("rb") as file:
        sys.path.insert(0, str(ROOT / "src"))
        from elftools.elf.elffile import ELFFile

        for segment in ELFFile(file).iter_segments("PT_LOAD"):
            low = segment["p_vaddr"]
            if low <= start < low + segment["p_filesz"]:
                shift = segment["p_offset"] - low
                return hex(start + shift), hex(end + shift), hex((start + end) // 2)
    sys.exit(f"{core}: its main heap {start:#x} is in no segment")


def in_shell(folder: Path, core: Path, truth: dict[str, Any], repeat: int) -> dict[str, float]:
    """Print what the shell door takes; return it by command."""
    start, end, middle = main_heap(core)
    yardstick = cost([str(folder / "yardstick"), str(core), start, end], repeat=repeat)
    loop = json.loads(yardstick.output)
    plain = loop["walk_s"] + loop["scan_s"]
    size, millions = core.stat().st_size >> 20, truth["chunks"] // 1_000_000
    print(f"\n### {core.stem}: {truth['chunks']} chunks, a core of {size} MiB\n")
    print(f"The C loop: {loop['walk_s']} s for the walk, {loop['scan_s']} s for all words, of the")
    print(f"main heap: {loop['chunks']} chunks.\n")
    row("command", "compiled loops", "× C loop", "MiB over the core", "Python loops")
    row(*["---"] * 5)
    took = {}
    for title, words in IN_SHELL:
        asked = [middle if word == "ADDR" else word for word in words]
        fast = heapglass(core, asked, True, repeat=repeat)
        few = millions <= MOST_FOR_PYTHON
        slow = ""
        if few or (words[0] in WITH_PYTHON and millions <= MOST_AT_ALL):
            slow = f"{heapglass(core, asked, False).seconds:.2f} s"
        over = max(fast.mebibytes - size, 0)
        ratio = f"{fast.seconds / plain:.1f}" if truth["chunks"] < 2 * loop["chunks"] else ""
        row(title, f"{fast.seconds:.2f} s", ratio, over, slow)
        took[title] = fast.seconds
    found = json.loads(heapglass(core, ["leaks"], True, "--json", "--limit", "1").output)["totals"]
    right = found["leaked"] == truth["leaked"]
    said = "all that were planted, and no other" if right else f"planted: {truth['leaked']}"
    print(f"\nLeaks: {found['leaked']} ({said}).")
    return took


def growth(took: dict[int, dict[str, float]]) -> None:
    """Print how the cost grows with the chunks."""
    if len(took) < 2:
        return
    sizes = sorted(took)
    print("\n### growth, one thread: times as many CPU seconds\n")
    pairs = list(zip(sizes, sizes[1:]))
    row("command", *[f"{small} → {large} million" for small, large in pairs])
    row(*["---"] * (1 + len(pairs)))
    for title in took[sizes[0]]:
        row(title, *[f"{took[large][title] / took[small][title]:.1f}" for small, large in pairs])


def in_gdb(folder: Path, core: Path, options: argparse.Namespace) -> None:
    """Print what gdb takes over its own start, live and on the core; and what GEF takes."""
    gdb, repeat = options.gdb, options.repeat
    setup = [gdb, "-nx", "-batch", "-ex", "set pagination off", "-ex", "set debuginfod enabled off"]
    live = ["-ex", "break heap_ready", "-ex", f"run 1 1 {folder / 'again.json'}"]
    dead = ["-ex", f"core-file {core}"]
    program, out = str(folder / "planted"), folder / "out"

    def took(where: Sequence[str], more: Sequence[str], times: int = repeat) -> float:
        return cost([*setup, *where, *more, program], out, times).seconds

    own = took(live, []), took(dead, [])
    print("\n### a million chunks in gdb: CPU seconds over gdb's own, which are", end=" ")
    print(f"{own[0]:.2f} live and {own[1]:.2f} on the core\n")
    row("command", "live", "core")
    row(*["---"] * 3)
    source = ["-ex", f"source {ROOT / 'gdbext' / 'heapglass.py'}"]
    for line in IN_GDB:
        ask = [*source, *(["-ex", f"heapglass {line}"] if line else [])]
        cells = [took(where, ask) - base for where, base in zip((live, dead), own)]
        name = f"`heap {line}`" + (" to a file" if line == "chunks --all" else "")
        row(name if line else "(start of the extension)", *[f"{cell:.2f} s" for cell in cells])
    if options.gef:
        source = ["-ex", f"source {options.gef}"]
        for line in IN_GEF:
            ask = [*source, *(["-ex", line] if line else [])]
            words = [*setup, *live, *ask, program]
            found = once(words, out, patience=options.patience)
            name = f"GEF: {f'`{line}`' if line else '(its start)'}"
            row(name, taken(found._replace(seconds=found.seconds - own[0])), "")


def taken(found: Cost) -> str:
    """Return what a peer took, or that it was given up."""
    given_up = "" if found.status in (0, 1) else "not done after "
    return f"{given_up}{found.seconds:.2f} s, {found.mebibytes} MiB"


def peers(folder: Path, core: Path, patience: int) -> None:
    """Print what peers take that are on this machine."""
    for name, asked in IN_PEERS.items():
        if not shutil.which(name):
            print(f"\n{name} is not on this machine.")
            continue
        found = once([name, str(core)], typed=asked, patience=patience)
        said = " ".join(found.output.split()[-8:])
        print(f"\n{name}, `{asked.split()[0]} …`: {taken(found)}: {said}")
        for left in folder.glob("*.core.*"):
            left.unlink()  # what it wrote beside the core


def row(*cells: object) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def main() -> None:
    """Measure everything that was asked for."""
    head, _, rest = (__doc__ or "").partition("\n\n")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=head, epilog=rest, formatter_class=form)
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeat", type=int, default=3, help="runs, of which the best counts")
    parser.add_argument("--gdb", default="gdb")
    parser.add_argument("--gef", type=Path, help="GEF's gef.py, to be measured too")
    parser.add_argument("--patience", type=int, default=900, help="CPU seconds for a peer")
    parser.add_argument("--keep", type=Path, help="a folder for the cores, taken again if there")
    options = parser.parse_args()
    processors = os.cpu_count()
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {processors} processors,", end=" ")
    print(f"Python {platform.python_version()}, {platform.libc_ver()[0]} {platform.libc_ver()[1]}")
    took: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        build(folder)
        for millions in options.millions:
            for threads in options.threads:
                core, truth = fill(folder, millions, threads, options.gdb)
                heapglass(core, ["info"], True)  # its modules are compiled, then
                seconds = in_shell(folder, core, truth, options.repeat)
                if threads == 1:
                    took[millions] = seconds
                if millions == 1 and threads == 1:
                    in_gdb(folder, core, options)
                if threads == 1 and millions <= MOST_AT_ALL:
                    peers(folder, core, options.patience)
                if options.keep is None:
                    core.unlink()
    growth(took)


if __name__ == "__main__":
    main()

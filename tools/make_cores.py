"""Make the small cores of fixtures/cores and the tiny debug files of fixtures/debug.

Each core is one of a program of fixtures/programs on one glibc release, as the kernel writes it:
private memory that was written to, and the first page of every file, which has its build id.
Beside it lies a ``.json`` with what the program reported and with the addresses of main_arena, mp_
and each thread's tcache, which plain gdb finds with the whole debug files.

Needs the runtimes of tools/fetch_runtimes.py, gdb, gcc, and a kernel.core_pattern that is a file
name. Everything runs in a folder of /tmp with a name of its own, without an environment and without
address randomisation, so that what gets into a core is the same everywhere.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tiny_debug import Libc, debug_file, read_libc, tiny_debug

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "live"))

from programs import (  # noqa: E402
    ARCHES,
    CASES,
    RELEASES,
    RUNTIMES,
    Case,
    MissingRuntime,
    Report,
    Runtime,
    build,
    find_runtime,
    read_report,
    wait_for_report,
)

CORES = ROOT / "fixtures" / "cores"
DEBUG = ROOT / "fixtures" / "debug"
WORKSHOP = Path("/tmp/heapglass-cores")
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
COREDUMP_FILTER = 0x11  # anonymous private memory, ELF headers

EVERYWHERE = ("bins", "threads")
SOMEWHERE = {
    ("2.31", "amd64"): ("blocked-freed", "exited", "bins-tcache_count-0"),
    ("2.31", "i386"): ("foreign", "late"),
    ("2.36", "amd64"): ("foreign", "mmapped"),
    ("2.41", "amd64"): ("exited", "memalign"),
    ("2.41", "i386"): ("blocked-freed",),
    ("2.43", "amd64"): ("late", "empty"),
    ("2.44", "amd64"): ("bins-tcache_max-1048576", "blocked-freed", "foreign"),
    ("2.44", "i386"): ("mmapped", "heaps"),
}


def in_workshop(runtime: Runtime) -> Runtime:
    """The runtime's loader and libraries, copied to where nobody's name is in the path."""
    folder = WORKSHOP / runtime.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("libc.so.6", "libpthread.so.0"):
        if (runtime.libdir / name).exists():
            shutil.copy(runtime.libdir / name, folder / name)
    loader = folder / runtime.loader.name
    shutil.copy(runtime.loader, loader)
    return Runtime(runtime.glibc, runtime.arch, loader, folder, runtime.debug_dir)


def dump(program: Path, case: Case) -> tuple[Path, Path]:
    """Run a program until it has reported, abort it, and return its report and its core."""
    place = program.parent
    fifo, report = place / "fifo", place / "report"
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    command = ["setarch", "-R", str(program), str(fifo), *case.arguments]
    process = subprocess.Popen(command, env=case.environment, cwd=place)
    wait_for_report(fifo, report)
    process.send_signal(signal.SIGABRT)
    process.wait()
    cores = sorted(place.glob("core*"))
    if len(cores) != 1:
        raise FileNotFoundError(f"expected one core in {place}, found {len(cores)}")
    return report, cores[0]


def let_children_dump() -> None:
    """Let this process and its children leave cores, of what COREDUMP_FILTER says."""
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    Path("/proc/self/coredump_filter").write_text(hex(COREDUMP_FILTER))


def gdb_says(runtime: Runtime, program: Path, core: Path, code: str) -> Any:
    """What a few lines of Python in gdb, over a core and the whole debug files, put in `said`."""
    script = program.parent / "ask.py"
    result = program.parent / "said.json"
    ending = f"import json; open({str(result)!r}, 'w').write(json.dumps(said))\n"
    script.write_text(code + ending)
    settings = [f"set debug-file-directory {runtime.debug_dir}", "set debuginfod enabled off"]
    command = ["gdb", "-nx", "-batch", *(f"-iex={line}" for line in settings)]
    command += [str(program), str(core), "-x", str(script)]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads(result.read_text())


FACTS = """
def at(expression):
    return int(gdb.parse_and_eval(expression)) % (1 << 64)
loaded = gdb.parse_and_eval('_rtld_global._dl_ns[0]._ns_loaded')
while not loaded['l_name'].string().endswith('libc.so.6'):
    loaded = loaded['l_next']
said = {
    'main_arena': at('(unsigned long)&main_arena'),
    'mp_': at('(unsigned long)&mp_'),
    'l_tls_offset': int(loaded['l_tls_offset']),
}
"""
WORDS = """
kind = gdb.lookup_type('unsigned long').pointer()
said = {str(a): int(gdb.Value(a).cast(kind).dereference()) for a in %r}
"""


def facts(runtime: Runtime, libc: Libc, program: Path, core: Path, report: Report) -> Any:
    """main_arena, mp_ and each thread's tcache and thread_arena, without heapglass."""
    said = gdb_says(runtime, program, core, FACTS)
    # x86: a variable of a library's TLS lies at thread pointer - l_tls_offset + its value
    places = {
        thread.tid: {
            name: thread.pointer - said["l_tls_offset"] + libc.thread_offset(name)
            for name in ("tcache", "thread_arena")
        }
        for thread in report.threads
    }
    wanted = sorted(a for place in places.values() for a in place.values())
    words = gdb_says(runtime, program, core, WORDS % wanted)
    return {
        "main_arena": hex(said["main_arena"]),
        "mp_": hex(said["mp_"]),
        "threads": [
            {
                "id": thread.tid,
                "pthread_self": hex(thread.pointer),
                **{name: hex(words[str(a)]) for name, a in places[thread.tid].items()},
            }
            for thread in report.threads
        ],
    }


def description(runtime: Runtime, case: Case, build_id: str, report: Report, found: Any) -> Any:
    """What lies beside a core."""
    return {
        "glibc": runtime.glibc,
        "arch": runtime.arch,
        "build_id": build_id,
        "program": case.program,
        "arguments": list(case.arguments),
        "tunables": {f"glibc.malloc.{key}": value for key, value in case.tunables.items()},
        **found,
        "exited": list(report.exited),
        "live": {hex(mem): usable for mem, usable in sorted(report.live.items())},
        "library": {
            hex(mem): {"usable": usable, "what": what}
            for mem, (usable, what) in sorted(report.library.items())
        },
        "malloc_info": report.malloc_info,
    }


def make(runtime: Runtime, only: Collection[str] = ()) -> None:
    """Make the cores of one runtime (of *only*, if that names any) and its debug file."""
    libc = read_libc(runtime.libdir / "libc.so.6", runtime.debug_dir)
    tiny = debug_file(DEBUG, libc.build_id)
    tiny.parent.mkdir(parents=True, exist_ok=True)
    tiny.write_bytes(tiny_debug(libc))
    wanted = EVERYWHERE + SOMEWHERE.get((runtime.glibc, runtime.arch), ())
    copied = in_workshop(runtime)
    CORES.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        stem = CORES / f"{runtime.name}-{case.name}"
        if case.name not in wanted or (only and stem.name not in only):
            continue
        program = build(copied, case.program, folder=WORKSHOP / "programs")
        report_file, core = dump(program, case)
        report = read_report(report_file)
        found = facts(copied, libc, program, core, report)
        packed = lzma.compress(core.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
        stem.with_name(stem.name + ".core.xz").write_bytes(packed)
        text = json.dumps(description(runtime, case, libc.build_id, report, found), indent=1)
        stem.with_name(stem.name + ".json").write_text(text + "\n")
        print(f"{stem.name}: {core.stat().st_size:,} bytes, packed {len(packed):,}")
        core.unlink()


def main() -> int:
    """Make them all; exit status 2 if this machine cannot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--runtimes", type=Path, default=RUNTIMES, help="folder of runtimes")
    parser.add_argument("names", nargs="*", help="cores to make, as 2.36-amd64-bins; else all")
    arguments = parser.parse_args()
    pattern = CORE_PATTERN.read_text().strip()
    if pattern[:1] in ("|", "/"):
        print(f"{CORE_PATTERN} is {pattern!r}: set it to `core` for this", file=sys.stderr)
        return 2
    try:
        runtimes = [find_runtime(g, a, arguments.runtimes) for g in RELEASES for a in ARCHES]
    except MissingRuntime as error:
        print(error, file=sys.stderr)
        return 2
    let_children_dump()
    for runtime in runtimes:
        make(runtime, arguments.names)
    shutil.rmtree(WORKSHOP)
    return 0


if __name__ == "__main__":
    sys.exit(main())

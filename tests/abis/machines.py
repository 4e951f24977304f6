"""Other machines than x86: a cross compiler, an emulator and gdb for each, and programs on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "live"), str(ROOT / "tools")]

from fetch_cross import CROSS, CROSS_TOOLS, QEMU, TRIPLES, MissingTool  # noqa: E402
from programs import CFLAGS, SOURCES, Report, Runtime, read_report  # noqa: E402
from session import NOWHERE, Answers, SessionFailed, questions, settings  # noqa: E402

BUILT = ROOT / ".cache" / "programs"
PATIENCE = 300  # seconds for one run of gdb; the slowest takes twenty
GDB = "gdb-multiarch"
# A processor with memory tagging, and malloc told to use it.
TAGGING = {"QEMU_CPU": "max", "GLIBC_TUNABLES": "glibc.mem.tagging=1"}
PROGRAMS = ("bins", "threads", "late")
WAYS = ("live", "unmapped", "bare")  # symbols; the same, and no mappings are told; no symbols


class Machine(NamedTuple):
    """What is to be known of an architecture beside its compiler."""

    arch: str  # Debian's name
    qemu: str  # the emulator's
    abi: str  # heapglass's name
    releases: tuple[str, ...]  # of Debian's runtimes
    tls: int = 0  # added to l_tls_offset and a symbol's value: from the thread pointer
    tls_sign: int = 1  # -1: TLS blocks lie below the thread pointer


# TLS_TPREL of sysdeps/MACHINE/dl-tls.h or dl-machine.h
MACHINES = {
    machine.arch: machine
    for machine in (
        Machine("arm64", "aarch64", "aarch64", ("2.31", "2.36", "2.41", "2.43", "2.44")),
        Machine("armhf", "arm", "arm", ("2.31", "2.36", "2.41", "2.43", "2.44")),
        Machine("riscv64", "riscv64", "riscv64", ("2.41", "2.43", "2.44")),
        Machine("ppc64el", "ppc64le", "ppc64le", ("2.36", "2.41", "2.43", "2.44"), tls=-0x7000),
        Machine("s390x", "s390x", "s390x", ("2.36", "2.41", "2.43", "2.44"), tls_sign=-1),
    )
}


def build(runtime: Runtime, program: str, folder: Path = BUILT) -> Path:
    """Cross-compile *program* for a runtime, against its own libraries.

    :raises MissingTool: if the compiler was not fetched.
    :raises subprocess.CalledProcessError: if the compiler refuses.
    """
    triple = TRIPLES[runtime.arch]
    compiler = CROSS / "usr" / "bin" / f"{triple}-{CROSS_TOOLS}"
    if not compiler.exists():
        raise MissingTool(f"{compiler} is missing: run `python3 tools/fetch_cross.py`")
    result = folder / runtime.name / "shared" / program
    result.parent.mkdir(parents=True, exist_ok=True)
    unfinished = result.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    libraries = [runtime.libdir / name for name in ("libpthread.so.0", "libc.so.6")]
    own = CROSS / "usr" / triple
    command = [
        *(
            str(compiler),
            "-std=gnu11",
            *CFLAGS,
            str(SOURCES / f"{program}.c"),
            "-o",
            str(unfinished),
        ),
        *("-isystem", str(own / "include"), "-B", str(own / "lib")),
        *(f"-Wl,--dynamic-linker={runtime.loader}", f"-Wl,-rpath,{runtime.libdir}"),
        *("-nodefaultlibs", "-Wl,--as-needed", "-Wl,--build-id"),
        *(str(library) for library in libraries if library.exists()),
        *(str(runtime.loader), "-lgcc"),
    ]
    shared = {**os.environ, "LD_LIBRARY_PATH": str(CROSS / "usr" / "lib" / "x86_64-linux-gnu")}
    subprocess.run(command, check=True, env=shared)
    unfinished.replace(result)
    return result


@contextmanager
def served(
    machine: Machine, program: Path, report: Path, place: Path, tagged: bool = False
) -> Iterator[Path]:
    """Start a program under the emulator, stopped at its first instruction; yield the socket.

    *tagged*: with malloc's memory tagging on (arm64).

    :raises SessionFailed: if the emulator ends before it listens.
    """
    emulator = QEMU / "usr" / "bin" / f"qemu-{machine.qemu}"
    if not emulator.exists():
        raise MissingTool(f"{emulator} is missing: run `python3 tools/fetch_cross.py`")
    socket = place / "gdb.socket"
    socket.unlink(missing_ok=True)
    command = [str(emulator), "-g", str(socket), str(program), str(report)]
    with (place / "qemu.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=place, env=TAGGING if tagged else {}, stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + PATIENCE
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise SessionFailed(f"{' '.join(command)}\n{(place / 'qemu.log').read_text()}")
            time.sleep(0.01)
        yield socket
    finally:
        process.kill()
        process.wait()


def to_heap_ready(runtime: Runtime, program: Path, socket: Path) -> list[str]:
    """What gdb does to have the program where it shows its heap, with all symbols."""
    return [
        *settings(str(runtime.debug_dir)),
        *("set sysroot /", f"file {program}", f"target remote {socket}"),
        *("break heap_ready", "continue"),
    ]


def ask(report: Path, place: Path, program: Path) -> list[str]:
    """What gdb does to ask with symbols, then as if no mappings were told, then without symbols."""
    return [
        *questions(report, place / "live.json", bare=True),
        *("python", "import heapglass_gdb.source as source", "told = source._mappings"),
        *("source._mappings = lambda machine: []", "end"),
        *questions(report, place / "unmapped.json", bare=True),
        "python source._mappings = told",
        *(f"set debug-file-directory {NOWHERE}", "nosharedlibrary", f"file {program}"),
        *("sharedlibrary", "python", "if gdb.lookup_static_symbols('main_arena'):"),
        *("    raise SystemError('gdb still knows main_arena')", "end"),
        *questions(report, place / "bare.json", bare=True),
    ]


def run_gdb(script: Path, commands: Sequence[str]) -> None:
    """Run gdb over *commands*, which are kept in *script*.

    :raises SessionFailed: if gdb gave up on one of them.
    """
    script.write_text("\n".join([*commands, "echo all done\\n", "kill", ""]))
    command = [GDB, "-nx", "-batch", "-x", str(script)]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C.UTF-8", "NO_COLOR": "1"},
        timeout=PATIENCE,
        check=False,
    )
    script.with_suffix(".log").write_text(done.stdout)
    if "all done" not in done.stdout:
        raise SessionFailed(f"{' '.join(command)}\n{done.stdout[-3000:]}")


class LiveSession(NamedTuple):
    """What a program reported, and what was answered in each of WAYS."""

    report: Report
    answers: Mapping[str, Answers]


def run_live(
    machine: Machine, runtime: Runtime, program: str, place: Path, tagged: bool = False
) -> LiveSession:
    """Run a program under the emulator and ask through its gdb server. Takes ten seconds.

    :raises SessionFailed: if gdb or the program did not come to its end.
    """
    place.mkdir(parents=True, exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    built, report = build(runtime, program), place / "report"
    with served(machine, built, report, place, tagged) as socket:
        commands = [*to_heap_ready(runtime, built, socket), *ask(report, place, built)]
        run_gdb(place / "live.gdb", commands)
    answers = {way: Answers(json.loads((place / f"{way}.json").read_text())) for way in WAYS}
    return LiveSession(read_report(report), answers)

"""The programs of fixtures/programs, built against real glibc releases, and what they report."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "fixtures" / "programs"
RUNTIMES = ROOT / ".cache" / "runtimes"
BUILT = ROOT / ".cache" / "programs"

RELEASES = ("2.31", "2.36", "2.41", "2.43", "2.44")
ARCHES = ("amd64", "i386")

CFLAGS = (
    *("-O1", "-g", "-Wall", "-Wextra", "-Werror"),
    *("-fno-builtin", "-fno-stack-protector", "-pthread"),
)
MACHINE = {"amd64": "-m64", "i386": "-m32"}


class MissingRuntime(Exception):
    """A release that was not fetched; the text says what to run."""


@dataclass(frozen=True)
class Runtime:
    """A C library of one release and ABI, with its debug files, unpacked somewhere."""

    glibc: str
    arch: str
    loader: Path
    libdir: Path
    debug_dir: Path

    @property
    def name(self) -> str:
        """As its folder is called: ``2.36-amd64``."""
        return f"{self.glibc}-{self.arch}"

    @property
    def word(self) -> int:
        """SIZE_SZ, in bytes."""
        return {"amd64": 8, "i386": 4}[self.arch]


@dataclass(frozen=True)
class Case:
    """A program with its arguments and tunables."""

    program: str
    arguments: tuple[str, ...] = ()
    tunables: Mapping[str, int] = field(default_factory=dict)
    linkage: str = "shared"  # or "static", "static-pie"

    @property
    def name(self) -> str:
        """For files and test ids: ``bins-tcache_count-0``."""
        settings = [f"{key.rpartition('.')[2]}-{value}" for key, value in self.tunables.items()]
        linked = [] if self.linkage == "shared" else [self.linkage]
        return "-".join([self.program, *linked, *self.arguments, *settings])

    @property
    def environment(self) -> dict[str, str]:
        """What the environment of the program must hold, GLIBC_TUNABLES or nothing."""
        if not self.tunables:
            return {}
        settings = [f"glibc.malloc.{key}={value}" for key, value in self.tunables.items()]
        return {"GLIBC_TUNABLES": ":".join(settings)}


CASES = (
    Case("bins"),
    Case("bins", tunables={"tcache_count": 0}),
    Case("bins", tunables={"mxfast": 0}),
    Case("bins", tunables={"tcache_max": 1 << 20}),
    Case("bins", tunables={"tcache_max": 200, "tcache_count": 3}),
    Case("bins", tunables={"perturb": 165}),
    Case("threads"),
    Case("threads", tunables={"tcache_max": 1 << 20}),
    Case("reuse"),
    Case("reuse", tunables={"arena_max": 1}),
    Case("exited"),
    Case("heaps"),
    Case("foreign"),
    Case("blocked"),
    Case("blocked", ("freed",)),
    Case("mmapped"),
    Case("memalign"),
    Case("memalign", tunables={"tcache_count": 0}),
    Case("late"),
    Case("empty"),
)


# gcc 12 and binutils 2.40 link programs with threads against i386's libc.a of 2.43 and later, but
# those crash in pthread_create, before there is a heap to look at.
STATIC_CASES = (
    Case("bins", linkage="static"),
    Case("heaps", linkage="static"),
    Case("threads", linkage="static"),
    Case("mmapped", linkage="static-pie"),
    Case("late", linkage="static-pie"),
    Case("threads", linkage="static-pie"),
)
STATIC_I386 = ("bins-static", "mmapped-static-pie")
UNLINKED = [(glibc, "i386") for glibc in ("2.43", "2.44")]


@dataclass(frozen=True)
class Thread:
    """A thread that lives."""

    tid: int
    pointer: int  # its thread pointer; on x86 that is pthread_self()


@dataclass(frozen=True)
class Report:
    """What a program knows of its own heap. Addresses are `mem`, sizes malloc_usable_size."""

    live: Mapping[int, int]
    library: Mapping[int, tuple[int, str]]  # usable size, what it is
    threads: tuple[Thread, ...]  # main first
    exited: tuple[int, ...]  # thread ids
    malloc_info: str  # the XML, with its last newline
    mallinfo: tuple[int, ...]  # its nine figures, modulo 2^32, in the order of the manual page

    def blocks(self) -> dict[int, int]:
        """All blocks in use and their usable sizes, but for the allocator's own."""
        return {**self.live, **{mem: usable for mem, (usable, _) in self.library.items()}}


def find_runtime(glibc: str, arch: str, root: Path = RUNTIMES) -> Runtime:
    """A runtime that tools/fetch_runtimes.py has unpacked.

    :raises MissingRuntime: if it is not there.
    """
    folder = root / f"{glibc}-{arch}"
    try:
        said = json.loads((folder / "runtime.json").read_text())
    except FileNotFoundError:
        raise MissingRuntime(
            f"glibc {glibc} for {arch} is not in {root}: run `python3 tools/fetch_runtimes.py`"
        ) from None
    return Runtime(
        glibc, arch, folder / said["loader"], folder / said["libdir"], folder / said["debug_dir"]
    )


def build(runtime: Runtime, program: str, linkage: str = "shared", folder: Path = BUILT) -> Path:
    """Compile and link *program* against the libraries of *runtime*, unless that is done.

    A static program is stripped; its symbols go to `static_debug_dir`.

    :raises subprocess.CalledProcessError: if the compiler refuses.
    """
    result = folder / runtime.name / linkage / program
    sources = [_source(program), *SOURCES.glob("*.h"), Path(__file__)]
    if result.exists() and result.stat().st_mtime > max(f.stat().st_mtime for f in sources):
        return result
    result.parent.mkdir(parents=True, exist_ok=True)
    unfinished = result.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    if linkage == "shared":
        subprocess.run(_compiler(runtime, program, unfinished), check=True)
    else:
        subprocess.run(_static_compiler(runtime, program, linkage, unfinished), check=True)
        _separate_symbols(unfinished, static_debug_dir(runtime, folder))
    unfinished.replace(result)
    return result


def static_debug_dir(runtime: Runtime, folder: Path = BUILT) -> Path:
    """Where the symbols of this runtime's static programs are, by build id."""
    return folder / runtime.name / "debug"


def _separate_symbols(program: Path, debug_dir: Path) -> None:
    said = subprocess.run(["readelf", "-n", program], capture_output=True, text=True, check=True)
    build_id = said.stdout.partition("Build ID: ")[2].split()[0]
    place = debug_dir / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
    place.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["objcopy", "--only-keep-debug", program, place], check=True)
    subprocess.run(["strip", "--strip-all", program], check=True)


def _static_compiler(runtime: Runtime, program: str, linkage: str, result: Path) -> list[str]:
    folders = sorted((RUNTIMES / runtime.name / "static").glob("usr/lib/*/libc.a"))
    if not folders:
        raise MissingRuntime(
            f"libc.a of {runtime.name} is not there: run `python3 tools/fetch_runtimes.py --static`"
        )
    place, machine = folders[0].parent, MACHINE[runtime.arch]
    pie = linkage == "static-pie"

    def of_gcc(name: str) -> str:
        command = ["gcc", machine, f"-print-file-name={name}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    threads = [place / "libpthread.a"] if (place / "libpthread.a").stat().st_size > 64 else []
    wrapped = ("malloc", "calloc", "realloc", "memalign", "free")
    return [
        *("gcc", "-std=gnu11", machine, *CFLAGS, "-DSTATIC_PROGRAM", "-nostdlib", "-Wl,--build-id"),
        *(("-static-pie", "-fPIE") if pie else ("-static", "-fno-pie")),
        *(f"-Wl,--wrap={name}" for name in wrapped),
        *(str(place / ("rcrt1.o" if pie else "crt1.o")), str(place / "crti.o")),
        *(of_gcc("crtbeginS.o" if pie else "crtbeginT.o"), str(SOURCES / f"{program}.c")),
        *(str(SOURCES / "unwind.c") for _ in threads),
        *("-Wl,--whole-archive", *map(str, threads), "-Wl,--no-whole-archive"),
        *("-Wl,--start-group", str(place / "libc.a"), "-lgcc", "-lgcc_eh", "-Wl,--end-group"),
        *(of_gcc("crtendS.o" if pie else "crtend.o"), str(place / "crtn.o"), "-o", str(result)),
    ]


def _compiler(runtime: Runtime, program: str, result: Path) -> list[str]:
    # The release's own libraries by name: -lc would take the machine's, whose symbol versions
    # may be newer. Until 2.33 threads are a library apart.
    libraries = [runtime.libdir / name for name in ("libpthread.so.0", "libc.so.6")]
    source = _source(program)
    return [
        *(
            *_LANGUAGE[source.suffix],
            MACHINE[runtime.arch],
            *CFLAGS,
            str(source),
            "-o",
            str(result),
        ),
        *(f"-Wl,--dynamic-linker={runtime.loader}", f"-Wl,-rpath,{runtime.libdir}"),
        *("-nodefaultlibs", "-Wl,--as-needed"),
        *(_of_cxx(runtime) if source.suffix == ".cc" else []),
        *(str(library) for library in libraries if library.exists()),
        *(str(runtime.loader), "-lgcc"),
        # dlmopen is in a library apart, also until 2.33; its file is there later, too, and empty.
        *([str(runtime.libdir / "libdl.so.2")] if program == "namespaces" else []),
    ]


_LANGUAGE = {".c": ("gcc", "-std=gnu11"), ".cc": ("g++", "-std=gnu++17")}


def _source(program: str) -> Path:
    """The file of a program, in C or in C++."""
    found = [SOURCES / f"{program}{suffix}" for suffix in _LANGUAGE]
    return next(path for path in found if path.exists())


def _of_cxx(runtime: Runtime) -> list[str]:
    """The C++ library inside of the program: each release has the machine's own, as it can be."""
    before = [int(part) for part in runtime.glibc.split(".")] < [2, 32]
    own = ["-DBEFORE_2_32"] if before else []
    math = [str(path) for path in [runtime.libdir / "libm.so.6"] if path.exists()]
    return [*own, "-Wl,--no-as-needed", "-l:libstdc++.a", *math, "-lgcc_eh", "-lgcc"]


def wait_for_report(fifo: Path, report: Path) -> None:
    """Copy what a program writes to *fifo* to the file *report*, until its report is whole.

    :raises ValueError: if the program ends before that.
    """
    with fifo.open() as reading, report.open("w") as writing:
        for line in reading:
            writing.write(line)
            if line == "end\n":
                return
    raise ValueError(f"{report}: the program ended before its report")


def read_report(path: Path) -> Report:
    """Read what a program wrote.

    :raises ValueError: if the report is not whole.
    """
    head, found, tail = path.read_text().partition("malloc_info\n")
    if not found or not tail.endswith("end\n"):
        raise ValueError(f"{path}: the program did not finish its report")
    rows = [line.split() for line in head.splitlines()]
    return Report(
        live={int(r[1], 16): int(r[2]) for r in rows if r[0] == "live"},
        library={int(r[1], 16): (int(r[2]), r[3]) for r in rows if r[0] == "library"},
        threads=tuple(Thread(int(r[1]), int(r[2], 16)) for r in rows if r[0] == "thread"),
        exited=tuple(int(r[1]) for r in rows if r[0] == "exited"),
        malloc_info=tail[: -len("end\n")],
        mallinfo=tuple(int(one) for r in rows if r[0] == "mallinfo" for one in r[1:]),
    )

"""Real malloc, played by fixtures/programs/play.c under a real C library, beside the model."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from elftools.elf.elffile import ELFFile

from heapglass.glibc.layout import layout_for
from heapglass.glibc.releases import parse_version
from heapglass.model import Allocator

ROOT = Path(__file__).resolve().parents[2]
RUNTIMES = ROOT / ".cache" / "runtimes"
BUILT = ROOT / ".cache" / "play"
SOURCE = ROOT / "fixtures" / "programs" / "play.c"
RELEASES = ("2.31", "2.36", "2.41", "2.43", "2.44")
ARCHES = ("amd64", "i386")
ABI = {"amd64": "x86_64", "i386": "i386"}
KEY = 0x1BADC0DE5EED1234
MOST_THREADS = 24  # as in play.c
MODE_WITHOUT_END = ("2.36",)  # see Runtime.thp_mode
NO_RANDOM = 0x0040000  # ADDR_NO_RANDOMIZE
DTV = 17  # pairs of words that the C library callocs for a thread: its thread-local blocks
FLAGS = (
    "-std=gnu11",
    "-O1",
    "-fno-builtin",
    "-fno-stack-protector",
    "-pthread",
    "-Wall",
    "-Werror",
)


class MissingRuntime(Exception):
    """A C library that was not fetched; the text says what to run."""


@dataclass(frozen=True)
class Process:
    """What one build of the player looks like when it starts."""

    brk: int
    mappings: tuple[tuple[int, int], ...]
    mmap_top: int
    symbols: dict[str, int]


class Runtime:
    """One real C library with the player built for it.

    *padding* lengthens the environment, and so moves the stack, by as many bytes.
    """

    def __init__(self, glibc: str, arch: str, padding: int = 0) -> None:
        self.glibc, self.arch, self.padding = glibc, arch, padding
        self.folder = RUNTIMES / f"{glibc}-{arch}"
        try:
            said = json.loads((self.folder / "runtime.json").read_text())
        except FileNotFoundError:
            raise MissingRuntime(f"{self.folder} is not there: run make runtimes") from None
        self.libdir, self.loader = self.folder / said["libdir"], self.folder / said["loader"]
        self.debug_dir = self.folder / said["debug_dir"]
        self.program = self._build()
        self._processes: dict[str, Process] = {}
        self._dtvs: list[bytes] = []
        self._thp_modes: dict[str, str] = {}

    def _build(self) -> Path:
        result = BUILT / f"{self.glibc}-{self.arch}"
        if result.exists() and result.stat().st_mtime > SOURCE.stat().st_mtime:
            return result
        result.parent.mkdir(parents=True, exist_ok=True)
        part = result.with_suffix(f".{os.getpid()}")
        machine = "-m64" if self.arch == "amd64" else "-m32"
        libraries = [self.libdir / name for name in ("libpthread.so.0", "libc.so.6")]
        command = [
            *("gcc", machine, *FLAGS, str(SOURCE), "-o", str(part)),
            *(f"-Wl,--dynamic-linker={self.loader}", f"-Wl,-rpath,{self.libdir}"),
            *("-nodefaultlibs", "-Wl,--as-needed"),
            *(str(library) for library in libraries if library.exists()),
            *(str(self.loader), "-lgcc"),
        ]
        subprocess.run(command, check=True)
        part.replace(result)
        return result

    def process(self, tunables: dict[str, int] | None = None) -> Process:
        """What a process looks like at its start: tunables may move the break."""
        key = repr(tunables or {})
        if key not in self._processes:
            self._processes[key] = self._probe(tunables)
        return self._processes[key]

    def thp_mode(self, tunables: dict[str, int]) -> str:
        """This machine's mode of transparent huge pages as malloc reads it, or unread.

        To 2.38 it is read into a string without an end, and what stands behind that on the stack
        decides. The stack is the same in each run with the same program and environment: one
        such run is asked.
        """
        if self.glibc not in MODE_WITHOUT_END or tunables.get("hugetlb") != 1:
            return thp_mode()
        key = repr(tunables)
        if key not in self._thp_modes:
            layout = layout_for(parse_version(self.glibc), 4 if self.arch == "i386" else 8)
            fields = layout.structs["malloc_par"].fields
            at = self.process(tunables).symbols["mp_"] + fields["thp_pagesize"].offset
            out = self.run(f"0 0\n1 m 0\n1 D {at:x} 4\n", tunables=tunables).stdout
            read = any(bytes.fromhex(out.decode().split()[-1]))
            self._thp_modes[key] = thp_mode() if read else "unread"
        return self._thp_modes[key]

    def dtv(self, thread: int) -> bytes:
        """What the C library writes into its block for a thread: its own business, the same bytes
        whenever a thread with this number begins."""
        if not self._dtvs:
            model = self.allocator()
            pair = 2 * model.layout.word
            blocks = [model.calloc(DTV, pair) for _ in range(2, MOST_THREADS)]
            size = DTV * pair
            lines = [f"{n:x} n" for n in range(2, MOST_THREADS)]
            lines += [f"1 D {block:x} {size:x}" for block in blocks]
            out = self.run("0 0\n" + "\n".join(lines) + "\n").stdout.decode().splitlines()
            self._dtvs = [bytes.fromhex(line[2:]) for line in out[-len(blocks) :]]
        return self._dtvs[thread - 2]

    def _probe(self, tunables: dict[str, int] | None) -> Process:
        out = self.run("0 0\n", "m", tunables=tunables).stdout.decode()
        head, *rows = out.split(".\n")[0].splitlines()
        spans, base = [], 0
        for row in rows:
            start, end = (int(part, 16) for part in row.split()[0].split("-"))
            spans.append((start, end))
            if "libc.so.6" in row or "/libc-2." in row:
                base = base or start
        low = [end for (start, end), row in zip(spans, rows) if "[" not in row]
        top = max(low)
        reserved = tuple(span for span, row in zip(spans, rows) if "[heap]" not in row)
        symbols = {name: base + value for name, value in self._symbols().items()}
        return Process(int(head.split()[1], 16), reserved, top, symbols)

    def _symbols(self) -> dict[str, int]:
        wanted = ("main_arena", "mp_", "tcache_key", "global_max_fast", "narenas", "perturb_byte")
        with (self.libdir / "libc.so.6").open("rb") as file:
            notes = ELFFile(file).get_section_by_name(".note.gnu.build-id").iter_notes()
            build_id = next(notes)["n_desc"]
        path = self.debug_dir / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
        with path.open("rb") as file:
            table = ELFFile(file).get_section_by_name(".symtab")
            return {s.name: s["st_value"] for s in table.iter_symbols() if s.name in wanted}

    def run(
        self, script: str, *arguments: str, tunables: dict[str, int] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the player on a script."""
        environment = {"LIBC_FATAL_STDERR_": "1", "PADDING": "-" * self.padding}
        if tunables:
            said = (f"glibc.malloc.{name}={value}" for name, value in tunables.items())
            environment["GLIBC_TUNABLES"] = ":".join(said)
        return subprocess.run(
            [str(self.program), *arguments],
            input=script.encode(),
            capture_output=True,
            env=environment,
            preexec_fn=_no_random,
            timeout=120,
            check=False,
        )

    def allocator(self, tunables: dict[str, int] | None = None) -> Allocator:
        """A model of this process before its first call."""
        process = self.process(tunables)
        model = Allocator(
            self.glibc,
            ABI[self.arch],
            tunables,
            heap_base=process.brk,
            main_arena=process.symbols["main_arena"],
            mmap_top=process.mmap_top,
            reserved=process.mappings,
            tcache_key=KEY,
            ncpu=os.cpu_count() or 1,
            thp_aligned=self.arch == "amd64",
            thp_mode=self.thp_mode(tunables or {}),
        )
        model.kernel.has_huge_pages = huge_pages_free()
        model.mallinfo2()
        return model


def _no_random() -> None:
    ctypes.CDLL(None).personality(NO_RANDOM)


@cache
def thp_mode() -> str:
    """This machine's mode of transparent huge pages."""
    try:
        said = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except FileNotFoundError:
        return "none"
    return next(word[1:-1] for word in said.split() if word[0] == "[")


@cache
def huge_pages_free() -> bool:
    """Whether somebody reserved pages for MAP_HUGETLB here."""
    rows = Path("/proc/meminfo").read_text().splitlines()
    return any(row.startswith("HugePages_Total:") and row.split()[1] != "0" for row in rows)


@cache
def runtime(glibc: str, arch: str) -> Runtime:
    """Return a runtime, built and probed once."""
    return Runtime(glibc, arch)

"""Every way to die in malloc: programs that do one wrong each, and what each release says then.

The programs (fixtures/programs/aborts_*.c) write down what they will do wrong before they do it;
what glibc must say is in the tables here. `commit` lets one gdb do all of them on one release, one
core each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from programs import ROOT, Runtime, build
from session import NOWHERE, run_gdb

from heapglass.glibc import messages
from heapglass.glibc.releases import parse_version

PLACE = ROOT / ".cache" / "aborts"
QUIET = "stopped"  # nobody noticed: it came to heap_ready
SEGV = "SIGSEGV"  # no words: malloc itself touches what it cannot


class Not(str):
    """Why a release does not end there."""


NO_CHECK = Not("this release does not look, and goes on")
ENDLESS = Not("without the check malloc follows the cycle for ever")
NO_FAST = Not("there are no fast bins since 2.43")
NO_CALLOC = Not("calloc counts no words since 2.41")
TOO_LARGE = Not("what memalign asks for is no fast chunk on i386")
BEHIND_TCACHE = Not("until 2.42 the tcache's own block lies behind the arena")

FASTLESS = {"2.43": NO_FAST, "2.44": NO_FAST}
UNCHECKED_LINK = {"2.31": SEGV, **FASTLESS}  # 2.31 follows the link
OLD = ("2.31", "2.36", "2.41")


@dataclass(frozen=True)
class Crime:
    """A wrong; *text* is what glibc says (`!key`: an assertion), *elsewhere* by release and ABI."""

    program: str
    name: str
    text: str
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    tunables: str = ""

    def said(self, glibc: str, arch: str) -> str:
        """What ends it on a runtime: the words, SEGV, or `Not` the reason why nothing does."""
        for where in (f"{glibc}-{arch}", glibc, arch):
            if where in self.elsewhere:
                return words(self.elsewhere[where], glibc)
        return words(self.text, glibc)


def words(text: str, glibc: str) -> str:
    """A text, or what an assertion prints on a release."""
    if isinstance(text, Not) or not text.startswith("!"):
        return text
    return messages.assertion(text[1:], parse_version(glibc))


def _on(releases: Iterable[str], text: str) -> dict[str, str]:
    return dict.fromkeys(releases, text)


POINTER, SIZE = "free(): invalid pointer", "free(): invalid size"
PREV = "double free or corruption (!prev)"
OUT = "double free or corruption (out)"
NEXT = "free(): invalid next size (normal)"
WHILE = "corrupted size vs. prev_size while consolidating"
UNLINK, LINKS = "corrupted size vs. prev_size", "corrupted double-linked list"
SMALL = "free(): chunks in smallbin corrupted"
UNSORTED = "free(): corrupted unsorted chunks"
MUNMAP = "munmap_chunk(): invalid pointer"
FREE = "aborts_free"
MALLOC = "aborts_malloc"
THREADS = "aborts_threads"
I386_TOP = {f"{glibc}-i386": SIZE for glibc in OLD}  # top's size is no multiple of 16 there

CRIMES: tuple[Crime, ...] = (
    Crime(FREE, "interior", POINTER),
    Crime(FREE, "interior-aligned", SIZE, _on(OLD, POINTER)),
    Crime(FREE, "of-the-stack", POINTER),
    Crime(FREE, "of-the-data", POINTER),
    Crime(FREE, "of-a-pool", POINTER),
    Crime(FREE, "of-a-pool-aligned", SIZE, _on(OLD, POINTER)),
    Crime(FREE, "start-of-a-mapping", SEGV),
    Crime(FREE, "size-zeroed", SIZE, _on(OLD, POINTER)),
    Crime(FREE, "size-number", SIZE),
    Crime(FREE, "size-text", OUT),
    Crime(FREE, "size-text-mapped", MUNMAP),
    Crime(FREE, "size-text-arena", SEGV),
    Crime(FREE, "size-underflow", SIZE),
    Crime(FREE, "mapping-underflow", MUNMAP),
    Crime(FREE, "twice-tcache", "free(): double free detected in tcache 2"),
    Crime(FREE, "twice-fast", PREV, _on(OLD, "double free or corruption (fasttop)")),
    Crime(FREE, "twice-large", PREV),
    Crime(FREE, "twice-top", "double free or corruption (top)", I386_TOP),
    Crime(FREE, "twice-merged", PREV),
    Crime(
        FREE,
        "tcache-unaligned",
        "free(): unaligned chunk detected in tcache 2",
        {"2.31": SEGV},
    ),
    Crime(FREE, "tcache-cycle", "free(): too many chunks detected in tcache", {"2.31": ENDLESS}),
    Crime(FREE, "next-fast", NEXT, _on(OLD, "free(): invalid next size (fast)")),
    Crime(FREE, "next-normal", NEXT),
    Crime(FREE, "next-zeroed", PREV),
    Crime(FREE, "next-null", PREV),
    Crime(FREE, "merge-null", WHILE),
    Crime(FREE, "merge-null-text", SEGV),
    Crime(FREE, "merge-stale", WHILE),
    Crime(FREE, "unsorted-stale", UNSORTED),
    Crime(FREE, "small-stale", SMALL, _on(("2.31", "2.36"), UNSORTED)),
    Crime(FREE, "fast-entry", "invalid fastbin entry (free)", FASTLESS),
    Crime(FREE, "unlink-size", UNLINK),
    Crime(FREE, "unlink-links", LINKS),
    Crime(FREE, "unlink-text", SEGV),
    Crime(MALLOC, "tcache-link", "malloc(): unaligned tcache chunk detected", {"2.31": SEGV}),
    Crime(MALLOC, "fast-link", "malloc(): unaligned fastbin chunk detected 3", UNCHECKED_LINK),
    Crime(
        MALLOC,
        "fast-head",
        "malloc(): unaligned fastbin chunk detected 2",
        UNCHECKED_LINK,
        tunables="glibc.malloc.tcache_count=0",
    ),
    Crime(MALLOC, "fast-size", "malloc(): memory corruption (fast)", FASTLESS),
    Crime(
        MALLOC,
        "fast-size-consolidated",
        "malloc_consolidate(): invalid chunk size",
        FASTLESS,
    ),
    Crime(
        MALLOC,
        "fast-link-consolidated",
        "malloc_consolidate(): unaligned fastbin chunk detected",
        UNCHECKED_LINK,
    ),
    Crime(MALLOC, "fast-merged", "corrupted size vs. prev_size in fastbins", FASTLESS),
    Crime(
        MALLOC,
        "fast-malloc-stats",
        "int_mallinfo(): unaligned fastbin chunk detected",
        UNCHECKED_LINK,
    ),
    Crime(
        MALLOC,
        "fast-malloc-info",
        "__malloc_info(): unaligned fastbin chunk detected",
        UNCHECKED_LINK,
    ),
    Crime(MALLOC, "small-link", "malloc(): smallbin double linked list corrupted"),
    Crime(MALLOC, "small-size", "!bin_size"),
    Crime(MALLOC, "small-size-memalign", "!memalign_size", _on(("2.43", "2.44"), NO_CHECK)),
    Crime(MALLOC, "small-size-calloc", "!calloc_clears", _on(("2.41", "2.43", "2.44"), NO_CALLOC)),
    Crime(MALLOC, "unsorted-size", "malloc(): invalid size (unsorted)"),
    Crime(MALLOC, "unsorted-next-size", "malloc(): invalid next size (unsorted)"),
    Crime(MALLOC, "unsorted-written", "malloc(): mismatching next->prev_size (unsorted)"),
    Crime(MALLOC, "unsorted-links", "malloc(): unsorted double linked list corrupted"),
    Crime(MALLOC, "unsorted-prev-inuse", "malloc(): invalid next->prev_inuse (unsorted)"),
    Crime(MALLOC, "large-size", UNLINK),
    Crime(MALLOC, "large-null", UNLINK),
    Crime(MALLOC, "large-links", LINKS),
    Crime(MALLOC, "large-sizes-list", "corrupted double-linked list (not small)"),
    Crime(
        MALLOC,
        "large-insert-sizes",
        "malloc(): largebin double linked list corrupted (nextsize)",
    ),
    Crime(
        MALLOC,
        "large-append-sizes",
        "malloc(): largebin double linked list corrupted (nextsize)",
        _on(OLD, NO_CHECK),
    ),
    Crime(MALLOC, "large-insert", "malloc(): largebin double linked list corrupted (bk)"),
    Crime(MALLOC, "large-mark-last", "!largebin_tail"),
    Crime(MALLOC, "large-mark-first", "!largebin_first"),
    Crime(MALLOC, "large-mark-next", "!largebin_next"),
    Crime(MALLOC, "split-large", "malloc(): corrupted unsorted chunks"),
    Crime(MALLOC, "split-small", "malloc(): corrupted unsorted chunks 2"),
    Crime(MALLOC, "top-text", "malloc(): corrupted top size"),
    Crime(MALLOC, "top-zeroed", "!old_top"),
    Crime(MALLOC, "top-number", "!old_top"),
    Crime(MALLOC, "top-beyond", "break adjusted to free malloc space"),
    Crime(MALLOC, "break-lowered", "break adjusted to free malloc space"),
    Crime(MALLOC, "trimmed", "!trim_end"),
    Crime(MALLOC, "realloc-interior", "realloc(): invalid pointer"),
    Crime(
        MALLOC,
        "realloc-old",
        SEGV,
        _on(("2.31", "2.36"), "realloc(): invalid old size"),
    ),
    Crime(MALLOC, "realloc-number", "realloc(): invalid old size"),
    Crime(MALLOC, "realloc-next", "realloc(): invalid next size"),
    Crime(MALLOC, "realloc-unlink", LINKS),
    Crime(MALLOC, "realloc-text-mapped", "mremap_chunk(): invalid pointer"),
    Crime(MALLOC, "realloc-mapping", "mremap_chunk(): invalid pointer"),
    Crime(THREADS, "mt-fast-link", "malloc(): unaligned fastbin chunk detected", UNCHECKED_LINK),
    Crime(
        THREADS,
        "tcache-shutdown",
        "tcache_thread_shutdown(): unaligned tcache chunk detected",
        {"2.31": SEGV},
    ),
    Crime(THREADS, "twice-in-thread", OUT),  # a free chunk has no mark of its arena
    Crime(THREADS, "size-in-thread", "malloc(): invalid next size (unsorted)"),
    Crime(THREADS, "arena-malloc", "!malloc_arena", FASTLESS),
    Crime(THREADS, "arena-calloc", "!calloc_arena", FASTLESS),
    Crime(THREADS, "arena-realloc", "!realloc_arena", FASTLESS),
    Crime(THREADS, "arena-memalign", "!memalign_arena", {**FASTLESS, "i386": TOO_LARGE}),
    Crime(THREADS, "main-malloc", "!malloc_main"),
    Crime(THREADS, "main-calloc", "!calloc_arena"),
    Crime(THREADS, "main-realloc", "!realloc_main"),
    Crime(THREADS, "main-memalign", "!memalign_main"),
    Crime(THREADS, "heap-fence", "!heap_fence"),
    Crime(THREADS, "heap-fence-size", "!heap_fence_size"),
    Crime(THREADS, "heap-new-size", "!heap_new_size"),
    Crime(THREADS, "heap-page", "!heap_page"),
    Crime(THREADS, "heap-info", "!free_heap"),
    Crime(
        THREADS,
        "arena-underflow",
        "!thread_exit",
        _on(OLD, BEHIND_TCACHE),
        tunables="glibc.malloc.tcache_count=0",
    ),
)

SILENT: tuple[Crime, ...] = tuple(
    Crime("silent", name, QUIET, elsewhere)
    for name, elsewhere in (
        ("tcache-text", {}),
        ("tcache-poisoned", {}),
        ("tcache-into-a-block", {}),
        ("tcache-key", {}),
        ("fast-link", FASTLESS),
        ("unsorted-fd", {}),
        ("unsorted-text", {}),
        ("small-bk", {}),
        ("large-nextsize", {}),
        ("foot", {}),
        ("size-text", {}),
        ("size-number", {}),
        ("size-null", {}),
        ("size-zeroed", {}),
        ("size-underflow", {}),
        ("size-of-a-free-chunk", {}),
        ("null-before-a-free-chunk", {}),
        ("top-number", {}),
        ("top-text", {}),
        ("overlap", {}),
        ("twice-cached", {}),
        ("twice-fast", {}),
        ("false-chunk", {}),
        ("null-in-thread", {}),
        ("mapping-underflow", {}),
    )
)

WORDS = "several words of the stack could be the pointer: they are told by likelihood"

# Of these `explain` does not tell all on every release: the table says on which it does.
UNTOLD: dict[str, str] = {
    "tcache-shutdown": "2.31 crashes: the block with the link was freed a moment before",
    "fast-link-consolidated": "2.31 crashes: the block with the link was merged a moment before",
    "of-the-stack": WORDS,
    "of-the-data": WORDS,
    "of-a-pool": WORDS,
    "of-a-pool-aligned": WORDS,
    "interior-aligned": WORDS,
    "realloc-interior": WORDS,
}

# The texts of a release that no program comes to by writing over its heap, and why.
UNPROVOKED: dict[str, str] = {
    "malloc(): corrupted unsorted chunks 3": "a check before it is the same: compilers drop it",
    "!top_too_large": "sysmalloc is called only where it holds",
    "!munmap_mmapped": "every caller has looked at that bit",
    "!mremap_mem": "what mremap moved keeps its place within a page",
    "!mremap_offset": "what mremap moved keeps its header",
    "!realloc_size": "the sizes were compared just before",
    "!trim_start": "it follows from how the address was rounded",
    "!heap_end": "`heap_page` holds before it, and the size is less than a page",
    "!detach": "needs a write into another thread's arena while this one is out of memory",
    "!free_list": "needs a write into an arena that no thread has",
    "!in_free_list": "needs a write into an arena that no thread has",
}


class Truth(NamedTuple):
    """What a program wrote down before it did wrong."""

    kind: str
    chunk: int
    culprit: int | None


@dataclass(frozen=True)
class Scene:
    """What is left of a wrong: its core, and what glibc said."""

    place: Path

    def file(self, kind: str) -> Path:
        """One of its files."""
        return self.place.with_suffix(f".{kind}")

    @property
    def core(self) -> Path:
        """The core that gdb wrote."""
        return self.file("core")

    @property
    def signal(self) -> str:
        """What it died of, as gdb says it; or that it did not."""
        return self.file("signal").read_text().strip()

    @property
    def said(self) -> str:
        """What glibc wrote to standard error."""
        return self.file("said").read_text().strip()

    @property
    def truth(self) -> Truth:
        """What the program knows.

        :raises ValueError: if it did not come that far.
        """
        *lines, end = self.file("report").read_text().splitlines() or [""]
        if end != "end":
            raise ValueError(f"{self.place}: no whole report")
        said = dict(line.split(" ", 1) for line in lines)
        culprit = int(said["culprit"], 16) if "culprit" in said else None
        return Truth(said["kind"], int(said["chunk"], 16), culprit)


def committed(
    glibc: str, arch: str, crimes: Sequence[Crime] = (*CRIMES, *SILENT)
) -> tuple[Crime, ...]:
    """Those of the wrongs that can be done on a runtime."""
    return tuple(crime for crime in crimes if not isinstance(crime.said(glibc, arch), Not))


def scene(runtime: Runtime, crime: Crime, folder: Path = PLACE) -> Scene:
    """Where the remains of a wrong lie."""
    return Scene(folder / runtime.name / f"{crime.program}-{crime.name}")


# In gdb: one wrong after the other. A program that does not die of itself leaves no core.
_IN_GDB = """
python
def commit(program, report, name, said, core, died, tunables):
    gdb.execute(f"file {program}")
    gdb.execute("delete")
    gdb.execute("break heap_ready", to_string=True)
    gdb.execute("unset environment GLIBC_TUNABLES")
    if tunables:
        gdb.execute(f"set environment GLIBC_TUNABLES {tunables}")
    happened = []
    def stopped(event):
        happened.append(getattr(event, "stop_signal", "stopped"))
    gdb.events.stop.connect(stopped)
    try:
        gdb.execute(f"run {report} {name} {said}", to_string=True)
    finally:
        gdb.events.stop.disconnect(stopped)
    with open(died, "w") as file:
        file.write(happened[-1] if happened else "it ended")
    if happened:
        gdb.execute(f"generate-core-file {core}", to_string=True)
        gdb.execute("kill", to_string=True)
"""


def commit(runtime: Runtime, folder: Path = PLACE) -> None:
    """Do every wrong on a release, in one gdb: leaves a `Scene` each. Takes seconds.

    :raises SessionFailed: if gdb gave up.
    """
    place = folder / runtime.name
    place.mkdir(parents=True, exist_ok=True)
    for old in place.iterdir():
        old.unlink()
    lines = [_IN_GDB.strip()]
    for crime in committed(runtime.glibc, runtime.arch):
        left = scene(runtime, crime, folder)
        kinds = ("report", "said", "core", "signal")
        report, said, core, died = (str(left.file(kind)) for kind in kinds)
        program = str(build(runtime, crime.program))
        lines.append(f"commit{(program, report, crime.name, said, core, died, crime.tunables)!r}")
    lines.append("end")
    run_gdb(place / "gdb", [*_settings(), *lines])


def _settings() -> list[str]:
    return [
        *("set confirm off", "set pagination off", "set width 0", "set startup-with-shell off"),
        f"set debug-file-directory {NOWHERE}",
        "set print thread-events off",
        "set environment LIBC_FATAL_STDERR_ 1",
    ]

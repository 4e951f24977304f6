"""`info`: what was found, how, and by which evidence; with --why a page for a bug report."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Any

from .. import __version__
from ..glibc.releases import name
from ..heap.heap import Heap
from ..heap.target import HeapThread, Loaded, Place, Target
from ..native import IN_USE
from ..table import (
    Absent,
    Address,
    Answer,
    Column,
    Data,
    Fact,
    Facts,
    Kind,
    Lines,
    Part,
    Style,
    Table,
    Tag,
)
from .cells import address, finish


def info(target: Target, request: Any) -> Answer:
    """Show where the allocator's variables are, how each was found, and what is missing."""
    heap = Heap(target)
    layout = target.layout
    parts: list[Part] = [
        Facts(
            "",
            (
                Fact("", "glibc", target.release_text, note=f"({target.glibc_how})"),
                Fact("abi", "ABI", layout.abi),
                Fact("", "order", layout.order, note=f"{layout.word * 8}-bit"),
                Fact("", "main_arena", *_place(target.main_arena)),
                Fact("", "mp_", *_place(target.mp)),
                Fact("loops", "loops", IN_USE),
            ),
        ),
        Data("glibc", _release_data(target)),
        Data("main_arena", _place_data(target.main_arena)),
        Data("mp_", _place_data(target.mp)),
        Data("variables", {name: _place_data(place) for name, place in target.names.items()}),
        Data("source", {"kind": target.kind, "name": target.name}),
        Lines(list(_evidence(target)), "evidence"),
        Table("threads", _THREAD_COLUMNS, [_thread_row(t) for t in target.threads], "threads"),
        Data("missing", list(target.missing)),
    ]
    if request.why:
        parts += _page(target)
    heap.problems += target.missing
    return finish(heap, "info", parts)


def _release_data(target: Target) -> dict[str, Any]:
    possible = target.releases or (target.layout.version,)
    return {
        "version": target.release,
        "how": target.glibc_how,
        "possible": [name(version) for version in possible],
        "backports": [{"group": group, "of": name(of)} for group, of in target.layout.as_of],
    }


_THREAD_COLUMNS = (
    Column("id", "thread", Kind.COUNT),
    Column("number", "gdb", Kind.COUNT, in_json=False),
    Column("tcache", "tcache", Kind.ADDRESS),
    Column("tcache_state", "state"),
    Column("tcache_how", "found by"),
    Column("arena", "arena", Kind.ADDRESS),
)


def _thread_row(thread: HeapThread) -> tuple[Any, ...]:
    unknown = Absent.UNKNOWN
    known = thread.tcache_state != "unknown"
    return (
        thread.id,
        Absent.NONE if thread.number is None else thread.number,
        address(thread.tcache) if known else unknown,
        thread.tcache_state,
        thread.tcache_how or Absent.NONE,
        address(thread.arena) if thread.arena_known else unknown,
    )


def _place(place: Place | None) -> tuple[Any, Kind, str]:
    if place is None:
        return Absent.UNKNOWN, Kind.ADDRESS, "(not found)"
    where = f" of {place.where}" if place.where else ""
    return Address(place.address), Kind.ADDRESS, f"({place.how}{where})"


def _place_data(place: Place | None) -> dict[str, Any] | None:
    if place is None:
        return None
    return {
        "address": Address(place.address),
        "how": place.how,
        "checks": list(place.checks),
        "runners_up": list(place.runners_up),
    }


def _evidence(target: Target) -> Iterator[list[Tag]]:
    """Yield a line for each check that a find has passed, and for each thing not taken instead."""
    finds = {"main_arena": target.main_arena, "mp_": target.mp, **target.names}
    for what, place in finds.items():
        if place is None:
            continue
        lines = [*place.checks, *(f"not taken: {other}" for other in place.runners_up)]
        if what in target.names and not lines:
            lines = [f"{place.address:#x}, by its symbol"]
        for number, line in enumerate(lines):
            yield [Tag(f"{'' if number else what:<16}  ", Style.STRONG), Tag(line)]


# --- the page for a bug report --------------------------------------------------------------------


def _page(target: Target) -> list[Part]:
    """Return versions, files, and layout. No contents of memory, no host, no user."""
    versions = {
        "heapglass": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "machine": platform.machine(),
        **target.tools,
    }
    rows = [_file_row(loaded) for loaded in target.files]
    facts = [Fact("", key, value) for key, value in versions.items()]
    facts.append(Fact("", "target", target.kind or Absent.UNKNOWN))
    return [
        Facts("", facts, "versions"),
        Data("versions", versions),
        Table("files", _FILE_COLUMNS, rows, "files that may hold malloc", "none is known"),
        Lines(list(_layout_lines(target)), "layout"),
        Data("layout", {group: struct.size for group, struct in target.layout.structs.items()}),
        Lines([[Tag(text)] for text in target.missing] or [[Tag("nothing")]], "missing"),
    ]


_FILE_COLUMNS = (
    Column("path", "file"),
    Column("build_id", "build id"),
    Column("at_hand", "at hand"),
    Column("debug_file", "debug file"),
)


def _file_row(loaded: Loaded) -> tuple[Any, ...]:
    return (
        loaded.path,
        loaded.build_id or Absent.UNKNOWN,
        loaded.at_hand,
        loaded.debug_file,
    )


def _layout_lines(target: Target) -> Iterator[list[Tag]]:
    layout = target.layout
    yield [Tag(f"alignment {layout.alignment}, word {layout.word}, tables of {layout.release}")]
    for group, version in layout.as_of:
        yield [Tag(f"{group} of {name(version)}: a backport, or what memory shows")]
    for group, struct in layout.structs.items():
        yield [Tag(f"{group:<24}{struct.size:#x} bytes")]

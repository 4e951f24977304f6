"""A mutated target as a recipe: a fixture and what is done to its bytes. Small, and replayed."""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import lz4.frame
import zstandard

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
HOSTILE = FIXTURES / "hostile"
DEBUG = FIXTURES / "debug"
NO_FOLDER = "/nonexistent"


class Splice(NamedTuple):
    """At *at*, *removed* bytes are taken out and the bytes of *hex* put in, *times* over."""

    at: int
    removed: int
    hex: str
    times: int = 1

    @property
    def data(self) -> bytes:
        """What is put in."""
        return bytes.fromhex(self.hex) * self.times


@dataclass(frozen=True)
class Recipe:
    """What is done to a fixture, in this order: splices, cut, pack, then the same once more."""

    base: str  # below fixtures, without .xz
    splices: Sequence[Splice] = ()
    cut: int | None = None  # bytes that are left
    pack: str = ""  # gz, xz, zst, lz4
    packed_splices: Sequence[Splice] = ()
    packed_cut: int | None = None
    symbols: bool = True  # whether the debug files are at hand
    glibc: str = ""  # what the user says that it is
    debug_file: str = ""  # the one that is changed, below fixtures/debug
    debug_splices: Sequence[Splice] = ()
    debug_cut: int | None = None
    kinds: Sequence[str] = field(default=())  # of the mutations: for people
    address: int = 0  # what commands that need one are asked

    def text(self) -> str:
        """Return it as one line of JSON."""
        plain = {key: value for key, value in asdict(self).items() if value not in ((), "", None)}
        return json.dumps(plain)


def from_text(text: str) -> Recipe:
    """Return what `Recipe.text` wrote."""
    said: dict[str, Any] = json.loads(text)
    for key in ("splices", "packed_splices", "debug_splices"):
        said[key] = tuple(Splice(*one) for one in said.get(key, ()))
    said["kinds"] = tuple(said.get("kinds", ()))
    return Recipe(**said)


@lru_cache(maxsize=64)
def base_bytes(base: str) -> bytes:
    """Return a fixture, unpacked if it is."""
    packed = FIXTURES / f"{base}.xz"
    return (
        lzma.decompress(packed.read_bytes()) if packed.exists() else (FIXTURES / base).read_bytes()
    )


def spliced(data: bytes, splices: Iterable[Splice]) -> bytes:
    """Return bytes with splices, each at its place after those before it."""
    made = bytearray(data)
    for one in splices:
        made[one.at : one.at + one.removed] = one.data
    return bytes(made)


def packed(data: bytes, kind: str) -> bytes:
    """Return bytes as a compressed stream, with little effort."""
    if kind == "gz":
        return gzip.compress(data, 1, mtime=0)
    if kind == "xz":
        return lzma.compress(data, preset=0)
    if kind == "zst":
        return zstandard.ZstdCompressor(level=1).compress(data)
    if kind == "lz4":
        return bytes(lz4.frame.compress(data))
    return data


def target_bytes(recipe: Recipe) -> bytes:
    """Return the bytes of a target."""
    data = spliced(base_bytes(recipe.base), recipe.splices)[: recipe.cut]
    return spliced(packed(data, recipe.pack), recipe.packed_splices)[: recipe.packed_cut]


def is_trace(recipe: Recipe) -> bool:
    """Whether it is a trace rather than a core."""
    return recipe.base.startswith("traces/")


def write_target(recipe: Recipe, folder: Path) -> list[str]:
    """Write a target into a folder; return the words that name it and its debug files."""
    end = ".jsonl" if is_trace(recipe) and not recipe.pack else ".bin"
    path = folder / f"target{end}"
    path.write_bytes(target_bytes(recipe))
    debug = str(DEBUG) if recipe.symbols else NO_FOLDER
    if recipe.debug_file:
        debug = str(_changed_debug(recipe, folder / "debug"))
    words = [str(path), "--sysroot", NO_FOLDER, "--debug-dir", debug]
    return [*words, "--glibc", recipe.glibc] if recipe.glibc else words


def _changed_debug(recipe: Recipe, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    place = folder / recipe.debug_file
    place.parent.mkdir(parents=True)
    data = (DEBUG / recipe.debug_file).read_bytes()
    place.write_bytes(spliced(data, recipe.debug_splices)[: recipe.debug_cut])
    return folder

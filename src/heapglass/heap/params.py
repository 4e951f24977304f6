"""`mp_` and the other variables that steer the allocator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import MemoryFault
from .target import Target
from .words import Words


@dataclass(frozen=True)
class Params:
    """Fields of malloc_par by name; empty if mp_ is not known. A pointer is an unsigned int."""

    fields: Mapping[str, int]

    def get(self, name: str) -> int | None:
        """Return a field of mp_, None if it is not known or not in this release."""
        return self.fields.get(name)


class Variables(NamedTuple):
    """What malloc keeps beside mp_; None: the variable was not found, or is not in this release."""

    max_fast: int | None = None  # global_max_fast
    narenas: int | None = None
    perturb_byte: int | None = None
    tcache_key: int | None = None
    mtag_enabled: int | None = None  # since 2.34, on aarch64


def read_params(words: Words, target: Target, problems: list[str]) -> Params:
    """Read mp_; what cannot be read is said."""
    fields: dict[str, int] = {}
    if target.mp is not None:
        try:
            read = words.struct(words.layout.structs["malloc_par"], target.mp.address)
            fields = {name: values[0] for name, values in read.items()}
        except MemoryFault as fault:
            problems.append(f"mp_: {fault}")
    return Params(fields)


def read_variables(words: Words, target: Target) -> Variables:
    """Read the variables beside mp_. Without symbols this looks at the code that uses them."""
    byte = words.layout.has("max_fast_byte")
    return Variables(
        max_fast=_variable(words, target, "global_max_fast", 1 if byte else words.size),
        narenas=_variable(words, target, "narenas", words.size),
        perturb_byte=_variable(words, target, "perturb_byte", 4),
        tcache_key=_variable(words, target, "tcache_key", words.size),
        mtag_enabled=_variable(words, target, "mtag_enabled", 1),
    )


def _variable(words: Words, target: Target, name: str, size: int) -> int | None:
    place = target.names.get(name)
    if place is None:
        return None
    try:
        return words.numbers(place.address, size, 1)[0]
    except MemoryFault:
        return None

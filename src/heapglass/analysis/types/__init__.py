"""What fills the heap, by type: C++ objects, containers by shape, text, and what is recognised."""

from .find import (
    NAMES,
    Namer,
    TypeGroup,
    Types,
    find_types,
    members,
    of_usable,
    requests_of,
    tell,
)
from .tables import Named

__all__ = [
    "NAMES",
    "Named",
    "Namer",
    "TypeGroup",
    "Types",
    "find_types",
    "members",
    "of_usable",
    "requests_of",
    "tell",
]

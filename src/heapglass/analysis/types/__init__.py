"""What fills the heap, by type: C++ objects, containers by shape, text, and what is recognised."""

from .find import NAMES, Kind, TypeGroup, Types, find_types, members, of_usable

__all__ = ["NAMES", "Kind", "TypeGroup", "Types", "find_types", "members", "of_usable"]

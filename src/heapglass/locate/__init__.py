"""Finding the allocator: the release, main_arena, mp_, each thread's tcache and arena."""

from .locate import Overrides, locate

__all__ = ["Overrides", "locate"]

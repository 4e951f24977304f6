"""The hot loops, one interface: buffers in, columns filled, and where and why the loop stopped."""

from .loops import walk_sizes

__all__ = ["walk_sizes"]

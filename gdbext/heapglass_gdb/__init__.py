"""The gdb door: the only code that imports gdb."""

from .register import register

__all__ = ["register"]

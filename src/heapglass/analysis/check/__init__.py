"""Whether the heap can be true: every rule that glibc enforces, those it never checks, and why."""

from .check import Checked, check_heap
from .finding import KINDS, RULES, Cause, Finding, Outcome, Word

__all__ = ["KINDS", "RULES", "Cause", "Checked", "Finding", "Outcome", "Word", "check_heap"]

"""Why a program ended in malloc."""

from .explain import Explanation, explain_end
from .rules import CHECKS, check_of

__all__ = ["CHECKS", "Explanation", "check_of", "explain_end"]

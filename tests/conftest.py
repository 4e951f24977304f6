"""What holds for all tests: Hypothesis looks at answers, not at the clock."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("heapglass", deadline=None)
settings.load_profile("heapglass")

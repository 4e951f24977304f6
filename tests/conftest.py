"""What holds for all tests: answers count, not the clock; Ctrl-C is heard, wherever they run."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("heapglass", deadline=None)
settings.load_profile("heapglass")

# A job in the background ignores SIGINT, and so would each gdb that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

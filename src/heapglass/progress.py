"""How far a long command is: a line on a terminal's standard error, nothing anywhere else."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, TextIO

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is; 0: not known."""

PATIENCE, PAUSE = 2.0, 0.25  # seconds before the first line, and between two
BAR = 24  # characters
CLEAR = "\r\x1b[K"


def quiet(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""


def line(what: str, done: int, total: int) -> str:
    """Return the line that is shown."""
    if total <= 0:
        return f"{what} …"
    share = min(max(done / total, 0.0), 1.0)
    full = int(share * BAR)
    return f"{what} [{'#' * full}{'.' * (BAR - full)}] {share:4.0%}"


def _is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody may look at a stream; one that is closed has nobody."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


class Progress:
    """Shows what was reported last, once a command takes longer than *patience* seconds.

    A thread draws, so that a loop in C need not. It makes no noise where *stream* is no terminal.
    Use as a context manager; `stop` may come earlier, before the answer is printed.
    """

    def __init__(self, stream: TextIO | None, patience: float = PATIENCE) -> None:
        self._stream = stream
        self._patience = patience
        self._last = ("", 0, 0)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Note how far it is; see `Report`."""
        self._last = what, done, total

    def __enter__(self) -> Progress:
        if _is_terminal(self._stream):
            self._thread = threading.Thread(target=self._draw, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the line away."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _draw(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the others
        assert self._stream is not None
        drawn, wait = False, self._patience
        try:
            while not self._over.wait(wait):
                if self._last[0]:
                    self._stream.write(CLEAR + line(*self._last))
                    self._stream.flush()
                    drawn = True
                wait = PAUSE
            if drawn:
                self._stream.write(CLEAR)
                self._stream.flush()
        except (OSError, ValueError):
            return  # the terminal is gone

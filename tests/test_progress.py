"""How far it is: on a terminal, after a while, and gone at the end; nothing elsewhere."""

from __future__ import annotations

import io
import threading

import pytest

from heapglass.progress import CLEAR, Progress, line, quiet


class Terminal(io.StringIO):
    """A terminal that says when something was drawn."""

    def __init__(self, gone: bool = False) -> None:
        super().__init__()
        self.drawn = threading.Event()
        self.gone = gone

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.gone:
            self.drawn.set()
            raise OSError("gone")
        return super().write(text)

    def flush(self) -> None:
        self.drawn.set()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (("walking", 0, 0), "walking …"),
        (("walking", 0, 4), f"walking [{'.' * 24}]   0%"),
        (("walking", 1, 4), f"walking [{'#' * 6}{'.' * 18}]  25%"),
        (("walking", 4, 4), f"walking [{'#' * 24}] 100%"),
        (("walking", 9, 4), f"walking [{'#' * 24}] 100%"),
        (("walking", -3, 4), f"walking [{'.' * 24}]   0%"),
    ],
)
def test_the_line(said: tuple[str, int, int], shown: str):
    assert line(*said) == shown


def test_it_is_drawn_on_a_terminal_and_taken_away():
    terminal = Terminal()
    with Progress(terminal, patience=0) as progress:
        progress("unpacking", 1, 2)
        terminal.drawn.clear()
        assert terminal.drawn.wait(60)
    drawn = terminal.getvalue()
    assert drawn.startswith(f"{CLEAR}unpacking [############............]  50%{CLEAR}")
    assert drawn.endswith(CLEAR)
    progress.stop()
    assert terminal.getvalue() == drawn


def test_a_short_command_draws_nothing():
    terminal = Terminal()
    with Progress(terminal) as progress:
        progress("unpacking", 1, 2)
    assert terminal.getvalue() == ""


def test_nothing_goes_into_a_pipe():
    pipe, closed = io.StringIO(), io.StringIO()
    closed.close()
    for stream in (pipe, None, closed):
        before = threading.active_count()
        with Progress(stream, patience=0) as progress:
            assert threading.active_count() == before
            progress("unpacking", 1, 2)
    quiet("unpacking", 1, 2)
    assert pipe.getvalue() == ""


def test_a_terminal_that_is_gone_is_no_fault():
    terminal = Terminal(gone=True)
    with Progress(terminal, patience=0) as progress:
        progress("unpacking", 1, 2)
        assert terminal.drawn.wait(60)

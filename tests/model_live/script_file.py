"""Scripts as files: what a program calls, its blocks by number, so that any runtime can play it.

    # why the script is kept
    ! tcache_count=3
    1 m 64
    1 w #0+8 4141
    1 f #0

A line is `THREAD OP ARGUMENT…`, numbers in decimal; `#N` is the block that the Nth of the calls
that return one returned, 0-based. `look` compares everything at that point, `!` sets a tunable.
"""

from __future__ import annotations

from pathlib import Path

from .play import GIVES, Session
from .real import ROOT, Runtime

SCRIPTS = ROOT / "fixtures" / "scripts"


def text_of(session: Session, why: str) -> str:
    """Return a session as a file."""
    head = [f"# {line}" for line in why.splitlines()]
    head += [f"! {name}={value}" for name, value in session.tunables.items()]
    return "\n".join([*head, *session.log]) + "\n"


def play_file(real: Runtime, path: Path) -> Session:
    """Let the model play a file; `check` then compares."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    options = dict(line[2:].split("=") for line in lines if line[0] == "!")
    session = Session(real, {name: int(value) for name, value in options.items()})
    blocks: list[int] = []
    for line in lines:
        if line[0] != "!":
            _play_line(session, line, blocks)
    session.look_everywhere()
    return session


def _play_line(session: Session, line: str, blocks: list[int]) -> None:
    if line == "look":
        session.look_everywhere()
        return
    thread, op, *words = line.split()
    if op == "w":
        address = _value(words[0], blocks)
        if address >= 4096:  # of a block, not of one that was refused here
            session.write(address, bytes.fromhex(words[1]))
        return
    most = session.model.layout.max_address
    numbers = [_value(word, blocks) for word in words]
    numbers = [number & most if number > most else number for number in numbers]
    result = session.call(op, *numbers, thread=int(thread))
    if op in GIVES:
        blocks.append(result)


def _value(word: str, blocks: list[int]) -> int:
    if word[0] != "#":
        return int(word)
    number, _, more = word[1:].partition("+")
    return blocks[int(number)] + int(more or 0)

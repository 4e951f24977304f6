"""A real process that makes one call at a time, and waits for the next."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from types import TracebackType

from heapglass.heap.target import Target
from heapglass.locate import locate
from heapglass.room import Room
from heapglass.targets import OpenOptions, open_target
from heapglass.targets.process import ProcessMemory, parse_maps

from .real import Runtime, _no_random


class Player:
    """The player under a real C library; calls are as in play.c."""

    def __init__(self, runtime: Runtime, tunables: dict[str, int]) -> None:
        self.runtime = runtime
        said = (f"glibc.malloc.{name}={value}" for name, value in tunables.items())
        self._process = subprocess.Popen(
            [str(runtime.program), "i"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"GLIBC_TUNABLES": ":".join(said)} if tunables else {},
            preexec_fn=_no_random,  # noqa: PLW1509 - no threads here
            bufsize=0,
        )
        self._send("0 0")
        self._descriptor = -1
        self.target: Target | None = None
        self.call(1, "u", 0)  # it has begun

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def call(self, thread: int, op: str, *arguments: int) -> list[int]:
        """Make a call; return what it answered."""
        self._send(" ".join([f"{thread:x}", op, *(f"{a:x}" for a in arguments)]))
        assert self._process.stdout is not None
        answer = b""
        while not answer.endswith(b"\n"):
            piece = self._process.stdout.read(1 << 12)
            assert piece, f"the player ended: {self._process.wait()}"
            answer += piece
        return [int(word, 16) for word in answer.split()[1:]]

    def find(self) -> Target:
        """Find the allocator, as heapglass does for a process id."""
        options = OpenOptions(debug_dirs=(str(self.runtime.debug_dir),))
        with open_target(str(self._process.pid), options) as source:
            self.target = locate(source)
        self._descriptor = os.open(f"/proc/{self._process.pid}/mem", os.O_RDONLY)
        return self.now()

    def now(self) -> Target:
        """The target as it is now; what was found before is still where it was."""
        assert self.target is not None
        with open(f"/proc/{self._process.pid}/maps", "rb") as file:
            regions = parse_maps(file.read())
        return replace(self.target, memory=ProcessMemory(self._descriptor, regions, Room()))

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()

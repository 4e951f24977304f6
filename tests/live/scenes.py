"""The wrongs of each runtime, done and asked after side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from crimes import Crime, Scene, scene
from inquiry import inquire
from programs import MissingRuntime, find_runtime
from session import SessionFailed


class Scenes:
    """What the programs of each runtime left; begun at once, a few runtimes at a time."""

    def __init__(self, runtimes: Iterable[tuple[str, str]]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
        self._done = {key: self._pool.submit(self._run, *key) for key in runtimes}

    @staticmethod
    def _run(glibc: str, arch: str) -> None:
        inquire(find_runtime(glibc, arch))

    def of(self, glibc: str, arch: str, crime: Crime) -> Scene:
        """Wait for the programs of a runtime. That they could not be run fails the test."""
        done: Future[None] = self._done[glibc, arch]
        try:
            done.result()
        except (MissingRuntime, SessionFailed) as error:
            pytest.fail(str(error), pytrace=False)
        return scene(find_runtime(glibc, arch), crime)

    def close(self) -> None:
        """Drop what is not begun yet."""
        self._pool.shutdown(wait=True, cancel_futures=True)

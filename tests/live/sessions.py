"""The sessions that the chosen tests need, run side by side."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from programs import Case, MissingRuntime, find_runtime
from session import Session, SessionFailed, run_session

Key = tuple[str, str, Case]  # glibc, arch, case


class Sessions:
    """Sessions by release and case. All are begun at once, a few run at a time."""

    def __init__(self, wanted: list[Key]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
        self._futures = {
            (g, a, c.name): self._pool.submit(self._run, g, a, c) for g, a, c in wanted
        }

    @staticmethod
    def _run(glibc: str, arch: str, case: Case) -> Session:
        return run_session(find_runtime(glibc, arch), case)

    def of(self, glibc: str, arch: str, case: Case) -> Session:
        """Wait for a session. One that could not be run fails the test: there is no skip."""
        future: Future[Session] = self._futures[glibc, arch, case.name]
        try:
            return future.result()
        except (MissingRuntime, SessionFailed) as error:
            return pytest.fail(str(error), pytrace=False)

    def close(self) -> None:
        """Drop what is not begun yet."""
        self._pool.shutdown(wait=True, cancel_futures=True)

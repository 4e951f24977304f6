"""What holds for all tests: answers count, not the clock; Ctrl-C is heard, wherever they run."""

from __future__ import annotations

import signal
from typing import Any

from hypothesis import settings

settings.register_profile("heapglass", deadline=None)
settings.load_profile("heapglass")

# A job in the background ignores SIGINT, and so would each gdb that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what `check` said of each corruption script before the call that ended the program."""
    rows = [
        row
        for report in terminalreporter.stats.get("passed", [])
        for name, rows in getattr(report, "user_properties", [])
        if name == "check_scripts"
        for row in rows
    ]
    if not rows:
        return
    names = sorted({row[1] for row in rows})
    releases = sorted({row[0] for row in rows}, key=lambda text: int(text.split(".")[1]))
    terminalreporter.section("damage that check names, and the text it predicts, before the call")
    said = {(row[0], row[1]): (row[2], row[4]) for row in rows}
    for name in names:
        texts: dict[tuple[str, str], list[str]] = {}
        for release in releases:
            if (release, name) in said:
                texts.setdefault(said[release, name], []).append(release)
        for (rule, text), having in texts.items():
            terminalreporter.write_line(f"{name}: {rule}: {text[:70]} ({', '.join(having)})")

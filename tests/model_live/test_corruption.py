"""Misuse of malloc: the model and real malloc end at the same call, with the same words.

Where a release has the check, the words are the script's; where it lacks it, whatever comes must
be the same on both sides, and if both go on, so must every byte.
"""

from __future__ import annotations

import pytest

from heapglass.glibc import messages
from heapglass.glibc.releases import parse_version

from .play import Session
from .real import ARCHES, RELEASES, runtime
from .scripts import SCRIPTS, Hand, Script


def expected(script: Script, glibc: str, arch: str) -> str | None:
    """The words with which malloc must end the script; None: this release does not check that."""
    version = parse_version(glibc)
    if f"{glibc}-{arch}" in script.elsewhere:
        return None
    if script.text.startswith("!"):
        return messages.assertion(script.text[1:], version)
    return script.text if script.text in messages.messages_of(version) else None


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("glibc", RELEASES)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.text)
def test_misuse_ends_alike(script: Script, glibc: str, arch: str) -> None:
    session = Session(runtime(glibc, arch), dict(script.tunables))
    script.run(Hand(session))
    session.look_everywhere()
    session.check()
    text = expected(script, glibc, arch)
    if text is not None:
        assert session.end == text


def test_every_message_has_a_script() -> None:
    """But for those of releases that no real library is at hand of: the recordings have them."""
    done = {script.text for script in SCRIPTS}
    versions = [parse_version(glibc) for glibc in RELEASES]
    wanted = set().union(*(messages.messages_of(version) for version in versions))
    assert wanted - done == {"malloc(): corrupted unsorted chunks 3"}  # compiled away since 2.29

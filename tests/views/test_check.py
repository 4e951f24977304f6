"""`check` and `explain`: what is said in text and in JSON, and the exit status."""

from __future__ import annotations

from heapglass.heap.target import HeapThread, Target
from heapglass.source import Stop

from ..analysis.test_check import Crowd, crowd, target_of
from .asked import answer_of, document, lines


def spilt(text: bytes = b"a string that is too long by far for it!") -> tuple[Crowd, Target]:
    """A heap in which a text runs over the header of the sixth block."""
    c = crowd()
    below = c.blocks[4]
    room = c.blocks[5] - 8 - below
    c.model.write(below, (text * 4)[: room + 6])
    return c, target_of(c.model, c.threads)


def test_a_whole_heap_is_said_to_be_whole():
    c = crowd()
    target = target_of(c.model, c.threads)

    found = document(target, "check")
    assert found["findings"] == []
    assert found["checked"]["chunks"] > 50
    assert lines(target, "check")[0].startswith("no fault was found (2 arenas, ")
    assert answer_of(target, "check").status == 0


def test_a_finding_has_its_evidence_its_cause_and_what_glibc_would_say():
    c, target = spilt()

    found = document(target, "check")
    finding = found["findings"][0]
    assert (finding["rule"], finding["severity"]) == ("size", "error")
    assert finding["address"] == hex(c.blocks[5] - 16)
    assert finding["evidence"]["words"][0]["address"] == hex(c.blocks[5] - 8)
    assert finding["evidence"]["below"]["address"] == hex(c.blocks[4] - 16)
    assert b"too long".hex() in finding["evidence"]["bytes"]["hex"]
    assert finding["glibc_abort"] in {call["says"] for call in finding["evidence"]["calls"]}
    cause = finding["cause"]
    assert (cause["kind"], cause["culprit"]) == ("overflow", hex(c.blocks[4] - 16))
    assert "6 bytes too far" in cause["text"]
    assert answer_of(target, "check").status == 1


def test_the_text_shows_the_words_and_names_the_block():
    c, target = spilt()

    said = "\n".join(lines(target, "check"))
    assert f"error  size  {c.blocks[5] - 16:#x}" in said
    assert f"cause    overflow: the block {c.blocks[4]:#x}" in said
    assert "text goes on over the end of the block: '" in said
    assert f"realloc ({c.blocks[4]:#x}, 0x270): realloc(): invalid next size" in said
    assert "too long" in said


def test_nothing_of_the_heap_reaches_the_terminal_unescaped():
    _, target = spilt(b"\x1b[31mred\x07\x9b\xff")

    said = "\n".join(lines(target, "check") + lines(target, 'explain --message "x \x1b[2J"'))
    assert not [c for c in said if ord(c) < 32 and c != "\n"]
    assert "\x9b" not in said


def test_the_rules_can_be_listed():
    c = crowd()
    said = document(target_of(c.model, c.threads), "check --rules")
    assert {"size", "twice", "tcache-key"} <= {row["rule"] for row in said["rules"]}


def test_explain_says_the_check_the_chunk_and_the_cause():
    c, target = spilt()
    mem = c.blocks[4]
    thread = target.threads[0]._replace(
        registers=(("rbx", mem), ("rbp", mem - 16)),
        stop=Stop(6, message="free(): invalid next size (fast)"),
    )
    target.threads = [thread]

    found = document(target, "explain")
    assert (found["message"], found["message_how"]) == ("free(): invalid next size (fast)", "trace")
    assert found["abort"]["function"] == "_int_free"
    assert found["chunk"] == hex(mem - 16)
    assert (found["cause"]["kind"], found["cause"]["culprit"]) == ("overflow", hex(mem - 16))
    assert found["findings"][0]["address"] == hex(c.blocks[5] - 16)
    said = lines(target, "explain")
    assert said[0] == "free(): invalid next size (fast) (trace)"
    assert said[1].startswith("    check    _int_free: the size of the next chunk")
    assert said[2].startswith(f"    chunk    {mem - 16:#x}  mem {mem:#x}")
    assert sum("cause" in line for line in said) == 1
    assert answer_of(target, "explain").status == 1


def test_a_crash_is_told_by_where_it_faulted():
    c = crowd()
    wild = 0x4242424242424240
    c.poke(c.unsorted[1], wild)
    target = target_of(c.model, c.threads)
    thread: HeapThread = target.threads[0]
    target.threads = [thread._replace(stop=Stop(11, wild + 24)), *target.threads[1:]]

    found = document(target, "explain")
    assert found["signal"] == {"number": 11, "address": hex(wild + 24), "pc": None}
    assert (found["message"], found["message_how"]) == (None, "conclusion")
    assert found["chunk"] == hex(c.unsorted[1] - 16)
    assert found["cause"]["kind"] == "use after free"
    assert f"SIGSEGV at {wild + 24:#x}, and malloc said nothing" in lines(target, "explain")


def test_where_nothing_ended_nothing_is_explained():
    c = crowd()
    target = target_of(c.model, c.threads)

    assert lines(target, "explain")[0].startswith("malloc has said nothing")
    assert document(target, "explain")["chunk"] is None
    assert answer_of(target, "explain").status == 0


def test_a_text_of_somebody_else_is_said_to_be_none_of_mallocs():
    c = crowd()
    target = target_of(c.model, c.threads)

    said = lines(target, "explain --message terminated")
    assert said[0] == "terminated (--message)"
    assert "no text of malloc's" in said[1]

"""`try`: what the model foretells on a copy, and what each call changes."""

from __future__ import annotations

import random

import pytest

from heapglass.analysis.calls import parse_calls
from heapglass.analysis.whatif import Outcome, WhatIf, where
from heapglass.arguments import evaluate
from heapglass.errors import BadRequest
from heapglass.glibc.messages import assertion
from heapglass.heap.heap import Heap
from heapglass.heap.target import Target
from heapglass.locate import locate
from tests.locate.modelled import ModelSource, Played, play

BEFORE = 2 * 8  # of mem


def target_of(played: Played, **more: bool) -> Target:
    """The process as a target; what stands for its stacks is above what mmap gives."""
    target = locate(ModelSource(played, played.allocator.layout.release, **more))
    target.pid = 1
    target.threads = [one._replace(sp=one.tp) for one in target.threads]
    return target


def tried(target: Target, text: str, thread: int | None = None) -> list[Outcome]:
    return WhatIf(Heap(target), thread).run(parse_calls(text, evaluate, []))


def told(outcome: Outcome) -> dict[int, tuple[object, object]]:
    """What a call changed: chunk to what it was and is."""
    return {
        change.address: tuple(
            seen and (seen.size, seen.bin or seen.state) for seen in (change.before, change.after)
        )
        for change in outcome.effects.chunks
    }


@pytest.mark.parametrize(
    ("abi", "glibc"),
    [
        ("x86_64", "2.23"),
        ("i386", "2.26"),
        ("arm", "2.31"),
        ("aarch64", "2.35"),
        ("ppc64le", "2.38"),
        ("s390x", "2.41"),
        ("x32", "2.42"),
        ("riscv64", "2.44"),
    ],
)
def test_it_goes_on_as_the_process_does(abi: str, glibc: str) -> None:
    probe = play(glibc, abi).allocator
    top = max(one.end for one in probe.memory.mappings() if one.name)
    played = play(glibc, abi, mmap_top=top)  # mmap goes on below the C library, as Linux does
    main, dice = played.allocator, random.Random(5)
    before = main.read(main.places.main_arena, main.layout.state.size)
    sizes = [dice.choice((30, 700, 9000, 200000)) for _ in range(30)]
    text = "malloc {0}; thread 2: calloc 1 {0}; free ${1}; memalign 256 {0}"
    calls = "; ".join(text.format(size, 4 * n + 1) for n, size in enumerate(sizes))
    foretold = [one.value for one in tried(target_of(played), calls)]

    assert main.read(main.places.main_arena, len(before)) == before  # nothing was written
    for number, size in enumerate(sizes):
        block = main.malloc(size)
        second = played.threads[1].calloc(1, size)
        main.free(block)
        third = main.memalign(256, size)
        assert foretold[4 * number : 4 * number + 4] == [block, second, None, third]


def test_a_block_of_the_tcache_comes_and_goes() -> None:
    played = play("2.36", threads=1)
    block, free = tried(target_of(played), "a = malloc 24; free a")
    chunk = block.value - BEFORE

    assert told(block) == {chunk: ((0x20, "tcache[0x20]"), (0x20, "used"))}
    assert told(free) == {chunk: ((0x20, "used"), (0x20, "tcache[0x20]"))}


def test_a_chunk_is_cut_and_comes_together_again() -> None:
    played = play("2.36", threads=1)
    big = played.allocator.malloc(0x2000)
    played.allocator.malloc(0x2000)
    played.allocator.free(big)
    chunk = big - BEFORE
    part, _, whole = tried(target_of(played), f"malloc 0x1000; malloc 0x2f00; free {big:#x}")

    assert part.value == big
    changes = told(part)
    assert changes[chunk] == ((0x2010, "unsorted"), (0x1010, "used"))
    assert changes[chunk + 0x1010] == (None, (0x1000, "unsorted"))
    cut = next(one for one in part.effects.chunks if one.address == chunk + 0x1010)
    assert cut.other == chunk
    changes = told(whole)
    assert changes[chunk] == ((0x1010, "used"), (0x2010, "unsorted"))
    gone = next(one for one in whole.effects.chunks if one.address == chunk + 0x1010)
    assert (gone.after, gone.other) == (None, chunk)


def test_top_the_break_mappings_and_parameters() -> None:
    played = play("2.36", threads=1)
    top, grown, mapped, back = tried(
        target_of(played), "malloc 50000; malloc 120000; a = malloc 200000; free a"
    )

    chunk = top.value - BEFORE
    (was, _), (size, state) = told(top)[chunk]
    assert (state, told(top)[chunk][0]) == ("used", (was, "top"))
    assert told(top)[chunk + size] == (None, (was - size, "top"))
    assert grown.effects.brk is not None
    assert grown.effects.brk[1] > grown.effects.brk[0]
    assert grown.effects.mapped == []
    ((start, end),) = mapped.effects.mapped
    assert start < mapped.value < end
    assert told(mapped) == {start: (None, (end - start, "mmapped"))}
    assert back.effects.unmapped == [(start, end)]
    settings = {one.name: (one.before, one.after) for one in back.effects.settings}
    assert settings["mp_.n_mmaps"] == (1, 0)
    assert settings["mp_.mmap_threshold"] == (0x20000, end - start)
    assert "mp_.arena_max" not in settings


def test_a_new_thread_gets_an_arena() -> None:
    played = play("2.36", threads=1)
    (block,) = tried(target_of(played), "thread new: malloc 24")

    assert block.thread < 0
    assert len(block.effects.arenas) == 1
    assert block.effects.arenas[0] & -0x4000000 == block.value & -0x4000000
    names = [one.name for one in block.effects.settings]
    assert "narenas" in names


def test_an_abort_ends_the_program() -> None:
    played = play("2.36", threads=1)
    block, game = played.allocator.malloc(24), WhatIf(Heap(target_of(played)))
    text = f"free {block:#x}; free {block:#x}; malloc 3"
    _, twice = game.run(parse_calls(text, evaluate, []))

    assert twice.abort == "free(): double free detected in tcache 2"
    assert twice.check == "free, tcache"
    assert game.ended
    assert game.run(parse_calls("malloc 3", evaluate, [])) == []


def test_what_a_write_breaks() -> None:
    played = play("2.36", threads=1)
    block = played.allocator.malloc(60000)
    size_word = block - BEFORE + played.allocator.layout.request2size(60000) + 8
    outcomes = tried(target_of(played), f"write {size_word:#x} ffffffffffff0f; malloc 0x20000")

    assert [one.abort for one in outcomes] == [None, "malloc(): corrupted top size"]
    last = tried(target_of(played), "malloc 0x9000000000000000; free 0x123456789abc0")
    assert last[0].value == 0
    assert last[1].fault == "cannot read 8 bytes at 0x123456789abb8"


def test_up_to_2_26_malloc_may_go_on() -> None:
    played = play("2.24", threads=1)
    block = played.allocator.malloc(24)
    _, first, second = tried(
        target_of(played), f"mallopt M_CHECK_ACTION 1; free {block + 8:#x}; malloc 24"
    )

    assert first.printed == ["free(): invalid pointer"]
    assert second.value is not None


def test_the_thread_that_calls() -> None:
    played = play("2.36")
    target = target_of(played)
    own, other = tried(target, "malloc 24; thread 2: malloc 24")
    (second,) = tried(target, "malloc 24", 2)

    assert (own.thread, other.thread, second.thread) == (1, 2, 2)
    assert own.value != other.value == second.value
    with pytest.raises(BadRequest, match="no thread 9"):
        tried(target, "malloc 24", 9)
    with pytest.raises(BadRequest, match="no thread '3'"):
        tried(target, "thread 3: malloc 24")
    target.threads = [one._replace(number=one.id + 10) for one in target.threads]
    assert tried(target, "thread 12: malloc 24")[0].thread == 2
    assert tried(target, "malloc 24", 12)[0].thread == 2


def test_what_is_not_known_is_said() -> None:
    played = play("2.36", threads=1)
    played.allocator.free(played.allocator.malloc(24))
    target = target_of(played)
    target.threads = [
        one._replace(tcache=None, tcache_state="unknown", sp=None) for one in target.threads
    ]
    game = WhatIf(Heap(target))
    said = " ".join(game.warnings)

    assert "the tcache of thread 1 was not found" in said
    assert "tcache_key was not found" in said
    assert "global_max_fast was not found" in said
    assert "which mapping is the stack is not known" in said
    first, second = game.run(parse_calls("a = malloc 24; free a", evaluate, []))
    assert told(second)[first.value - BEFORE] == ((0x20, "used"), (0x20, "tcache[0x20]"))


def test_a_disabled_tcache_stays_so() -> None:
    played = play("2.43", threads=1, tunables={"tcache_count": 0})
    target = target_of(played)
    target.threads = [one._replace(tcache_state="disabled") for one in target.threads]
    block, free = tried(target, "a = malloc 24; free a")

    assert block.value == played.allocator.malloc(24)
    assert told(free)[block.value - BEFORE][1][1] != "tcache[0x20]"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("malloc(): corrupted top size", "malloc, top"),
        (assertion("old_top", (2, 36)), "sysmalloc"),
        ("something else", None),
    ],
)
def test_where_a_text_comes_from(text: str, place: str | None) -> None:
    assert where(text) == place

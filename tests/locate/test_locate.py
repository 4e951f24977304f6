"""Finding the allocator: what is believed, what is refused, and what is then said."""

from __future__ import annotations

import pytest

from heapglass.errors import NotFound, UnsupportedGlibc
from heapglass.heap.heap import Heap
from heapglass.heap.target import HeapThread
from heapglass.locate import Overrides, locate
from heapglass.memory import ByteMemory, Region
from heapglass.source import Machine, Symbol, Thread

from ..heap.made import ARENA, BASE, MP, MadeHeap
from .fake_source import FakeSource

LIBC = "/lib/libc.so.6"
TP = 0xF7001000
BLOCK = TP - 0x80
TCACHE_OFFSET, ARENA_OFFSET = 0x48, 0x58


def symbol(name: str, value: int, tls: bool = False) -> Symbol:
    return Symbol(name, value, 8, "symbol", LIBC, tls)


SYMBOLS = [
    symbol("main_arena", ARENA),
    symbol("mp_", MP),
    symbol("tcache", TCACHE_OFFSET, tls=True),
    symbol("thread_arena", ARENA_OFFSET, tls=True),
]


def process(version: tuple[int, int] = (2, 36)) -> MadeHeap:
    """Return a heap with a tcache, and a thread control block with a DTV that leads to it."""
    made = MadeHeap([0x291, 0x21], version=version, extra=[Region(0xF7000000, 0xF7003000)])
    dtv = 0xF7000100
    made.set_word(TP, TP)
    made.set_word(TP + 8, dtv)
    made.set_word(TP + 16, TP)
    made.memory.write(TP + 0x2D0, (7).to_bytes(4, "little"))
    made.set_word(dtv - 16, 2)  # two modules
    made.set_word(dtv + 16, 0xF7000800)  # the program's block: nothing of malloc in it
    made.set_word(dtv + 32, BLOCK)
    made.set_word(0xF7000800 + ARENA_OFFSET, 0x1234)
    made.set_word(BLOCK + TCACHE_OFFSET, made.chunks[0] + 0x10)
    made.set_word(BLOCK + ARENA_OFFSET, ARENA)
    return made


def test_everything_is_found_by_symbols_and_the_thread_pointer():
    made = process()

    target = locate(FakeSource(made.memory, SYMBOLS, [Thread(7, tp=TP)]))

    assert target.main_arena is not None
    assert target.mp is not None
    assert (target.main_arena.address, target.main_arena.how) == (ARENA, "symbol")
    assert (target.mp.address, target.mp.how) == (MP, "symbol")
    assert target.layout.release == "2.36"
    assert "Debian GLIBC 2.36-9+deb12u14" in target.glibc_how
    (thread,) = target.threads
    assert (thread.tcache, thread.tcache_how, thread.arena) == (BASE + 0x10, "symbol", ARENA)
    assert target.missing == []
    assert target.warnings == []
    assert len(target.main_arena.checks) >= 4


def test_what_a_program_calls_like_a_variable_of_mallocs_is_not_taken():
    made = process()
    own = Symbol("tcache_key", BASE, 8, "symbol", "/bin/program")

    target = locate(FakeSource(made.memory, [*SYMBOLS, own], [Thread(7, tp=TP)]))
    assert "tcache_key" not in target.names

    both = [*SYMBOLS, own, symbol("tcache_key", MP)]
    target = locate(FakeSource(made.memory, both, [Thread(7, tp=TP)]))
    assert target.names["tcache_key"].address == MP


def test_a_thread_pointer_that_no_register_gives_is_found_by_structure():
    made = process()

    target = locate(FakeSource(made.memory, SYMBOLS, [Thread(7)]))

    (thread,) = target.threads
    assert thread.tp == TP
    assert thread.tcache == BASE + 0x10


ARM64 = Machine("aarch64", 8, "little")


def arm_process() -> MadeHeap:
    """Return a heap with a struct pthread in front of the thread pointer, as aarch64 has it."""
    made = process()
    made.memory.write(TP, bytes(0x300))
    made.set_word(TP, 0xF7000100)  # the DTV
    made.set_word(0xF7000100 + 32, TP + 0x10)
    made.set_word(TP + 0x10 + TCACHE_OFFSET, made.chunks[0] + 0x10)
    made.set_word(TP + 0x10 + ARENA_OFFSET, ARENA)
    robust_head = TP - 0x740 + 0xE0
    made.set_word(robust_head, robust_head)
    made.memory.write(robust_head - 16, (7).to_bytes(4, "little"))
    return made


def arm_thread(made: MadeHeap) -> HeapThread:
    target = locate(FakeSource(made.memory, SYMBOLS, [Thread(7)], machine=ARM64))
    (thread,) = target.threads
    return thread


def test_on_arm_a_thread_pointer_is_found_behind_the_list_of_robust_mutexes():
    thread = arm_thread(arm_process())

    assert (thread.tp, thread.tcache, thread.arena) == (TP, BASE + 0x10, ARENA)


def test_on_arm_a_word_in_front_of_the_thread_pointer_is_not_taken_for_it():
    made = arm_process()
    made.set_word(TP - 0x40, 0xF7000100)  # the DTV's address once more, farther from its block
    made.set_word(TP - 0x80, 0xF7002000)  # would be a DTV without blocks
    made.set_word(0xF7000100 + 16, 2**64 - 1)  # a block that was not made yet

    assert arm_thread(made).tp == TP


@pytest.mark.parametrize(
    ("address", "value"),
    [
        (TP, 0x10),  # no DTV can be read
        (0xF7000100, 2**60),  # a generation that nobody reaches
        (0xF7000100 + 32, 0xF7000010),  # its blocks are not behind the thread pointer
        (TP - 0x740 + 0xE0, 0xF7000000),  # holds a robust mutex
        (TP - 0x740 + 0xD0, 8),  # is another thread's
    ],
)
def test_on_arm_what_is_no_thread_gives_no_thread_pointer(address: int, value: int):
    made = arm_process()
    made.set_word(0xF7000100 + 16, 0)
    made.set_word(address, value)

    assert arm_thread(made).tp is None


def test_without_a_tcache_in_the_block_the_thread_is_not_known():
    made = process()
    made.set_word(BLOCK + ARENA_OFFSET, 0x41414141)

    target = locate(FakeSource(made.memory, SYMBOLS, [Thread(7, tp=TP)]))

    (thread,) = target.threads
    assert (thread.tcache, thread.tcache_state) == (None, "unknown")


def test_a_block_whose_thread_arena_is_no_arena_is_not_libcs():
    made = process()
    made.set_word(0xF7000100 - 16, 1)  # one module only: what is there would be all there is
    made.set_word(0xF7000100 + 16, BLOCK)
    made.set_word(BLOCK + ARENA_OFFSET, 0x41414140)

    target = locate(FakeSource(made.memory, SYMBOLS, [Thread(7, tp=TP)]))

    assert target.threads[0].tcache_state == "unknown"


def test_a_lone_main_thread_may_have_no_id_in_its_control_block():
    """Before 2.34 a program without libpthread never writes it."""
    made = process()
    made.memory.write(TP + 0x2D0, bytes(4))

    target = locate(FakeSource(made.memory, SYMBOLS, [Thread(7)]))

    assert target.threads[0].tp == TP


def test_two_threads_without_ids_are_not_told_apart():
    made = process()
    made.memory.write(TP + 0x2D0, bytes(4))

    target = locate(FakeSource(made.memory, SYMBOLS, [Thread(7), Thread(8)]))

    assert [thread.tp for thread in target.threads] == [None, None]


def test_no_symbol_is_said_with_what_to_do():
    made = process()

    target = locate(FakeSource(made.memory, [], [Thread(7, tp=TP)]))

    assert target.main_arena is None
    with pytest.raises(NotFound, match="main_arena was not found") as caught:
        assert Heap(target).arenas
    assert "--main-arena" in caught.value.hint
    assert "libc6-dbg" in caught.value.hint


def test_a_symbol_that_does_not_hold_up_is_not_believed():
    made = process()
    wrong = [symbol("main_arena", ARENA + 8), *SYMBOLS[1:]]

    target = locate(FakeSource(made.memory, wrong, [Thread(7, tp=TP)]))

    assert target.main_arena is None
    assert any(f"the symbol says {ARENA + 8:#x}, but" in text for text in target.missing)


def test_what_the_user_says_is_taken_and_checked():
    made = process()
    said = Overrides(main_arena=ARENA + 16, mp=MP, tcaches={7: BASE + 0x20})

    target = locate(FakeSource(made.memory, [], [Thread(7)]), said)

    assert target.main_arena is not None
    assert (target.main_arena.address, target.main_arena.how) == (ARENA + 16, "user")
    assert any(f"main_arena {ARENA + 16:#x} was given, but" in text for text in target.warnings)
    assert any("tcache" in text and "was given, but" in text for text in target.warnings)
    assert target.threads[0].tcache == BASE + 0x20


def test_right_overrides_are_enough():
    made = process()
    said = Overrides(glibc="2.36", main_arena=ARENA, mp=MP, tcaches={7: BASE + 0x10})

    target = locate(FakeSource(made.memory, [], [Thread(7)], banner=None), said)

    assert target.warnings == []
    assert target.glibc_how == "user"
    assert [chunk.state for chunk in Heap(target).every_chunk()] == ["used", "used", "top"]


def test_an_override_for_a_thread_that_is_not_there_is_said():
    made = process()

    target = locate(FakeSource(made.memory, SYMBOLS, [Thread(7, tp=TP)]), Overrides(tcaches={9: 1}))

    assert "no thread 9 to give a tcache to" in target.warnings


def test_a_release_outside_of_the_tables_is_refused_by_name():
    made = process()
    banner = b"GNU C Library (GNU libc) stable release version 2.99.\n"

    with pytest.raises(UnsupportedGlibc, match=r"2\.99") as caught:
        locate(FakeSource(made.memory, SYMBOLS, banner=banner))
    assert "--glibc" in caught.value.hint


def test_the_release_may_be_in_the_file_name_of_an_old_libc():
    made = process((2, 31))

    source = FakeSource(made.memory, SYMBOLS, banner=None, libc="/lib/libc-2.31.so")

    assert locate(source).layout.release == "2.31"


def test_a_release_that_nothing_names_is_told_by_structure():
    """What memory shows fits several releases: which, and that none is known, is said."""
    made = process((2, 36))

    target = locate(FakeSource(made.memory, SYMBOLS, banner=None))

    assert target.release is None
    assert (2, 36) in target.releases
    assert (2, 25) not in target.releases
    assert target.glibc_how.startswith("by structure: malloc_state")
    assert target.layout.version in target.releases


def test_nothing_of_glibc_is_said_with_what_to_do():
    memory = ByteMemory({ARENA: bytes(0x1000)})

    with pytest.raises(NotFound, match="no glibc heap here") as caught:
        locate(FakeSource(memory, (), banner=None))
    assert "--glibc" in caught.value.hint


def test_an_arena_of_another_layout_is_recognised():
    """A 2.26 branch has the arena of 2.27; memory beats the version number."""
    made = MadeHeap([0x251, 0x21], version=(2, 27))
    banner = b"GNU C Library (Ubuntu GLIBC 2.26-0ubuntu2.1) stable release version 2.26.\n"

    target = locate(FakeSource(made.memory, SYMBOLS, banner=banner))

    assert target.main_arena is not None
    assert target.layout.release == "2.26"
    assert target.layout.state.size == 0x898
    assert any("has not the layout of 2.26" in text for text in target.warnings)


def test_an_arena_that_was_never_used_is_believed():
    layout = MadeHeap([0x21]).layout
    memory = ByteMemory({MP: bytes(0x88), ARENA: bytes(layout.state.size)})
    for name, value in (("next", ARENA), ("attached_threads", 1)):
        memory.write(ARENA + layout.state.offset(name), value.to_bytes(8, "little"))

    target = locate(FakeSource(memory, SYMBOLS))

    assert target.main_arena is not None
    assert list(Heap(target).every_chunk()) == []


def test_zeros_are_no_arena():
    layout = MadeHeap([0x21]).layout
    memory = ByteMemory({ARENA: bytes(layout.state.size)})

    target = locate(FakeSource(memory, SYMBOLS))

    assert target.main_arena is None


def test_a_machine_without_a_table_is_refused():
    made = process()

    with pytest.raises(UnsupportedGlibc, match="sparc"):
        locate(FakeSource(made.memory, SYMBOLS, machine=Machine("sparc", 4, "big")))

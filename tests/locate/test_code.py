"""malloc's statics by the code that uses them: hand-assembled code, as gcc makes it."""

from __future__ import annotations

import struct

import pytest

from heapglass.glibc.layout import layout_for
from heapglass.heap.target import Target
from heapglass.locate.code import find_by_code
from heapglass.locate.libraries import Library
from heapglass.memory import ByteMemory, Region
from heapglass.source import Module, Part

from ..heap.made import ARENA, MP, MadeHeap

TEXT, HEAP = 0xF7C00000, 0xF7800000
DATA = MP & -4096
GOT = DATA + 0x10
MAX_FAST, PERTURB, KEY, NEXT_TO_USE, CURBRK = (ARENA + 0x8A0 + 8 * n for n in range(5))
NARENAS = MP - 0x18


class Code:
    """Instructions one behind the other, for one of the two machines."""

    def __init__(self, word: int) -> None:
        self.word = word
        self.text = b""

    def use(self, prefix: bytes, opcode: bytes, register: int, to: int, value: bytes = b"") -> None:
        """An instruction with a ModRM byte that names an address in the library's data."""
        modrm = bytes([register << 3 | (0x05 if self.word == 8 else 0x83)])  # (%rip), or (%ebx)
        end = TEXT + len(self.text) + len(prefix + opcode) + 5 + len(value)
        distance = to - end if self.word == 8 else to - GOT
        self.text += prefix + opcode + modrm + struct.pack("<i", distance) + value

    def get_pc(self) -> None:
        """Call for the own address and add the distance to the table that i386 counts from."""
        here = TEXT + len(self.text) + 5
        self.text += b"\xe8\x00\x00\x00\x00\x81\xc3" + struct.pack("<i", GOT - here)


def wide(word: int) -> bytes:
    return b"\x48" if word == 8 else b""


def malloc_o(word: int) -> Code:
    """What tells the variables apart, among uses of main_arena and mp_."""
    code = Code(word)
    rex = wide(word)
    for _ in range(4):
        code.get_pc() if word == 4 else None
        code.use(rex, b"\x8d", 0, ARENA)  # lea
        code.use(rex, b"\x8b", 1, MP)
    default = 128 if word == 8 else 64
    code.use(rex, b"\xc7", 0, MAX_FAST, struct.pack("<i", default))
    code.use(rex, b"\x39", 0, MAX_FAST)
    for _ in range(3):
        code.use(b"", b"\x8b", 0, PERTURB)
    code.use(b"", b"\x89", 0, PERTURB)
    for variable in (KEY, NEXT_TO_USE, CURBRK):
        code.use(rex, b"\x8d", 7, variable)
        code.use(rex, b"\x8b", 0, variable)
        code.use(rex, b"\x8b", 2, variable)
    code.use(b"\xf0" + rex + b"\x0f", b"\xb1", 1, NARENAS)  # lock cmpxchg
    code.use(rex, b"\x8d", 0, ARENA)
    return code


def read(code: Code) -> tuple[Target, Library]:
    word = code.word
    made = MadeHeap([0x21], version=(2, 36), word=word)
    pieces = {HEAP: bytes(0x1000), TEXT: bytes(0x1000), DATA: bytes(0x3000)}
    whole = ByteMemory(pieces, [Region(at, at + len(data)) for at, data in pieces.items()])
    whole.write(ARENA, made.memory.read(ARENA, made.layout.state.size))
    whole.write(TEXT, code.text)
    layout = made.layout
    more = (PERTURB, 0xA5), (CURBRK, HEAP + 0x1000)
    for address, value in ((NARENAS, 1), (KEY, 0x5EC8E7), (NEXT_TO_USE, ARENA), *more):
        whole.write(address, value.to_bytes(word, "little"))
    target = Target(whole, layout, made.target.main_arena, made.target.mp)
    parts = (
        Part("load", TEXT, TEXT + 0x1000, "r-x"),
        Part("load", DATA, DATA + 0x3000, "rw-"),
    )
    module = Module("/libc.so.6", 0, "", "", "")
    return target, Library(module, parts, ((DATA, DATA + 0x3000),), True)


ALL = {
    "global_max_fast": MAX_FAST,
    "perturb_byte": PERTURB,
    "tcache_key": KEY,
    "narenas": NARENAS,
}


@pytest.mark.parametrize("word", [8, 4])
def test_each_variable_is_told_by_what_is_done_with_it(word: int):
    target, library = read(malloc_o(word))

    found = find_by_code(target, library, {})

    assert {name: place.address for name, place in found.items()} == ALL
    assert {place.how for place in found.values()} == {"scan"}
    assert all("instructions of malloc's code" in place.checks[0] for place in found.values())


@pytest.mark.parametrize("word", [8, 4])
def test_what_is_known_already_is_not_looked_for(word: int):
    target, library = read(malloc_o(word))
    known = find_by_code(target, library, {})

    assert find_by_code(target, library, known) == {}
    del known["narenas"]
    assert list(find_by_code(target, library, known)) == ["narenas"]


def test_two_that_fit_are_both_refused():
    code = malloc_o(8)
    for _ in range(3):
        code.use(b"", b"\x8b", 0, PERTURB + 0x20)
    code.use(b"", b"\x89", 0, PERTURB + 0x20)
    code.use(b"\x48", b"\x8d", 0, ARENA)
    target, library = read(code)

    assert "perturb_byte" not in find_by_code(target, library, {})


def test_a_value_that_it_cannot_have_speaks_against_it():
    target, library = read(malloc_o(8))
    memory = target.memory
    assert isinstance(memory, ByteMemory)
    memory.write(PERTURB, (0x1234).to_bytes(4, "little"))
    memory.write(NARENAS, (3).to_bytes(8, "little"))
    memory.write(KEY, bytes(8))

    assert set(find_by_code(target, library, {})) == {"global_max_fast"}


def test_code_that_cannot_be_read_tells_nothing():
    target, library = read(malloc_o(8))
    gone = library._replace(parts=(Part("load", 0x1000, 0x2000, "r-x"),))

    assert find_by_code(target, gone, {}) == {}


def test_cut_instructions_and_noise_do_no_harm():
    code = malloc_o(8)
    for size in range(0, len(code.text), 3):
        cut = Code(8)
        cut.text = code.text[:size]
        target, library = read(cut)
        find_by_code(target, library, {})
    noise = Code(4)
    noise.text = bytes(range(256)) * 15
    target, library = read(noise)
    assert find_by_code(target, library, {}) == {}


def test_other_machines_code_is_not_read():
    target, library = read(malloc_o(8))
    layout = layout_for((2, 36), 8, abi="aarch64")

    other = Target(target.memory, layout, target.main_arena, target.mp)

    assert find_by_code(other, library, {}) == {}

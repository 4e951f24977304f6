"""Threads, their thread pointers, and damaged notes."""

from __future__ import annotations

from pathlib import Path

import pytest

from heapglass.source import Stop, Thread
from heapglass.targets.elf import read_header, read_notes

from .build import MACHINES, NT_386_TLS, NT_ARM_TLS, NT_FILE, Core, Load, open_bytes

SP, TP = 0x7654_3210, 0x7777_1110
# number of the register that is the stack pointer, the thread pointer; count of registers
PLACES = {
    "x86_64": (19, 21, 27),
    "x32": (19, 21, 27),
    "riscv64": (2, 4, 32),
    "ppc64le": (1, 13, 48),
    "ppc64": (1, 13, 48),
}


def made(abi: str) -> Core:
    return Core(abi, loads=[Load(0x10000, bytes(64))])


def registers(core: Core, count: int, values: dict[int, int], size: int = 8) -> bytes:
    order = MACHINES[core.abi][2]
    return b"".join(values.get(n, 0).to_bytes(size, order) for n in range(count))  # type: ignore[arg-type]


def test_general_registers_have_names(tmp_path: Path) -> None:
    for abi, count, size, some in (
        ("x86_64", 27, 8, {"r15": 0, "rbp": 4, "rax": 10, "rdi": 14}),
        ("i386", 17, 4, {"ebx": 0, "ebp": 5, "eax": 6}),
        ("aarch64", 34, 8, {"x0": 0, "x30": 30}),
        ("riscv64", 32, 8, {"t0": 5, "s0": 8, "a0": 10, "a7": 17, "s2": 18, "t3": 28, "t6": 31}),
        ("s390x", 27, 8, {"r0": 2, "r15": 17}),
    ):
        core = made(abi)
        core.notes = core.status(5, registers(core, count, {n: n + 1 for n in range(count)}, size))
        with open_bytes(core.build(), tmp_path) as source:
            found = dict(source.threads()[0].registers)
            assert {name: found[name] - 1 for name in some} == some


@pytest.mark.parametrize("abi", sorted(PLACES))
def test_the_thread_pointer_is_a_register(abi: str, tmp_path: Path) -> None:
    sp, tp, count = PLACES[abi]
    core = made(abi)
    core.notes = core.status(20, registers(core, count, {sp: SP, tp: TP}))
    core.notes += core.psinfo(10) + core.status(10, registers(core, count, {sp: SP + 16}))
    with open_bytes(core.build(), tmp_path) as source:
        first, second = source.threads()
        assert (first.id, first.tp, first.sp) == (10, None, SP + 16)
        assert (second.id, second.tp, second.sp) == (20, TP, SP)
        assert source.pid == 10
        assert source.warnings == []


def test_i386_has_it_in_the_descriptor_that_gs_selects(tmp_path: Path) -> None:
    core = made("i386")
    tls = core.pack("IIII", 11, 0xBAD, 0, 0) + core.pack("IIII", 12, TP, 0xFFFFF, 0x51)
    values = {10: 12 << 3 | 3, 15: SP}
    core.notes = core.status(5, registers(core, 17, values, 4))
    core.notes += core.note(NT_386_TLS, tls, b"LINUX\0")
    core.notes += core.status(6, registers(core, 17, values, 4))
    with open_bytes(core.build(), tmp_path) as source:
        assert [(t.id, t.tp, t.sp) for t in source.threads()] == [(5, TP, SP), (6, None, SP)]


@pytest.mark.parametrize(
    ("abi", "sp", "count", "size"), [("aarch64", 31, 34, 8), ("arm", 13, 18, 4)]
)
def test_arm_has_it_in_a_note(abi: str, sp: int, count: int, size: int, tmp_path: Path) -> None:
    core = made(abi)
    core.notes = core.status(5, registers(core, count, {sp: SP}, size))
    core.notes += core.note(NT_ARM_TLS, core.pack("W", TP), b"LINUX\0")
    with open_bytes(core.build(), tmp_path) as source:
        assert [(t.id, t.tp, t.sp) for t in source.threads()] == [(5, TP, SP)]


@pytest.mark.parametrize(
    ("desc", "known"), [((0x7FFF3).to_bytes(8, "little"), 0x7FFF3), (b"", None)]
)
def test_aarch64_says_what_a_thread_asked_about_tags(
    desc: bytes, known: int | None, tmp_path: Path
) -> None:
    core = made("aarch64")
    for number in (5, 6):
        core.notes += core.status(number, registers(core, 34, {31: SP}, 8))
    core.notes += core.note(0x409, desc, b"LINUX\0")
    with open_bytes(core.build(), tmp_path) as source:
        assert [thread.tag_ctl for thread in source.threads()] == [None, known]


def test_s390x_has_it_in_two_access_registers(tmp_path: Path) -> None:
    core = made("s390x")
    values = registers(core, 18, {17: SP}) + core.pack("II", 0x3FF, TP) + bytes(64)
    core.notes = core.status(5, values)
    with open_bytes(core.build(), tmp_path) as source:
        assert [(t.id, t.tp, t.sp) for t in source.threads()] == [(5, 0x3FF << 32 | TP, SP)]


def test_an_unknown_machine_has_threads_without_registers(tmp_path: Path) -> None:
    core = made("ppc")
    core.notes = core.status(5, bytes(200))
    with open_bytes(core.build(), tmp_path) as source:
        assert list(source.threads()) == [Thread(5, stop=Stop())]


@pytest.mark.parametrize(("number", "abi"), [(0xABCD, "machine-43981"), (8, "mips")])
def test_a_machine_without_a_name_here_has_elfs_name_or_number(number: int, abi: str) -> None:
    data = bytearray(made("x86_64").build())
    data[18:20] = number.to_bytes(2, "little")
    assert read_header(bytes(data)).machine.abi == abi


def test_threads_that_repeat_or_have_no_id_are_left_out_and_said(tmp_path: Path) -> None:
    core = made("x86_64")
    core.notes = core.status(5, bytes(216)) * 2 + core.note(1, b"short")
    with open_bytes(core.build(), tmp_path) as source:
        assert [t.id for t in source.threads()] == [5]
        assert "2 of 3 NT_PRSTATUS notes" in source.warnings[0]


def test_registers_that_are_cut_off_are_not_known(tmp_path: Path) -> None:
    core = made("x86_64")
    core.notes = core.note(1, bytes(32) + core.pack("I", 9) + bytes(100))
    with open_bytes(core.build(), tmp_path) as source:
        (only,) = source.threads()
        assert (only.id, only.tp, only.sp) == (9, None, None)
        assert [name for name, _ in only.registers] == ["r15", "r14", "r13"]


def test_notes_of_others_are_not_taken_for_the_kernels(tmp_path: Path) -> None:
    core = made("x86_64")
    core.notes = core.note(1, b"\1" * 400, b"FreeBSD\0") + core.note(6, b"\1" * 16, b"GNU\0")
    with open_bytes(core.build(), tmp_path) as source:
        assert list(source.threads()) == []
        assert source.auxv() == {}


@pytest.mark.parametrize(
    "desc",
    [b"", b"1234", b"\xff" * 16, (3).to_bytes(8, "little") + (4096).to_bytes(8, "little") + b"abc"],
)
def test_a_damaged_list_of_files_is_not_used_and_said(desc: bytes, tmp_path: Path) -> None:
    core = made("x86_64")
    core.notes = core.status(5, bytes(216)) + core.note(NT_FILE, desc)
    with open_bytes(core.build(), tmp_path) as source:
        assert "NT_FILE) is damaged" in source.warnings[0]
        assert len(source.memory.regions()) == 1


def test_names_that_are_missing_from_the_list_are_said(tmp_path: Path) -> None:
    core = made("x86_64")
    rows = [(0x1000, 0x2000, 0, "/a"), (0x4000, 0x3000, 0, "/backwards"), (0x5000, 0x6000, 0, "")]
    core.notes = core.status(5, bytes(216)) + core.files(*rows)
    with open_bytes(core.build(), tmp_path) as source:
        assert [r.path for r in source.memory.regions()] == ["/a", ""]
        assert "has 3 entries, 1 are whole" in source.warnings[0]


def test_notes_end_where_their_bytes_end() -> None:
    core = made("x86_64")
    whole = core.note(1, b"12345") + core.note(2, b"67")
    for length in range(len(whole)):
        found = list(read_notes(memoryview(whole)[:length], "<"))
        assert len(found) == (length >= 25) + (length >= len(whole) - 2)
        assert all(bytes(note.desc) in (b"12345", b"67") for note in found)


def test_notes_of_eight_byte_segments_are_aligned_to_eight() -> None:
    core = made("x86_64")
    first = core.pack("III", 4, 4, 5) + b"GNU\0" + b"abcd" + bytes(4)
    found = list(read_notes(memoryview(first + core.pack("III", 4, 1, 3) + b"GNU\0x"), "<", 8))
    assert [(n.type, bytes(n.desc)) for n in found] == [(5, b"abcd"), (3, b"x")]


def test_the_number_of_notes_is_bounded() -> None:
    data = memoryview(bytes(12 * 100))
    assert len(list(read_notes(data, "<", most=10))) == 10

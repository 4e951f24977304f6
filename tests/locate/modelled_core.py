"""ELF cores, made by hand, of processes that the model has made."""

from __future__ import annotations

from heapglass.targets.notes import GS_OF_I386, REGISTERS
from tests.locate.modelled import AT_PAGESZ, Played
from tests.targets.build import NT_386_TLS, NT_ARM_TLS, Core, Load

WORDS = 48  # registers in NT_PRSTATUS, at least as many as any port has
ACCESS = 18 * 8  # s390x: where the access registers are
SELECTOR = 6 << 3 | 3


def core_of(played: Played) -> bytes:
    """Return a core as the kernel of that machine would write it, whole, with no file named."""
    allocator = played.allocator
    core = Core(allocator.layout.abi)
    core.notes = core.auxv((AT_PAGESZ, allocator.machine.kernel.page_size)) + core.psinfo(1)
    for thread in played.threads:
        core.notes += _thread(core, thread.number, thread.tp)
    memory = allocator.memory
    core.loads = [
        Load(r.start, bytes(memory.view(r.start, r.end)), perms=r.perms)
        for r in memory.regions()
        if r.perms != "---"
    ]
    return core.build()


def _thread(core: Core, number: int, tp: int) -> bytes:
    order = "little" if core.prefix == "<" else "big"
    known = REGISTERS[core.abi]
    registers = bytearray(WORDS * known.size)
    if known.tp is not None:
        at = known.tp * known.size
        registers[at : at + known.size] = tp.to_bytes(known.size, order)
    elif core.abi == "s390x":
        registers[ACCESS : ACCESS + 8] = tp.to_bytes(8, order)
    elif core.abi == "i386":
        registers[4 * GS_OF_I386 : 4 * GS_OF_I386 + 4] = SELECTOR.to_bytes(4, order)
    status = core.status(number, bytes(registers))
    if core.abi == "i386":
        descriptor = core.pack("IIII", SELECTOR >> 3, tp, 0xFFFFF, 0)
        return status + core.note(NT_386_TLS, descriptor, b"LINUX\0")
    if known.tp is None and core.abi != "s390x":
        return status + core.note(NT_ARM_TLS, core.pack("W", tp), b"LINUX\0")
    return status

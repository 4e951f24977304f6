"""One script, played by the model and by real malloc, and what both answered."""

from __future__ import annotations

from dataclasses import dataclass, field

from heapglass.errors import MallocAbort, MemoryFault
from heapglass.model import Allocator
from heapglass.model.allocator import Thread

from .real import DTV, KEY, Runtime

MOST_SEEN = 3 << 20  # bytes of one mapping that are compared
GIVES = "mcrvVaAp"  # operations that return a block
TAKES = "fru"  # operations whose first argument is one


@dataclass
class Step:
    """A call: the line for the player, and the model's answer to it."""

    line: str
    answer: str


@dataclass
class Session:
    """The model's side of a script, and the same script for the player."""

    runtime: Runtime
    tunables: dict[str, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    end: str = ""  # the abort's text, or "fault"
    log: list[str] = field(default_factory=list)  # the same, for a file: see script_file

    def __post_init__(self) -> None:
        self.process = self.runtime.process(self.tunables)
        self.model: Allocator = self.runtime.allocator(self.tunables)
        self.threads: dict[int, Thread] = {1: self.model}
        self.dtvs: dict[int, int] = {}
        self.names: dict[int, str] = {}  # blocks as the log calls them
        self.given = 0  # how many calls returned a block, or could have

    def call(self, op: str, *arguments: int, thread: int = 1) -> int:
        """Let the model make a call; return its pointer, 0 for others. Nothing after an end."""
        if self.end:
            return 0
        words = " ".join(f"{a:x}" if a >= 0 else f"-{-a:x}" for a in arguments)
        step = Step(f"{thread:x} {op} {words}", "")
        self.steps.append(step)
        self._note(op, arguments, thread)
        try:
            numbers = self._run(op, arguments, thread)
        except MallocAbort as error:
            self.end = str(error)
            return 0
        except MemoryFault:
            self.end = "fault"
            return 0
        if op != "I":
            step.answer = "=" + "".join(f" {number:x}" for number in numbers)
        if op in GIVES:
            if numbers[0]:
                self.names[numbers[0]] = f"#{self.given}"
            self.given += 1
        return numbers[0] if numbers else 0

    def _note(self, op: str, arguments: tuple[int, ...], thread: int) -> None:
        words = [str(argument) for argument in arguments]
        if op in TAKES:
            words[0] = self._name(arguments[0])
        self.log.append(" ".join([str(thread), op, *words]))

    def _name(self, address: int) -> str:
        """How the log calls an address: a block, or a place in the one below."""
        if address in self.names or not self.names:
            return self.names.get(address, str(address))
        block = max((b for b in self.names if b <= address), default=address)
        if not address or address == block:
            return str(address)
        return f"{self.names[block]}+{address - block}"

    def _run(self, op: str, arguments: tuple[int, ...], number: int) -> list[int]:
        a, b = (*arguments, 0, 0)[:2]
        model = self.model
        if op == "n":
            return self._begin(number)
        if op == "x":
            return self._finish(number)
        run = self.threads[number]
        if op == "p":
            error, mem = run.posix_memalign(a, b)
            return [mem, error]
        if op in "aA":
            mem = run.memalign(a, b) if op == "a" else run.aligned_alloc(a, b)
            return [mem, 0]
        if op == "i":
            return [value & 0xFFFFFFFF for value in run.mallinfo2()]
        if op == "I":
            return self._info(run)
        if op in "fLB":
            self._quiet(op, run, a)
            return []
        if op == "s":
            was = model.kernel.sbrk(a)
            return [model.layout.max_address if was is None else was]
        simple = {
            "m": lambda: run.malloc(a),
            "c": lambda: run.calloc(a, b),
            "r": lambda: run.realloc(a, b),
            "v": lambda: run.valloc(a),
            "V": lambda: run.pvalloc(a),
            "u": lambda: run.malloc_usable_size(a),
            "t": lambda: run.malloc_trim(a),
            "o": lambda: run.mallopt(a, b),
        }
        return [simple[op]()]

    def _info(self, run: Thread) -> list[int]:
        """malloc_info: its lines follow the first answer."""
        first, *more = run.malloc_info().splitlines()
        self.steps[-1].answer = "=" + first
        self.steps += [Step("", line) for line in [*more, ""]]
        return []

    def _quiet(self, op: str, run: Thread, a: int) -> None:
        kernel = self.model.kernel
        if op == "f":
            run.free(a)
        elif op == "L":
            kernel.failing_mmaps = -1 if a else 0
            kernel.brk_blocked = bool(a)
        elif a:
            wall = kernel.page_up(kernel.brk)
            self.model.memory.map(wall, wall + 4096, "---", "wall")
        else:
            wall = next(m.start for m in self.model.memory.mappings() if m.name == "wall")
            self.model.memory.unmap(wall, wall + 4096)

    def _begin(self, number: int) -> list[int]:
        self.threads[number] = self.model.thread()
        self.dtvs[number] = dtv = self.model.calloc(DTV, self.model.layout.header)
        if dtv:
            self.model.write(dtv, self.runtime.dtv(number))
        return []

    def _finish(self, number: int) -> list[int]:
        self.threads.pop(number).exit()
        self.model.free(self.dtvs.pop(number))
        return []

    def write(self, address: int, data: bytes) -> None:
        """Write as the program."""
        if not self.end and data:
            self.steps.append(Step(f"1 w {address:x} {data.hex()}", "="))
            self.log.append(f"1 w {self._name(address)} {data.hex()}")
            self.model.write(address, data)

    def look(self, address: int, size: int) -> None:
        """Compare memory at this point."""
        if not self.end and size > 0:
            data = self.model.read(address, size).hex()
            self.steps.append(Step(f"1 D {address:x} {size:x}", f"= {data}"))

    def look_everywhere(self) -> None:
        """Compare main_arena, mp_, the main heap, every other heap, every mmapped chunk."""
        machine = self.model.machine
        layout, process = machine.layout, self.process
        if not self.end:
            self.log.append("look")
        self.look(machine.main, layout.state.size)
        self.look_at_params()
        for mapping in list(self.model.memory.mappings()):
            theirs = mapping.perms == "rw-" and mapping.name in ("[heap]", "")
            if theirs and mapping.start < process.mmap_top:
                start = max(mapping.start, process.brk if mapping.name else 0)
                self.look(start, min(mapping.end - start, MOST_SEEN))

    def look_at_params(self) -> None:
        """Compare mp_, which stands elsewhere in the model."""
        layout, machine = self.model.layout, self.model.machine
        size = layout.structs["malloc_par"].size
        data = self.model.read(machine.places.mp, size).hex()
        if self.end:
            return
        at = self.process.symbols["mp_"]
        self.steps.append(Step(f"1 D {at:x} {size:x}", f"= {data}"))

    # --- the real side ------------------------------------------------------------------------

    def script(self) -> str:
        """The lines for the player."""
        key = self.process.symbols.get("tcache_key", 0)
        word = KEY & ((1 << 8 * self.model.layout.word) - 1)
        lines = [f"{key:x} {word:x}", *(step.line for step in self.steps if step.line)]
        return "\n".join(lines) + "\n"

    def check(self) -> int:
        """Play it for real; fail where an answer differs. Return how many calls were compared."""
        done = self.runtime.run(self.script(), tunables=self.tunables)
        answers = done.stdout.decode().splitlines()
        tell = f"{self.runtime.glibc} {self.runtime.arch} {self.tunables}: "
        for number, (step, got) in enumerate(zip(self.steps, answers)):
            if got != step.answer and not (self.end and step is self.steps[-1]):
                raise AssertionError(tell + self._explain(number, step, got))
        said = done.stderr.decode(errors="replace")
        if self.end:
            answers = answers[: len(answers) - self.steps[-1].line.endswith("I ")]  # a torn line
            assert len(answers) == len(self.steps) - 1, (tell, self.steps[-1], self.end, said)
            if self.end == "fault":
                assert done.returncode in (-11, -7), (tell, done.returncode, said)
            else:
                assert done.returncode == -6, (tell, self.end, done.returncode, said)
                assert self.end in said, (tell, self.end, said)
        else:
            assert len(answers) == len(self.steps), (tell, len(answers), self._at(answers), said)
            assert done.returncode == 0, (tell, done.returncode, said)
        return len(self.steps)

    def _at(self, answers: list[str]) -> str:
        return self.steps[len(answers)].line[:200]

    def _explain(self, number: int, step: Step, got: str) -> str:
        if " D " not in step.line:
            before = "; ".join(s.line[:60] for s in self.steps[max(0, number - 12) : number])
            return f"step {number}: {step.line}: model {step.answer}, real {got}; before: {before}"
        start = int(step.line.split()[2], 16)
        ours, real = bytes.fromhex(step.answer[2:]), bytes.fromhex(got[2:])
        word = self.model.layout.word
        diff = [i for i in range(0, len(ours), word) if ours[i : i + word] != real[i : i + word]]
        shown = [
            f"{start + i:#x}: model {ours[i : i + word][::-1].hex()} "
            f"real {real[i : i + word][::-1].hex()}"
            for i in diff[:8]
        ]
        return f"step {number}: {len(diff)} words from {start:#x} differ: {shown}"

"""A process read through /proc, while it runs."""

from __future__ import annotations

import builtins
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heapglass.cli import main
from heapglass.errors import BadTarget, MemoryFault
from heapglass.memory import Region
from heapglass.room import Room
from heapglass.targets import OpenOptions, ProcessSource, open_target
from heapglass.targets.process import PIECE, RUNNING, parse_maps

Process = subprocess.Popen[bytes]
PROGRAM = """
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static char marked[] = "marked by the test";
static void *wait_for_the_end(void *barrier) {
    pthread_barrier_wait(barrier);
    getchar();
    return 0;
}
int main(void) {
    pthread_barrier_t barrier;
    pthread_t thread;
    char *large = malloc(40 << 20);
    memset(large, 'L', 40 << 20);
    pthread_barrier_init(&barrier, 0, 2);
    pthread_create(&thread, 0, wait_for_the_end, &barrier);
    pthread_barrier_wait(&barrier);
    printf("%p %p\\n", (void *)marked, (void *)large);
    fflush(stdout);
    pthread_join(thread, 0);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("process")
    (folder / "program.c").write_text(PROGRAM)
    made = folder / "program"
    command = ("gcc", "-g", "-pthread", "-o", str(made), str(folder / "program.c"))
    subprocess.run(command, check=True)
    return made


@pytest.fixture
def started(program: Path) -> Iterator[tuple[Process, int, int]]:
    """A process that waits, and the addresses of its marked string and its large block."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        marked, large = (int(word, 16) for word in process.stdout.readline().split())
        yield process, marked, large
        process.kill()


def opened(process: Process, options: OpenOptions | None = None) -> ProcessSource:
    source = open_target(str(process.pid), options)
    assert isinstance(source, ProcessSource)
    return source


def test_memory_threads_and_words_of_a_process(started: tuple[Process, int, int]) -> None:
    process, marked, large = started
    with opened(process) as source:
        assert (source.kind, source.pid) == ("process", process.pid)
        assert source.name == f"process {process.pid}"
        assert source.memory.read(marked, 18) == b"marked by the test"
        assert bytes(source.memory.view(marked, marked + 6)) == b"marked"
        assert source.memory.view(large, large + (40 << 20)) == b"L" * (40 << 20)
        assert source.memory.read(large, PIECE + 1) == b"L" * (PIECE + 1)
        threads = source.threads()
        assert [t.id for t in threads] == sorted(t.id for t in threads)
        assert len(threads) == 2
        assert threads[0].id == process.pid
        assert all(t.tp is None for t in threads)
        stacks = [
            r for t in threads for r in source.memory.regions() if r.start <= (t.sp or 0) < r.end
        ]
        assert len(stacks) == 2
        assert source.warnings == [RUNNING]


def test_symbols_and_modules_of_a_process(started: tuple[Process, int, int], program: Path) -> None:
    process, marked, _ = started
    with opened(process) as source:
        assert [s.value for s in source.symbols("marked")] == [marked]
        paths = [module.path for module in source.modules()]
        assert paths[0] == str(program)
        assert any("/libc.so.6" in path or "/libc-2" in path for path in paths)
        libc = next(m for m in source.modules() if "/libc" in m.path)
        assert libc.file == f"/proc/{process.pid}/root{libc.path}"
        assert source.file_bytes(libc, b"GNU C Library (", 15) == b"GNU C Library ("
        assert source.auxv()[6] == os.sysconf("SC_PAGESIZE")


def test_a_program_that_was_deleted_is_still_read(program: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o755)
    with subprocess.Popen([copy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        marked = int(process.stdout.readline().split()[0], 16)
        copy.unlink()
        with opened(process) as source:
            assert [s.value for s in source.symbols("marked")] == [marked]
        process.kill()


def test_a_library_that_was_replaced_is_read_as_it_was(program: Path, tmp_path: Path) -> None:
    code, library = tmp_path / "code.c", tmp_path / "library.so"
    gcc = ("gcc", "-shared", "-fPIC", "-Wl,--build-id", "-o", str(library), str(code))
    code.write_text("int preloaded = 5;\n")
    subprocess.run(gcc, check=True)
    with subprocess.Popen(
        [program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "LD_PRELOAD": str(library)},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        code.write_text("char other[100] = {1}; int preloaded = 6;\n")
        library.unlink()
        subprocess.run(gcc, check=True)
        with opened(process) as source:
            (symbol,) = source.symbols("preloaded")
            assert source.memory.read(symbol.value, 4) == (5).to_bytes(4, "little")
            module = next(m for m in source.modules() if m.path.startswith(str(library)))
            assert module.file.startswith(f"/proc/{process.pid}/map_files/")
            assert source.warnings == [RUNNING]
        process.kill()


def test_what_is_not_mapped_is_a_fault(started: tuple[Process, int, int]) -> None:
    process, _, large = started
    with opened(process) as source:
        memory, regions = source.memory, source.memory.regions()
        gap = next(a.end for a, b in zip(regions, regions[1:]) if a.end < b.start)
        for address, size in (
            (0, 8),
            (-8, 8),
            (gap, 1),
            (1 << 63, 8),
            (1 << 70, 8),
            (large, -1),
            (large, 1 << 60),
            (large, 1 << 40),
        ):
            with pytest.raises(MemoryFault):
                memory.read(address, size)
            with pytest.raises(MemoryFault):
                memory.view(address, address + size)
        with pytest.raises(MemoryFault, match="more than the process has mapped"):
            memory.view(large, large + (1 << 46))
        with pytest.raises(MemoryFault) as caught:
            memory.view(gap - 4096, gap + 4096)
        assert caught.value.address == gap


def test_a_process_that_is_stopped_has_no_warning(started: tuple[Process, int, int]) -> None:
    process, _, _ = started
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    with opened(process) as source:
        assert source.warnings == []


def test_a_process_that_ends_meanwhile(started: tuple[Process, int, int]) -> None:
    process, marked, _ = started
    with opened(process) as source:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(MemoryFault):
            source.memory.read(marked, 8)
        with pytest.raises(MemoryFault, match="the process is gone"):
            source.memory.view(marked, marked + 8)
        process.wait()
        with pytest.raises(BadTarget, match="there is no such process"):
            source.threads()


def test_a_zombie_has_no_memory(started: tuple[Process, int, int]) -> None:
    process, _, _ = started
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(BadTarget, match="zombie"):
        opened(process)


def test_nothing_is_opened_for_writing(
    started: tuple[Process, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, _, _ = started
    flags: list[int] = []
    modes: list[str] = []
    true_os_open, true_open = os.open, builtins.open

    def os_open(path: Any, flag: int, *rest: Any, **named: Any) -> int:
        flags.append(flag)
        return true_os_open(path, flag, *rest, **named)

    def plain_open(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        modes.append(mode)
        return true_open(path, mode, *rest, **named)

    monkeypatch.setattr(os, "open", os_open)
    monkeypatch.setattr(builtins, "open", plain_open)
    with opened(process) as source:
        source.symbols("marked")
        source.threads()
    assert flags
    assert modes
    assert not any(flag & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) for flag in flags)
    assert set(modes) == {"rb"}


def test_a_heap_over_the_limit_is_worked_through_in_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(__file__).resolve().parents[2] / "fixtures" / "programs" / "many.c"
    program, files = tmp_path / "many", []
    subprocess.run(["gcc", "-o", program, source], check=True)
    in_file = Room._in_file

    def counted(room: Room, size: int) -> memoryview:
        files.append(size)
        return in_file(room, size)

    monkeypatch.setattr(Room, "_in_file", counted)
    with subprocess.Popen([program, "wait"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        said = []
        for limit in ("100000000", "5000000", "0"):
            for words in (["chunks", "--all"], ["check"], ["leaks"]):
                command = [words[0], str(process.pid), *words[1:], "--json"]
                assert main([*command, "--memory-limit", limit]) in (0, 1)
                said.append(capsys.readouterr().out)
                assert bool(files) == (words == ["leaks"] and limit != "100000000")
                files.clear()
        process.kill()
    assert said[:3] == said[3:6] == said[6:]
    assert len(json.loads(said[0])["chunks"]) > 8000


@pytest.mark.parametrize("file", ["exe", "maps", "auxv", "mem"])
def test_permission_denied_says_what_to_do(
    file: str, started: tuple[Process, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, _, _ = started
    true_os_open, true_open = os.open, builtins.open

    def check(path: Any) -> None:
        if str(path) == f"/proc/{process.pid}/{file}":
            raise PermissionError(13, "Permission denied")

    def os_open(path: Any, *rest: Any, **named: Any) -> int:
        check(path)
        return true_os_open(path, *rest, **named)

    def plain_open(path: Any, *rest: Any, **named: Any) -> Any:
        check(path)
        return true_open(path, *rest, **named)

    monkeypatch.setattr(os, "open", os_open)
    monkeypatch.setattr(builtins, "open", plain_open)
    with pytest.raises(BadTarget, match="permission denied") as caught:
        opened(process)
    assert "ptrace_scope" in caught.value.hint


def test_maps_as_the_kernel_writes_them() -> None:
    text = (
        b"00400000-00401000 r-xp 00002000 fe:01 12                 /a b (deleted)\n"
        b"7ffc0000-7ffd0000 rw-s 00000000 00:00 0                          [stack]\n"
        b"7ffe0000-7ffe1000 ---p 00000000 00:00 0 \n"
        b"7fff0000-7fff1000 r--p 00000000 00:00 9 /x\\012y\xff\n"
        b"nonsense\n\n"
    )
    assert parse_maps(text) == [
        Region(0x400000, 0x401000, "r-x", "/a b (deleted)", 0x2000),
        Region(0x7FFC0000, 0x7FFD0000, "rw-", "[stack]", 0),
        Region(0x7FFE0000, 0x7FFE1000, "---", "", 0),
        Region(0x7FFF0000, 0x7FFF1000, "r--", "/x\ny\udcff", 0),
    ]


# --- the same process, as a core -------------------------------------------------------------


def test_a_core_of_gdb_has_what_the_process_has(
    started: tuple[Process, int, int], tmp_path: Path
) -> None:
    process, _, large = started
    core = tmp_path / "core"
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    gdb = ("gdb", "-nx", "-batch", "-ex", f"gcore {core}", "-p", str(process.pid))
    subprocess.run(gdb, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with opened(process) as live, open_target(str(core)) as dead:
        assert dead.machine == live.machine
        assert dead.pid == live.pid
        assert [t.id for t in dead.threads()] == [t.id for t in live.threads()]
        assert all(t.tp and t.sp for t in dead.threads())
        assert dead.auxv() == live.auxv()
        for name in ("marked", "malloc", "main"):
            assert [s.value for s in dead.symbols(name)] == [s.value for s in live.symbols(name)]
        assert [m.base for m in dead.modules()] == [
            m.base for m in live.modules() if m.path != "[vdso]"
        ]
        assert dead.memory.view(large, large + (40 << 20)) == b"L" * (40 << 20)
        compared = 0
        for region in live.memory.regions():
            if region.perms[0] == "r" and not region.path.startswith(("[vvar", "[vsyscall")):
                ours = dead.memory.view(region.start, region.end)
                assert ours == live.memory.view(region.start, region.end), region
                compared += region.size
        assert compared > 40 << 20

"""COMMANDS: every command once, for gdb, the shell, help, completion and the docs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .table import Answer
from .views import views

Evaluate = Callable[[str], int]


@dataclass(frozen=True)
class Argument:
    """A positional (no dashes in *name*) or an option of a command.

    *kind*: "address" and "number" go through the door's evaluator (decimal, 0x hex; in gdb any
    expression), "text" is kept, "flag" is there or not, "rest" is the list of all words behind
    `--`. *choices* restricts "text".
    """

    name: str
    help: str
    kind: str = "text"
    required: bool = False
    choices: tuple[str, ...] = ()
    metavar: str = ""
    many: bool = False  # an option that may be repeated


@dataclass(frozen=True)
class Command:
    """A command: its name, arguments, view and help."""

    name: str
    summary: str  # one line
    view: Callable[..., Answer]
    arguments: tuple[Argument, ...] = ()
    help: str = ""  # more than the line, plain text
    examples: tuple[str, ...] = ()  # as typed behind `heap`
    needs_target: bool = True
    door: str = ""  # "gdb" or "shell", if it is served there only


def ask(command: Command, target: Any, request: Any) -> Answer:
    """Return what a command answers; *target* is None if it needs none.

    Addresses lose the tag that a pointer may have in bits that the machine ignores.
    """
    for argument in command.arguments:
        name = argument.name.lstrip("-").replace("-", "_")
        if target is not None and argument.kind == "address" and getattr(request, name) is not None:
            setattr(request, name, getattr(request, name) & target.layout.address_mask)
    return command.view(target, request)


_ARENA = Argument("--arena", "only the arena with this address", "address")
_THREAD = Argument("--thread", "only the thread with this kernel id", "number")
_STATES = "used, free, tcache, fast, top, mmapped, fencepost, corrupt, unknown"
_TABLES = "chunks, bins, arenas, edges, roots, findings"
_ADDRESS = "a chunk, what the program got of it (mem), or any address inside"

_TRACE = ("start", "stop", "stop-on")

COMMANDS: tuple[Command, ...] = (
    Command(
        "info",
        "the release of glibc, where the allocator's variables are, and how each was found",
        views.info,
        help="Every find has a method (symbol, dwarf, dynsym, scan, user) and the checks that it "
        "passed, and what was not taken instead. Where nothing names the release, it is told by "
        "structure: version is then null, and possible has those that fit. What is missing is "
        "named with what to do about it.",
        arguments=(
            Argument(
                "--why",
                "also versions, files and layout: a page for a bug report. Nothing in it is "
                "contents of memory, but addresses and paths are shown",
                "flag",
            ),
        ),
        examples=("info", "info --why"),
    ),
    Command(
        "arenas",
        "every arena: threads, heaps, top, system memory, totals by state",
        views.arenas,
        help="Arenas come in the order of the ring: main_arena first, then the newest.",
        examples=("arenas",),
    ),
    Command(
        "heaps",
        "every heap_info segment and the pieces of the main heap",
        views.heaps,
        help="A thread's arena has heaps of up to HEAP_MAX_SIZE. The main heap is one piece until "
        "somebody else uses sbrk, or sbrk fails and mmap serves.",
        examples=("heaps",),
    ),
    Command(
        "chunks",
        "every chunk in address order, filtered",
        views.chunks,
        (
            Argument("start", "first address of a range; any address in a chunk", "address"),
            Argument("end", "last address of the range", "address"),
            _ARENA,
            Argument("--state", f"only these states, by comma: {_STATES}"),
            Argument("--bin", "only chunks in this bin: tcache[0x20], unsorted, small, …"),
            Argument("--min", "smallest chunk size", "number"),
            Argument("--max", "largest chunk size", "number"),
            Argument("--from", "from this address on", "address"),
            Argument("--to", "up to this address", "address"),
            Argument("--where", "an expression, such as 'size > 0x100 and state == \"used\"'"),
            Argument("--sort", "the order", choices=("address", "-address", "size", "-size")),
            Argument("--top", "only the N largest", "number", metavar="N"),
            Argument("--count", "N chunks from START on", "number", metavar="N"),
            Argument("--back", "and N chunks before START", "number", metavar="N"),
            Argument("--as-chunk", "read START as a chunk, though nothing proves it", "flag"),
        ),
        help="A state is what the lists and the flags prove; what they do not is ?. Totals of all "
        "that matched come last. In --where the names are address, user, size, usable, flags, "
        "state, bin, arena, thread, owner.",
        examples=(
            "chunks",
            "chunks --state free --min 0x400",
            "chunks 0x555555559290 --count 8 --back 2",
            "chunks --top 10",
            "chunks --where 'size > 0x100 and state == \"used\"'",
        ),
    ),
    Command(
        "chunk",
        "one chunk in detail, its neighbours, its bin",
        views.chunk,
        (
            Argument("address", _ADDRESS, "address", required=True),
            Argument("--as-chunk", "read ADDRESS as a chunk, though nothing proves it", "flag"),
            Argument("--trace", "who allocated and freed it, by this trace", metavar="FILE"),
        ),
        help="While gdb records the calls (heap trace), it says without --trace where a chunk came "
        "from.",
        examples=("chunk 0x5555555592a0", "chunk 0x5555555592a0 --as-chunk"),
    ),
    Command(
        "bins",
        "tcache, fast, unsorted, small and large bins of every arena and thread",
        views.bins,
        (
            Argument("kind", "tcache, fast, unsorted, small or large"),
            _ARENA,
            _THREAD,
        ),
        help="Chunks come in the order in which malloc meets them: from the head for tcache and "
        "fast bins, along fd for the others. A list that stops making sense is shown as far as "
        "it goes, from both ends, and what is wrong is said. --all shows empty bins as well.",
        examples=("bins", "bins tcache", "bins --all"),
    ),
    Command(
        "tcache",
        "each thread's tcache: pointer, counts or free slots, entries",
        views.tcache,
        (_THREAD,),
        help="Since 2.42 the struct counts free slots down; since 2.43 it is made late, and until "
        "then the pointer leads to a read-only dummy (state none).",
        examples=("tcache",),
    ),
    Command(
        "params",
        "the allocator's parameters: mp_ with the tunables in force, and constants",
        views.params,
        examples=("params",),
    ),
    Command(
        "mmapped",
        "chunks that have a mapping of their own",
        views.mmapped,
        help="They are in no list: they are found from the mappings and checked against "
        "mp_.n_mmaps and mp_.mmapped_mem.",
        examples=("mmapped",),
    ),
    Command(
        "find",
        "where a value, string or pointer stands, by chunk",
        views.find,
        (
            Argument("value", "a number, looked for as a word", "number"),
            Argument("--string", "a text"),
            Argument("--hex", "bytes, as 'de ad be ef'"),
            Argument("--into", "any pointer into the chunk of this address", "address"),
            Argument("--size", "bytes of VALUE: 1, 2, 4, 8", "number"),
            Argument("--unaligned", "VALUE may stand anywhere", "flag"),
        ),
        examples=("find 0xdeadbeef", "find --string password", "find --into 0x5555555592a0"),
    ),
    Command(
        "whatis",
        "all that is known of an address",
        views.whatis,
        (Argument("address", "any address", "address", required=True),),
        help="Mapping, thread, arena, variable, chunk, offset in it, bin and place in the list.",
        examples=("whatis 0x5555555592a8",),
    ),
    Command(
        "size",
        "a request's chunk size, usable bytes, and every bin it can be in",
        views.size,
        (
            Argument("request", "bytes that a program asks for", "number", required=True),
            Argument("--glibc", "a release, 2.23 to 2.44 (else the target's, or this machine's)"),
            Argument("--abi", "x86_64, i386, aarch64, arm, riscv64, ppc64le, s390x, x32"),
        ),
        examples=("size 24", "size 1033 --glibc 2.42 --abi i386"),
        needs_target=False,
    ),
    Command(
        "link",
        "a protected (safe-linked) word revealed or made",
        views.link,
        (
            Argument("address", "where the word stands: mem of a tcache or fast chunk", "address"),
            Argument("--word", "the word itself; without an address its page is guessed", "number"),
            Argument("--make", "the word that stands for this pointer at ADDRESS", "number"),
        ),
        help="Since 2.32 tcache `next` and fastbin `fd` are stored as (position >> 12) ^ pointer.",
        examples=("link 0x5555555592a0", "link --word 0x55500000c7f9"),
    ),
    Command(
        "stats",
        "sizes, histogram, fragmentation, what malloc_info would print",
        views.stats,
        (Argument("--malloc-info", "the XML that malloc_info (0, …) would print now", "flag"),),
        examples=("stats", "stats --malloc-info"),
    ),
    Command(
        "map",
        "the segments drawn to scale: used, cached, free, and what malloc_trim would give back",
        views.map_,
        (
            _ARENA,
            Argument("--columns", "cells in a line (64)", "number", metavar="N"),
            Argument("--svg", "write a picture to FILE", metavar="FILE"),
            Argument("--png", "write a picture to FILE", metavar="FILE"),
        ),
        help="A cell is a power of two of bytes, drawn by what fills most of it; anything in use "
        "shows. A page that a few bytes in use keep is pinned: free as the rest may be, it stays "
        "with the process.",
        examples=("map", "map --columns 128 --svg heap.svg"),
    ),
    Command(
        "check",
        "whether the heap can be true: every rule, what is broken, and the likeliest cause",
        views.check,
        (Argument("--rules", "the rules, each in a line", "flag"),),
        help="Every integrity rule that this glibc enforces, applied to the whole heap at rest, "
        "and those that it never checks: the walk against the lists, feet, flags, rings, order, "
        "counters, keys, links, totals. A finding has the words and what lies around them, the "
        "likeliest cause with what speaks for it, and what glibc would say at which call: the "
        "model plays the likely calls on a copy. A wrong size costs one stretch, which is named. "
        "The exit status is 1 if something was found.",
        examples=("check", "check --json"),
    ),
    Command(
        "explain",
        "why the program ended in malloc: which check failed, on which chunk, and why",
        views.explain,
        (Argument("--message", "what the program printed, where the target does not say it"),),
        help="At an abort, or in its core, without symbols. What malloc said (__abort_msg) names a "
        "check of a function; the chunk is one that the dying thread has in a register or on its "
        "stack and for which that check fails, else one of a list or of what is damaged. Then the "
        "likeliest cause, and what check finds around it. Also after a SIGSEGV in malloc: a "
        "damaged word that leads to where it faulted. The exit status is 1 if a fault was found.",
        examples=("explain", "explain --message 'free(): invalid pointer'"),
    ),
    Command(
        "leaks",
        "blocks in use that nothing leads to",
        views.leaks,
        (
            Argument(
                "--interior",
                "pointers that count: to anywhere in a block (any), or to its start (start)",
                choices=("any", "start"),
            ),
            Argument(
                "--content",
                "how much of a block's bytes is shown: its start, none or full",
                choices=("start", "none", "full"),
            ),
            Argument(
                "--suppress",
                "rules in LeakSanitizer's form, leak:PATTERN a line: what is not told of",
                metavar="FILE",
            ),
            Argument("--fail", "the exit status is 1 if something is leaked", "flag"),
        ),
        help="Registers and stacks of all threads (from the stack pointer on) and all writable "
        "memory that is no heap are searched for words that point into blocks, and so on from "
        "block to block. A pointer counts if it leads to [mem, mem + usable); the allocator's own "
        "pointers do not. What is not reached is leaked: unreferenced if no other leaked block "
        "points to it, the rest hangs off those or is a cycle. An old word may keep a block alive "
        "that nobody uses any more. Pointers that are stored mangled (by setjmp, atexit) count as "
        "well, where the key (the pointer guard) is found. In the shell the registers of a running "
        "process are not known: a core has them.",
        examples=(
            "leaks",
            "leaks --interior start",
            "leaks --suppress known-leaks --fail",
            "leaks --content none --json",
        ),
    ),
    Command(
        "refs",
        "who points to a chunk: registers, stacks, variables, chunks",
        views.refs,
        (
            Argument("address", _ADDRESS, "address", required=True),
            Argument("--path", "a shortest chain of pointers from a root to it", "flag"),
            Argument("--tree", "what lives by it alone: free it, and so much can go", "flag"),
            Argument("--depth", "of the tree (3)", "number", metavar="N"),
        ),
        help="Every word that leads to [mem, mem + usable), also in chunks that are free: these "
        "are what was left behind. Where nothing does, pointers that are stored mangled (setjmp, "
        "atexit) are looked for. For --path and --tree a pointer to anywhere in a block counts; "
        "a block of the tree lives by the one above it: every way from a root goes through that.",
        examples=("refs 0x5555555592a0", "refs 0x5555555592a0 --path --tree --depth 2"),
    ),
    Command(
        "export",
        "the heap as tables in files: Parquet, JSON Lines or CSV",
        views.export,
        (
            Argument("-o", "the folder for the files; it is made", metavar="DIR"),
            Argument(
                "--as",
                "the kind of files: parquet (it needs pyarrow), jsonl or csv",
                choices=("parquet", "jsonl", "csv"),
            ),
            Argument("--only", f"only these tables, by comma: {_TABLES}"),
        ),
        help="chunks: all of them. bins: the chunks of each list in its order. arenas. edges: the "
        "references between blocks in use. roots: those from registers, stacks and variables. "
        "findings: what check finds. "
        "docs/export.md has the columns, and questions asked of the files in DuckDB.",
        examples=("export -o tables", "export -o tables --as csv --only chunks,bins"),
    ),
    Command(
        "types",
        "what fills the heap, by type: C++ classes, containers, text",
        views.types,
        (
            Argument("type", "only the blocks of this type, each by itself"),
            Argument(
                "--as",
                "print blocks as a type of the program's debug information (in gdb)",
                metavar="TYPE",
            ),
        ),
        help="A class is told by its table of virtual functions (its symbol, else the name in its "
        "RTTI); buffers of vectors, strings, deques and hash tables by the words that hold them, "
        "where the request that these mean is one of the chunk's size; nodes of maps and lists by "
        "neighbours that lead back (libstdc++'s layouts); text, zeros and pointers by the bytes; "
        "CPython's objects by ob_type. The rest comes by size. --as takes the blocks of that "
        "type, or else those of its size that nothing tells.",
        examples=("types", "types 'Shape<int>'", "types --as 'struct node'"),
    ),
    Command(
        "vis",
        "memory drawn chunk by chunk",
        views.vis,
        (
            Argument("address", f"where to begin: {_ADDRESS}", "address"),
            Argument("count", "how many chunks", "number"),
        ),
        help="Each chunk is a frame with its words, two a line; repeats are folded (--all: not).",
        examples=("vis", "vis 0x555555559290 4"),
    ),
    Command(
        "try",
        "what calls of malloc would do from here; the process is not touched",
        views.try_,
        (
            Argument(
                "ops", "calls, apart by ';', such as 'free 0x…; a = malloc 0x80'", required=True
            ),
            Argument("--then", "more calls, from there on", metavar="OPS", many=True),
            Argument("--thread", "the thread that calls: its kernel id, or gdb's number", "number"),
        ),
        help="The allocator model goes on from the heap as it is, on a copy: each call's result, "
        "or the abort with the check that fired, and the chunks that it cut, merged or moved, "
        "tops, mappings, the break and fields of mp_. Calls: malloc, calloc, realloc, memalign, "
        "aligned_alloc, posix_memalign, valloc, pvalloc, free, malloc_usable_size, write ADDR "
        "HEX, malloc_trim, mallopt, also with their arguments in brackets: free(p->next). A "
        "result has a number, $1, $2, and a name if it is given one; a + 8 is 8 bytes behind "
        "it. 'thread 7: malloc 8' is a call of thread 7 (an id, gdb's number, or new); else the "
        "thread is the one that gdb has selected, or the first. What malloc would need and is "
        "not known is said.",
        examples=(
            "try 'malloc 24'",
            "try 'free 0x5555555592a0; a = malloc 0x80; write a+8 41414141' --then 'free a'",
            "try 'free 0x5555555592a0; free 0x5555555592a0'",
        ),
    ),
    Command(
        "snapshot",
        "keeps the heap as it is now, for diff: under a name in gdb, or in a file",
        views.snapshot,
        (
            Argument("name", "what it is called, in gdb; without one those that there are"),
            Argument("-o", "write it to FILE", metavar="FILE"),
            Argument(
                "--contents",
                "what the blocks hold: whole, or a checksum of each (default: whole up to 64 MiB)",
                choices=("full", "sums"),
            ),
        ),
        help="All chunks with their sizes, states and bins. With contents as a whole diff tells "
        "the bytes that changed, with checksums the blocks. docs/snapshot.md has the file's "
        "format.",
        examples=("snapshot before", "snapshot -o before.snap --contents sums"),
    ),
    Command(
        "diff",
        "what two snapshots, cores or processes of one program differ in",
        views.diff,
        (
            Argument("a", "a snapshot's name or file, a core, or a process id", required=True),
            Argument("b", "another; in gdb without one the heap as it is (now)"),
        ),
        help="By chunk: new, gone, resized, freed, taken (out of a bin), moved (to another bin or "
        "state), and written: what a block in use holds changed, which bytes if both contents "
        "are at hand. Totals of both, and the sizes of which there are more or fewer in use, "
        "the largest growth first. Two cores of one process, or of runs without random "
        "addresses.",
        examples=("diff before", "diff before.snap core --limit 20"),
        needs_target=False,
    ),
    Command(
        "verify",
        "the model beside the memory: a trace played, or two readings of one heap",
        views.verify,
        (Argument("trace", "a trace of this process from its beginning; may be compressed"),),
        help="With a trace the model makes its calls, and what it then has is compared with the "
        "memory, chunk by chunk and bin by bin: headers, feet and links of free chunks, lists "
        "in their order, tcaches, arenas, fields of mp_. What the program wrote is not "
        "compared, nor are the keys of cached blocks. Without one, the model reads this "
        "memory and is compared with the reader, which shares no code with it: bins, "
        "malloc_info, mallinfo2. The exit status is 1 if something differs; the first "
        "difference is shown from both sides.",
        examples=("verify", "verify calls.jsonl"),
    ),
    Command(
        "replay",
        "a trace of malloc calls, played by the model and compared",
        views.replay_trace,
        (
            Argument("trace", "a trace file, .jsonl, may be compressed", required=True),
            Argument("--keep-going", "list all differences, not only the first", "flag"),
            Argument("--image", "write the main heap's bytes to FILE", metavar="FILE"),
        ),
        help="Each recorded pointer, abort and crash is compared with the model's. The exit status "
        "is 1 if one differs.",
        examples=("replay calls.jsonl", "replay calls.jsonl.xz --keep-going --json"),
        needs_target=False,
    ),
    Command(
        "trace",
        "records the malloc calls of the process as a trace (in gdb)",
        views.trace_elsewhere,
        (
            Argument("action", "what to do; nothing: how it is", choices=_TRACE),
            Argument("what", "the file to start; the kind to stop on", metavar="FILE|KIND"),
            Argument("value", "N of size, ADDR of write", metavar="N|ADDR"),
            Argument("--stacks", "keep so many callers of each call", "number", metavar="N"),
            Argument("--stop-on", "double-free, non-chunk or size=N", metavar="KIND", many=True),
        ),
        help="Breakpoints at malloc and behind each call, of gdb's own; the process is not "
        "written to, and needs no symbols. Started before the process (or at its first "
        "instruction) it records from the first call on, and lets threads through one by one; "
        "started later, the model cannot replay it from its start. stop-on stops at a double "
        "free, at a free of what malloc did not give (non-chunk), at a request (size N), or when "
        "the word behind a block is written (write ADDR, by a hardware watchpoint); off: at none. "
        "A call costs a millisecond or less: heapglass record is for long runs.",
        examples=(
            "trace start calls.jsonl --stacks 4",
            "trace stop-on double-free",
            "trace stop-on write p",
            "trace stop",
        ),
        needs_target=False,
        door="gdb",
    ),
    Command(
        "record",
        "runs a program and records its malloc calls as a trace (in the shell)",
        views.record_program,
        (
            Argument("-o", "the trace; .gz, .xz, .zst are packed", metavar="FILE"),
            Argument("--children", "also the processes that it starts: FILE-PID", "flag"),
            Argument("--convert", "no program: the trace of a recording kept", metavar="RAW"),
            Argument("program", "behind --: the program and its words", "rest"),
        ),
        help="A library is preloaded that writes down every call in the order in which they took "
        "effect, at a tenth of a microsecond each; addresses stay what they would be. What was "
        "running when the process aborted or crashed is recorded as that. Static and set-uid "
        "programs and other allocators are not seen. HEAPGLASS_RECORD=BASE with the library in "
        "LD_PRELOAD records without this command, into BASE.PID: --convert makes the trace.",
        examples=("record -o calls.jsonl.xz -- ./program --its options",),
        needs_target=False,
        door="shell",
    ),
)

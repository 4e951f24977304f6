"""Does what GEF and its forks do when they are loaded: a prefix `heap` with commands under it."""

import gdb


class Heap(gdb.Command):
    """Another extension's heap."""

    def __init__(self):
        super().__init__("heap", gdb.COMMAND_SUPPORT, prefix=True)

    def invoke(self, line, from_tty):
        gdb.write("the other extension's heap\n")


class HeapChunks(gdb.Command):
    """Another extension's chunks."""

    def __init__(self):
        super().__init__("heap chunks", gdb.COMMAND_SUPPORT)

    def invoke(self, line, from_tty):
        gdb.write("the other extension's chunks\n")


Heap()
HeapChunks()

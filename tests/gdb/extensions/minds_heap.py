"""Does what pwndbg does when it is loaded: refuses if a command of its name is in `help all`."""

import gdb


class Heap(gdb.Command):
    """Another extension's heap, a command without others under it."""

    def __init__(self):
        super().__init__("heap", gdb.COMMAND_USER)

    def invoke(self, line, from_tty):
        gdb.write("the other extension's heap\n")


lines = gdb.execute("help all", to_string=True).splitlines()
if "heap" in {line.split()[0] for line in lines if line.strip()}:
    raise Exception('Cannot override non-whitelisted built-in command "heap"')
Heap()

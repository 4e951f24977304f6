"""heapglass: reads glibc heaps, in gdb, in cores, in running processes."""

__version__ = "0.1.0"

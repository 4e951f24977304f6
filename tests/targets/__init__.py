"""Tests of heapglass.targets."""

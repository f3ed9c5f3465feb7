"""Bytes of a file, unpacked and decoded within bounds."""

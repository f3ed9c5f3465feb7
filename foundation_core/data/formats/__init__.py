"""Formats: how the bytes of one file become one text. Each is found by the ending of a name."""

"""What the header of a WAV or AIFF file announces: libsndfile reads one that broke off as if it ended there.

Source: IBM and Microsoft, "Multimedia Programming Interface and Data Specifications 1.0", 1991, for RIFF; Apple,
"Audio Interchange File Format AIFF 1.3", 1989.
"""

from __future__ import annotations

import struct

_ORDER = {b"RIFF": "<", b"FORM": ">"}
_SAMPLES = (b"data", b"SSND")
_HEADER_BYTES, _CHUNK_BYTES = 12, 8
_UNKNOWN_BYTES = 0x7FFFF000
"""What programs announce that write to a pipe and cannot know how long it will be: so much, or more."""


def refuse_cut_off(data: bytes) -> None:
    """Refuse a recording that ends before its samples do.

    Raises:
        ValueError: it does.
    """
    if missing := _missing_bytes(data):
        raise ValueError(f"a recording that is cut off: the last {missing:,} bytes that it announces are not there")


def _missing_bytes(data: bytes) -> int:
    """Bytes of samples that are announced and not there; 0 of other formats."""
    order, place = _ORDER.get(data[:4]), _HEADER_BYTES
    while order and place + _CHUNK_BYTES <= len(data):
        name, (size,) = data[place : place + 4], struct.unpack_from(f"{order}I", data, place + 4)
        place += _CHUNK_BYTES
        if name in _SAMPLES:
            return max(0, place + size - len(data)) if size < _UNKNOWN_BYTES else 0
        place += size + size % 2
    return 0

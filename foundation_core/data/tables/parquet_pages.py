"""What the pages of a Parquet column unpack to, by their own headers: known before a page is unpacked.

    [header: 1 MB packed in 3 kB][page] [header][page] ... --column_pages--> packed, unpacked, values, largest value

The footer states sizes too, but nobody checks them; a reader makes room for what each page's header says.

Format: parquet.thrift (Apache Parquet), in Thrift's compact protocol.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO, NamedTuple

_WINDOWS = (1 << 10, 1 << 16, 1 << 20)
"""Bytes that a header is looked for in; one that holds long minima is read again with more."""
_DICTIONARY, _PREFIXED = 2, 7
"""A page that values are looked up in; the encoding that repeats the beginning of the value before."""
_ENCODING = {5: 2, 8: 4}
"""For each kind of data page, by the field of its own header, the field that says how it is encoded."""


class Pages(NamedTuple):
    """The pages of a column in a row group.

    Args:
        packed, unpacked: bytes of all of them.
        values: how many they say that they have, those within lists included.
        largest: bytes that a few bits may stand for: of a dictionary, or of a value that goes on from the one before.
    """

    packed: int
    unpacked: int
    values: int
    largest: int


def column_pages(stream: BinaryIO, column: Any) -> Pages:
    """The pages of a column.

    Args:
        column: what the footer says of it (`pyarrow.parquet.ColumnChunkMetaData`).

    Raises:
        ValueError: a header is damaged.
    """
    starts = (column.dictionary_page_offset, column.data_page_offset)
    at = min(start for start in starts if start)
    end = at + column.total_compressed_size
    packed = unpacked = values = largest = 0
    while at < end:
        header, size = _header(stream, at)
        kind, out, held = (header.get(number, 0) for number in (1, 2, 3))
        if out < 0 or held < 0:
            raise ValueError("a page of a negative size")
        packed, unpacked, at = packed + held, unpacked + out, at + size + held
        own = next((number for number in _ENCODING if number in header), None)
        if own is not None:
            values += max(0, header[own].get(1, 0))
        if kind == _DICTIONARY or (own is not None and header[own].get(_ENCODING[own]) == _PREFIXED):
            largest = max(largest, out)
    return Pages(packed, unpacked, values, largest)


def _header(stream: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """The fields of the page header at a place, by their numbers, and its bytes."""
    for window in _WINDOWS:
        stream.seek(at)
        data = stream.read(window)
        try:
            return _Compact(data).structure()
        except (IndexError, struct.error):
            if len(data) < window:
                break
        except RecursionError:
            break
    raise ValueError("a page's header is damaged")


class _Compact:
    """Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def structure(self) -> tuple[dict[int, Any], int]:
        """The fields of the structure here, and where it ends."""
        found, number = dict[int, Any](), 0
        while mark := self._byte():
            number = number + (mark >> 4) if mark >> 4 else self._integer()
            found[number] = self._value(mark & 15)
        return found, self._at

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def _integer(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind in (7, 8):
            size = 8 if kind == 7 else self._unsigned()
            self._at += size
            return None
        if kind in (9, 10):
            mark = self._byte()
            count = mark >> 4 if mark >> 4 < 15 else self._unsigned()
            return [self._element(mark & 15) for _ in range(count)]
        if kind == 12:
            return self.structure()[0]
        raise IndexError("no such type here")

    def _element(self, kind: int) -> Any:
        return self._byte() == 1 if kind in (1, 2) else self._value(kind)

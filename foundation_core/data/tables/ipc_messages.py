"""What the record batches of an Arrow file unpack to, by their own descriptions: known before a buffer is unpacked.

    [length][description][buffers: 8 bytes that say what each unpacks to, then its packed bytes] [length] ...

A file names its batches in a footer, where one may be named many times; a stream has them one behind the other.

Format: Message.fbs, File.fbs (Apache Arrow), in FlatBuffers' layout.
"""

from __future__ import annotations

import io
import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from foundation_core.data.reading.unpacking import most_unpacked

_MAGIC, _GOES_ON = b"ARROW1", b"\xff\xff\xff\xff"
_DICTIONARY, _BATCH = 2, 3
_PACKED_OF_OLD = b"ARROW:experimental_compression"
_ROW_BYTES = 8
"""What a row counts for at least: columns of nothing take no bytes for any number of rows."""


class Message(NamedTuple):
    """A record batch, or a dictionary.

    Args:
        packed: bytes that it takes in the file.
        unpacked: bytes that its buffers say that they hold, and some for each row.
    """

    is_batch: bool
    packed: int
    unpacked: int


class Expanding(NamedTuple):
    """What a file says of its batches.

    Args:
        packed: bytes that each batch takes in the file, up to the first that holds more than it may.
        first_refused: whether there is such a one.
        damaged: whether there is anything else behind those of `packed` that makes no sense.
        dictionaries: bytes that they take.
    """

    packed: Sequence[int]
    first_refused: bool
    damaged: bool
    dictionaries: int


def expanding(stream: BinaryIO, most_expansion: int, is_file: bool) -> Expanding:
    """What an Arrow file, or a stream, says of its batches; of a damaged one, of those before the damage.

    Raises:
        ValueError: its dictionaries, which all batches need, hold more than they may.
    """
    batches, taken, unpacked, dictionaries = array("q"), 0, 0, 0
    end = stream.seek(0, io.SEEK_END)
    try:
        for message in _messages(stream, end, is_file):
            unpacked += message.unpacked
            taken = min(end, taken + message.packed)  # however often a footer names a batch
            if unpacked > most_unpacked(taken, most_expansion):
                if not message.is_batch:
                    raise ValueError(f"dictionaries that unpack to more than {most_expansion} times their size")
                return Expanding(batches, True, False, dictionaries)
            if message.is_batch:
                batches.append(message.packed)
            else:
                dictionaries += message.packed
    except (struct.error, OverflowError, MemoryError, OSError):
        return Expanding(batches, False, True, dictionaries)
    return Expanding(batches, False, False, dictionaries)


def _messages(stream: BinaryIO, end: int, is_file: bool) -> Iterator[Message]:
    places = _named(stream, end) if is_file else _behind_each_other(stream, end)
    yield from (message for at in places if (message := _message(stream, at, end)[0]) is not None)


def _behind_each_other(stream: BinaryIO, end: int) -> Iterator[int]:
    """Where the messages of a stream begin."""
    at: int | None = 0
    while at is not None:
        yield at
        at = _message(stream, at, end)[1]


def _named(stream: BinaryIO, end: int) -> Iterator[int]:
    """Where the dictionaries and the batches begin that the footer of a file names."""
    stream.seek(max(0, end - len(_MAGIC) - 4))
    (size,) = struct.unpack("<i", stream.read(4))
    stream.seek(max(0, end - len(_MAGIC) - 4 - size))
    footer = _Table.root(stream.read(max(0, size)))
    for number in (2, 3):
        for block in footer.structures(number, 24):
            yield max(0, struct.unpack_from("<q", block)[0])


def _message(stream: BinaryIO, at: int, end: int) -> tuple[Message | None, int | None]:
    """The message at a place, if it is one of rows, and where the next one begins; None behind the last."""
    stream.seek(at)
    start = stream.read(8)
    size, begin = (start[4:], at + 8) if start[:4] == _GOES_ON else (start[:4], at + 4)  # the second until Arrow 0.15
    if len(size) < 4 or not (length := struct.unpack("<i", size)[0]):
        return None, None
    if length < 0:
        raise struct.error("a message of a negative length")
    stream.seek(begin)
    data = stream.read(max(0, min(length, end - begin)))
    told = _Table.root(data)
    body, held = begin + length, told.number(3, "q")
    if not 0 <= held <= end - body:
        raise struct.error("a message that goes beyond the end")
    behind = body + held
    kind, rows = told.number(1, "B"), told.table(2)
    if rows is not None and kind == _DICTIONARY:
        rows = rows.table(1)
    if rows is None or kind not in (_DICTIONARY, _BATCH):
        return None, behind
    unpacked = _ROW_BYTES * max(0, rows.number(0, "q"))
    packed = rows.table(3) is not None or _PACKED_OF_OLD in data
    for place, size_bytes in (struct.unpack("<qq", buffer) for buffer in rows.structures(2, 16)):
        unpacked += _unpacked(stream, body + place, size_bytes) if packed else size_bytes
    return Message(kind == _BATCH, length + held, unpacked), behind


def _unpacked(stream: BinaryIO, at: int, size: int) -> int:
    """What a buffer says that it holds; -1 says that it is not packed."""
    if size < 8:
        return 0
    stream.seek(at)
    (stated,) = struct.unpack("<q", stream.read(8))
    return size if stated < 0 else int(stated)


class _Table(NamedTuple):
    """A table of FlatBuffers; fields have numbers, and those that are not there have a default of 0."""

    data: bytes
    at: int

    @staticmethod
    def root(data: bytes) -> _Table:
        return _Table(data, struct.unpack_from("<I", data)[0])

    def number(self, field: int, kind: str) -> int:
        place = self._place(field)
        return int(struct.unpack_from(f"<{kind}", self.data, place)[0]) if place else 0

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        return _Table(self.data, place + struct.unpack_from("<I", self.data, place)[0]) if place else None

    def structures(self, field: int, size: int) -> Iterator[bytes]:
        """The elements of a vector of structures of a size."""
        place = self._place(field)
        if not place:
            return
        place += struct.unpack_from("<I", self.data, place)[0]
        (count,) = struct.unpack_from("<I", self.data, place)
        for number in range(count):
            found = self.data[place + 4 + number * size : place + 4 + (number + 1) * size]
            if len(found) < size:
                raise struct.error("a vector that ends too early")
            yield found

    def _place(self, field: int) -> int:
        table = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        (size,) = struct.unpack_from("<H", self.data, table)
        if 4 + 2 * field >= size:
            return 0
        (offset,) = struct.unpack_from("<H", self.data, table + 4 + 2 * field)
        return self.at + offset if offset else 0

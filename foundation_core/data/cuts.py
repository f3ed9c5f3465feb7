"""Tables of lines cut into parts of bounded bytes, and the rows of a part: a table is never held, and no row gets lost.

    lines    {"text": ...}\n{"text": ...}\n{"te       cut after a line; a row's number is that of its line
    csv      "two\nlines",3\nnext,4\n                 cut after a record, for a quoted field may hold a line's end

A row that cannot be read is a `Broken` one in its place. Numbers count from 1. Tables of columns are in `columns`.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, Protocol

import orjson
import pyarrow as pa

from foundation_core.spec_reading import ReadingSpec

_CHUNK_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


UNREADABLE = (OSError, EOFError, ValueError, pa.ArrowException)
"""What is raised where a table is damaged or cut off."""


class Cut(NamedTuple):
    """A part of a table.

    Args:
        start, stop: bytes of the unpacked file for lines and CSV; rows for columns.
        first, last: numbers of its first and last row.
        digest: hex sha256 of its bytes, and of those that name the columns; empty for formats of columns.
    """

    start: int
    stop: int
    first: int
    last: int
    digest: str = ""


class Broken(NamedTuple):
    """A row that cannot be read, and why."""

    reason: str


Fields = Mapping[str, Any]
Row = tuple[int, Fields | Broken]
"""A row's number and what it holds: bytes where a format may hold text of any encoding."""


class Format(Protocol):
    """A way to hold rows."""

    def cuts(self, stream: BinaryIO, most_bytes: int, reading: ReadingSpec) -> Iterator[Cut]:
        """The parts, none of much more than `most_bytes`.

        Raises:
            ValueError: the file is no such table.
        """

    def rows(self, stream: BinaryIO, cut: Cut, names: Sequence[str], reading: ReadingSpec) -> Iterator[Row]:
        """The rows of a part.

        Args:
            names: the columns that are wanted.
            reading: what stands behind `most_document_bytes` in a line or a record is skipped.
        """

    def columns(self, stream: BinaryIO) -> list[str]:
        """The names of the columns; of lines, those of the first ones that can be read."""


class Lines:
    """JSON, an object a line."""

    def cuts(self, stream: BinaryIO, most_bytes: int, reading: ReadingSpec) -> Iterator[Cut]:
        """Parts that end with a line."""
        start, first, place, number, digest = 0, 1, 0, 1, hashlib.sha256()
        while chunk := stream.read(min(most_bytes, _CHUNK_BYTES)):
            end, lines = chunk.rfind(b"\n") + 1, chunk.count(b"\n")
            number += lines
            if end and place + end - start >= most_bytes:
                digest.update(chunk[:end])
                yield Cut(start, place + end, first, number - 1, digest.hexdigest())
                start, first, digest = place + end, number, hashlib.sha256(chunk[end:])
            else:
                digest.update(chunk)
            place += len(chunk)
        if place > start:
            yield Cut(start, place, first, number, digest.hexdigest())

    def rows(self, stream: BinaryIO, cut: Cut, names: Sequence[str], reading: ReadingSpec) -> Iterator[Row]:
        """The objects; a blank line is none."""
        for number, line in enumerate(_lines(stream, cut, reading.most_document_bytes), cut.first):
            if isinstance(line, Broken):
                yield number, line
            elif line and not line.isspace():
                yield number, _object(line)

    def columns(self, stream: BinaryIO) -> list[str]:
        """Those of the objects in the first lines."""
        found, few = dict[str, None](), ReadingSpec(most_document_bytes=_CHUNK_BYTES)
        for row in (row for _, row in self.rows(stream, Cut(0, _CHUNK_BYTES, 1, _CHUNK_BYTES), (), few)):
            if not isinstance(row, Broken):
                found |= dict.fromkeys(row)
        return list(found)


def _lines(stream: BinaryIO, cut: Cut, most_bytes: int) -> Iterator[bytes | Broken]:
    stream.seek(cut.start)
    left = cut.stop - cut.start
    while left > 0 and (line := stream.readline(min(left, most_bytes + 1))):
        left -= len(line)
        if len(line) > most_bytes and not line.endswith(b"\n"):
            while left > 0 and (rest := stream.readline(min(left, _CHUNK_BYTES))):
                left -= len(rest)
                if rest.endswith(b"\n"):
                    break
            yield Broken(f"a line of more than {most_bytes:,} bytes")
            continue
        yield line.removeprefix(_BOM) if not cut.start else line


def _object(line: bytes) -> Fields | Broken:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Broken(f"not JSON: {error.msg} at byte {error.pos}")
    return row if isinstance(row, dict) else Broken(f"a JSON {type(row).__name__}, not an object")


class Csv:
    """Comma-separated values, or tabs between them; the first record names the columns. Fields are bytes."""

    def __init__(self, delimiter: str = ",") -> None:
        self.delimiter = delimiter

    def cuts(self, stream: BinaryIO, most_bytes: int, reading: ReadingSpec) -> Iterator[Cut]:
        """Parts that end with a record."""
        digest = hashlib.sha256()
        records, read = self._records(stream, None, reading.most_document_bytes, lambda line: digest.update(line))
        next(records, None)  # the columns
        columns = digest.copy()
        start, first, number = read[0], 1, 0
        for number, _ in enumerate(records, 1):
            if read[0] - start >= most_bytes:
                yield Cut(start, read[0], first, number, digest.hexdigest())
                start, first, digest = read[0], number + 1, columns.copy()
        if first <= number:
            yield Cut(start, read[0], first, number, digest.hexdigest())

    def rows(self, stream: BinaryIO, cut: Cut, names: Sequence[str], reading: ReadingSpec) -> Iterator[Row]:
        """The records."""
        columns = self.columns(stream)
        stream.seek(cut.start)
        records, _ = self._records(stream, cut.stop - cut.start, reading.most_document_bytes)
        for number, record in enumerate(records, cut.first):
            if isinstance(record, Broken):
                yield number, record
            elif len(record) != len(columns):
                yield number, Broken(f"{len(record)} fields, and the header has {len(columns)}")
            else:
                fields = zip(columns, record, strict=True)
                yield number, {name: field.encode("latin-1") for name, field in fields if name in names and field}

    def columns(self, stream: BinaryIO) -> list[str]:
        """Those of the first record."""
        stream.seek(0)
        records, _ = self._records(stream, None, _CHUNK_BYTES)
        first = next(records, [])
        if isinstance(first, Broken):
            raise ValueError(f"its first line is not CSV: {first.reason}")
        return [name.encode("latin-1").decode("utf-8-sig", "replace") for name in first]

    def _records(
        self, stream: BinaryIO, left: int | None, most_bytes: int, see: Callable[[bytes], None] = lambda line: None
    ) -> tuple[Iterator[list[str] | Broken], list[int]]:
        """The records, and how many bytes were read up to the last one that was given.

        Latin-1 gives each byte a character of its own, so that the bytes of a field can be had back. Behind a record
        of more than `most_bytes`, such as one whose quote is never closed, it goes on with the next line.

        Args:
            see: is shown each line.
        """
        csv.field_size_limit(2**31 - 1)
        read, begun = [0], 0

        def lines() -> Iterator[str]:
            while (left is None or read[0] < left) and (line := stream.readline(most_bytes + 1)):
                read[0] += len(line)
                see(line)
                if read[0] - begun > most_bytes:
                    while not line.endswith(b"\n") and (line := stream.readline(_CHUNK_BYTES)):
                        read[0] += len(line)
                        see(line)
                    raise _TooLong
                yield line.decode("latin-1")

        def records() -> Iterator[list[str] | Broken]:
            nonlocal begun
            reader = csv.reader(lines(), delimiter=self.delimiter, strict=True)
            while True:
                begun = read[0]
                try:
                    record = next(reader, None)
                except csv.Error as error:
                    yield Broken(f"not CSV: {error}")
                    continue
                except _TooLong:
                    reader = csv.reader(lines(), delimiter=self.delimiter, strict=True)
                    yield Broken(f"a record of more than {most_bytes:,} bytes")
                    continue
                if record is None:
                    return
                if record:
                    yield record

        return records(), read


class _TooLong(Exception):
    """A record has more bytes than it may."""

r"""Comma-separated values cut into parts and read: a record may have many lines, and one that never ends takes one.

    "two\nlines",3\nnext,4\n       cut after a record, for a quoted field may hold a line's end
    "never closed,3\nnext,4\n      the first line is broken, the second one is a row

A quote that nothing closes would make all that stands behind it one field. Such a record is the line that it begins
with; what was taken along is read again. Rows that are lost are therefore counted as rows.
"""

from __future__ import annotations

import csv
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from foundation_core.data.reading.decoding import decoded
from foundation_core.data.tables.cuts import UNREADABLE, Broken, Cut, Row
from foundation_core.specs.reading import ReadingSpec

_CHUNK_BYTES = 1 << 20
_UNENDED = "not CSV: a quote is opened here that no quote closes as it should"


class Csv:
    """Values with something between them; the first record names the columns, behind blank lines or not. Fields are
    bytes."""

    def __init__(self, delimiter: str = ",") -> None:
        self.delimiter = delimiter

    def cuts(self, stream: BinaryIO, most_bytes: int, reading: ReadingSpec) -> Iterator[Cut]:
        """Parts that end with a record."""
        lines = _Lines(stream, None, reading.most_document_bytes)
        records = _records(lines, self.delimiter)
        digest = hashlib.sha256()
        place = 0
        for record, taken in records:  # up to the columns
            place += _seen(digest, taken)
            if record:
                break
        columns, start, first, number = digest.copy(), place, 1, 0
        for record, taken in records:
            place += _seen(digest, taken)
            number += bool(record)
            if record and place - start >= most_bytes:
                yield Cut(start, place, first, number, digest.hexdigest())
                start, first, digest = place, number + 1, columns.copy()
        if first <= number:
            yield Cut(start, place, first, number, digest.hexdigest())
        if lines.broken is not None:
            raise lines.broken

    def rows(self, stream: BinaryIO, cut: Cut, names: Sequence[str], reading: ReadingSpec) -> Iterator[Row]:
        """The records."""
        columns = self.columns(stream, reading)
        wanted = [(at, name) for at, name in enumerate(columns) if name in names]
        stream.seek(cut.start)
        lines = _Lines(stream, cut.stop - cut.start, reading.most_document_bytes)
        records = (record for record, _ in _records(lines, self.delimiter) if record)
        for number, record in enumerate(records, cut.first):
            if isinstance(record, Broken):
                yield number, record
            elif len(record) != len(columns):
                yield number, Broken(f"{len(record)} fields, and the header has {len(columns)}")
            else:
                yield number, {name: record[at].encode("latin-1") for at, name in wanted if record[at]}
        if lines.broken is not None:
            raise lines.broken

    def columns(self, stream: BinaryIO, reading: ReadingSpec) -> list[str]:
        """Those of the first record that is not blank."""
        stream.seek(0)
        lines = _Lines(stream, None, reading.most_document_bytes)
        records = (record for record, _ in _records(lines, self.delimiter) if record)
        first: list[str] | Broken = next(records, [])
        if lines.broken is not None and not first:
            raise lines.broken
        if isinstance(first, Broken):
            raise ValueError(f"its first line is not CSV: {first.reason}")
        return [_named(name.encode("latin-1"), reading.repair_encoding) for name in first]


def _named(name: bytes, repair: bool) -> str:
    """A column's name; what is in no encoding that is sure shows marks in the place of its letters."""
    try:
        return name.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            return decoded(name, repair).text
        except ValueError:
            return name.decode("utf-8-sig", "replace")


class _Line(NamedTuple):
    """A line of a file.

    Args:
        data: None if it has more bytes than a record may.
        seen: what stands for it in a digest.
    """

    data: bytes | None
    size: int
    seen: bytes


class _Lines:
    """The lines of a file, some of which may be given back; `broken` says what ended them before their end.

    Args:
        left: bytes that may be read. None: all.
    """

    def __init__(self, stream: BinaryIO, left: int | None, most_bytes: int) -> None:
        self._stream, self._left, self.most_bytes = stream, left, most_bytes
        self._returned = deque[_Line]()
        self.broken: Exception | None = None

    def next(self) -> _Line | None:
        """The next one; None behind the last."""
        if self._returned:
            return self._returned.popleft()
        if self.broken is not None or (self._left is not None and self._left <= 0):
            return None
        try:
            line = self._read()
        except UNREADABLE as error:
            self.broken = error
            return None
        if self._left is not None:
            self._left -= line.size
        return line if line.size else None

    def give_back(self, lines: Sequence[_Line]) -> None:
        """Have lines once more."""
        self._returned.extendleft(reversed(lines))

    def _read(self) -> _Line:
        line = self._stream.readline(self.most_bytes + 1)
        if len(line) <= self.most_bytes:
            return _Line(line, len(line), line)
        size, digest = len(line), hashlib.sha256(line)
        while not line.endswith(b"\n") and (line := self._stream.readline(_CHUNK_BYTES)):
            size += len(line)
            digest.update(line)
        return _Line(None, size, digest.digest())


class _TooLong(Exception):
    """A record has more bytes than it may."""


def _records(lines: _Lines, delimiter: str) -> Iterator[tuple[list[str] | Broken, Sequence[_Line]]]:
    """The records, each with its lines; a blank line is an empty one.

    Latin-1 gives each byte a character of its own, so that the bytes of a field can be had back.
    """
    csv.field_size_limit(2**31 - 1)
    taken, ended = list[_Line](), False

    def fed() -> Iterator[str]:
        nonlocal ended
        size = 0
        while (line := lines.next()) is not None:
            size = line.size + (size if taken else 0)
            taken.append(line)
            if line.data is None or size > lines.most_bytes:
                raise _TooLong
            yield line.data.decode("latin-1")
        ended = True

    reader = csv.reader(fed(), delimiter=delimiter, strict=True)
    while True:
        taken, ended = [], False
        try:
            record: list[str] | Broken | None = next(reader, None)
        except (csv.Error, _TooLong) as error:
            if len(taken) > 1 or ended:
                reason = _UNENDED
            elif isinstance(error, _TooLong):
                reason = f"a record of more than {lines.most_bytes:,} bytes"
            else:
                reason = f"not CSV: {error}"
            lines.give_back(taken[1:])
            record, taken = Broken(reason), taken[:1]
            reader = csv.reader(fed(), delimiter=delimiter, strict=True)
        if record is None:
            return
        yield record, taken


def _seen(digest: hashlib._Hash, lines: Sequence[_Line]) -> int:
    """Bytes of some lines, which a digest is shown."""
    for line in lines:
        digest.update(line.seen)
    return sum(line.size for line in lines)

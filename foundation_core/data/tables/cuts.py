"""Tables of lines cut into parts of bounded bytes, and the rows of a part: a table is never held, and no row gets lost.

    lines    {"text": ...}\n{"text": ...}\n{"te       cut after a line; a row's number is that of its line

A row that cannot be read is a `Broken` one in its place. Numbers count from 1. CSV is in `records`, tables of columns
are in `columns`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, Protocol

import orjson
import pyarrow as pa

from foundation_core.data.reading.decoding import decoded, is_utf8
from foundation_core.specs.reading import ReadingSpec

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

    def columns(self, stream: BinaryIO, reading: ReadingSpec) -> list[str]:
        """The names of the columns; of lines, those of the first ones that can be read."""


class Steady:
    """A stream in pieces of a size; what came before an error is given, and the error kept as `broken`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self.broken: Exception | None = None

    def read(self, count: int) -> bytes:
        """So many bytes; fewer at the end alone."""
        pieces = list[bytes]()
        while count and self.broken is None:
            try:
                some = self._read(count)
            except UNREADABLE as error:
                self.broken = error
                break
            if not some:
                break
            pieces.append(some)
            count -= len(some)
        return b"".join(pieces)


class Lines:
    """JSON, an object a line."""

    def cuts(self, stream: BinaryIO, most_bytes: int, reading: ReadingSpec) -> Iterator[Cut]:
        """Parts that end with a line."""
        start, first, place, number, digest = 0, 1, 0, 1, hashlib.sha256()
        steady, whole = Steady(stream), None
        while chunk := steady.read(min(most_bytes, _CHUNK_BYTES)):
            end = chunk.rfind(b"\n") + 1
            number += chunk.count(b"\n")
            digest.update(chunk[:end])
            if end:
                whole = Cut(start, place + end, first, number - 1, digest.hexdigest())
                if whole.stop - start >= most_bytes:
                    yield whole
                    start, first, digest, whole = whole.stop, number, hashlib.sha256(), None
            digest.update(chunk[end:])
            place += len(chunk)
        if steady.broken is not None:
            if whole is not None:
                yield whole
            raise steady.broken
        if place > start:
            yield Cut(start, place, first, number, digest.hexdigest())

    def rows(self, stream: BinaryIO, cut: Cut, names: Sequence[str], reading: ReadingSpec) -> Iterator[Row]:
        """The objects; a blank line is none."""
        for number, line in enumerate(_lines(stream, cut, reading.most_document_bytes), cut.first):
            if isinstance(line, Broken):
                yield number, line
            elif line and not line.isspace():
                yield number, _object(line, reading.repair_encoding)

    def columns(self, stream: BinaryIO, reading: ReadingSpec) -> list[str]:
        """Those of the objects in the first lines."""
        found, few = dict[str, None](), reading.model_copy(update={"most_document_bytes": _CHUNK_BYTES})
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


class Repaired(dict[str, Any]):
    """The fields of a line that was in an old encoding."""

    def __init__(self, fields: Mapping[str, Any], encoding: str) -> None:
        super().__init__(fields)
        self.encoding = encoding


def _object(line: bytes, repair: bool) -> Fields | Broken:
    encoding = ""
    try:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            if not repair or is_utf8(line):
                raise
            text, encoding = decoded(line, repair)
            row = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return Broken(f"not JSON: {error.msg} at byte {error.pos}")
    except ValueError as error:
        return Broken(f"not JSON: {error}")
    if not isinstance(row, dict):
        return Broken(f"a JSON {type(row).__name__}, not an object")
    return Repaired(row, encoding) if encoding else row


def mentioned(stream: BinaryIO, names: Sequence[str]) -> set[str]:
    """Those of some names that lines may have as fields: that stand in quotes anywhere.

    Raises:
        OSError, ValueError: the stream is damaged, and none of what can be read has all of them.
    """
    spelled = dict[bytes, str]()
    for name in names:
        for form in (json.dumps(name).encode(), b'"%b"' % name.encode(), b'"%b"' % name.encode("cp1252", "replace")):
            spelled[form] = name
    any_of, found, tail = re.compile(b"|".join(map(re.escape, spelled))), set[str](), b""
    while len(found) < len(set(names)) and (chunk := stream.read(_CHUNK_BYTES)):
        found |= {spelled[form] for form in any_of.findall(tail + chunk)}
        tail = chunk[-max(map(len, spelled)) :]
    return found

"""Tables cut into parts of bounded bytes, and the rows of a part: a table is never held, and no row gets lost.

    lines    {"text": ...}\n{"text": ...}\n{"te       cut after a line; a row's number is that of its line
    csv      "two\nlines",3\nnext,4\n                 cut after a record, for a quoted field may hold a line's end
    columns  row groups, record batches               cut after so many rows as take the bytes

A row that cannot be read is a `Broken` one in its place. Numbers count from 1.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

_CHUNK_BYTES = 1 << 20
_BATCH_ROWS = 256
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

    def cuts(self, stream: BinaryIO, most_bytes: int, most_row_bytes: int) -> Iterator[Cut]:
        """The parts, none of much more than `most_bytes`.

        Args:
            most_row_bytes: the `most_bytes` of `rows`.

        Raises:
            ValueError: the file is no such table.
        """

    def rows(self, stream: BinaryIO, cut: Cut, names: Sequence[str], most_bytes: int) -> Iterator[Row]:
        """The rows of a part.

        Args:
            names: the columns that are wanted.
            most_bytes: of a line or a record that is read as a whole; what stands behind them in it is skipped.
        """

    def columns(self, stream: BinaryIO) -> list[str]:
        """The names of the columns; of lines, those of the first ones that can be read."""


class Lines:
    """JSON, an object a line."""

    def cuts(self, stream: BinaryIO, most_bytes: int, most_row_bytes: int) -> Iterator[Cut]:
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

    def rows(self, stream: BinaryIO, cut: Cut, names: Sequence[str], most_bytes: int) -> Iterator[Row]:
        """The objects; a blank line is none."""
        for number, line in enumerate(_lines(stream, cut, most_bytes), cut.first):
            if isinstance(line, Broken):
                yield number, line
            elif line and not line.isspace():
                yield number, _object(line)

    def columns(self, stream: BinaryIO) -> list[str]:
        """Those of the objects in the first lines."""
        found = dict[str, None]()
        for row in (row for _, row in self.rows(stream, Cut(0, _CHUNK_BYTES, 1, _CHUNK_BYTES), (), _CHUNK_BYTES)):
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

    def cuts(self, stream: BinaryIO, most_bytes: int, most_row_bytes: int) -> Iterator[Cut]:
        """Parts that end with a record."""
        digest = hashlib.sha256()
        records, read = self._records(stream, None, most_row_bytes, lambda line: digest.update(line))
        next(records, None)  # the columns
        columns = digest.copy()
        start, first, number = read[0], 1, 0
        for number, _ in enumerate(records, 1):
            if read[0] - start >= most_bytes:
                yield Cut(start, read[0], first, number, digest.hexdigest())
                start, first, digest = read[0], number + 1, columns.copy()
        if first <= number:
            yield Cut(start, read[0], first, number, digest.hexdigest())

    def rows(self, stream: BinaryIO, cut: Cut, names: Sequence[str], most_bytes: int) -> Iterator[Row]:
        """The records."""
        columns = self.columns(stream)
        stream.seek(cut.start)
        records, _ = self._records(stream, cut.stop - cut.start, most_bytes)
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


class Parquet:
    """Apache Parquet."""

    def cuts(self, stream: BinaryIO, most_bytes: int, most_row_bytes: int) -> Iterator[Cut]:
        """Parts of as many rows as take the bytes, by what the file says of each row group."""
        facts = _opened(stream).metadata
        start = 0
        for group in (facts.row_group(number) for number in range(facts.num_row_groups)):
            end = start + group.num_rows
            rows = max(1, most_bytes * group.num_rows // max(1, group.total_byte_size))
            yield from (Cut(at, min(end, at + rows), at + 1, min(end, at + rows)) for at in range(start, end, rows))
            start = end
        if start != facts.num_rows:
            raise ValueError(f"damaged: it states {facts.num_rows} rows, and its groups have {start}")

    def rows(self, stream: BinaryIO, cut: Cut, names: Sequence[str], most_bytes: int) -> Iterator[Row]:
        """The rows; those of a damaged page are one broken row."""
        file, groups, place, begin = _opened(stream), list[int](), 0, cut.start
        for number in range(file.metadata.num_row_groups):
            end = place + file.metadata.row_group(number).num_rows
            if place <= cut.start < end:  # a part lies within one group
                groups, begin = [number], place
            place = end
        try:
            for batch in file.iter_batches(_BATCH_ROWS, groups, [name.split(".")[0] for name in names]):
                if begin + len(batch) > cut.start and begin < cut.stop:
                    yield from _rows_of(batch, begin, cut)
                begin += len(batch)
                if begin >= cut.stop:
                    return
        except (pa.ArrowException, OSError, MemoryError):
            pass  # told like rows that are not there
        yield max(begin, cut.start) + 1, Broken("this row and those behind it in its part cannot be read")

    def columns(self, stream: BinaryIO) -> list[str]:
        """Those of its schema."""
        return list(_opened(stream).schema_arrow.names)


def _opened(stream: BinaryIO) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise ValueError("not a Parquet file that can be read") from error


class Arrow:
    """Arrow's own file or stream format."""

    def cuts(self, stream: BinaryIO, most_bytes: int, most_row_bytes: int) -> Iterator[Cut]:
        """Parts of as many rows as take the bytes, none over the end of a batch."""
        start = 0
        for batch in _batches(stream):
            rows, end = max(1, most_bytes * len(batch) // max(1, batch.nbytes)), start + len(batch)
            yield from (Cut(at, min(end, at + rows), at + 1, min(end, at + rows)) for at in range(start, end, rows))
            start = end

    def rows(self, stream: BinaryIO, cut: Cut, names: Sequence[str], most_bytes: int) -> Iterator[Row]:
        """The rows."""
        begin = 0
        for batch in _batches(stream):
            if begin <= cut.start < begin + len(batch):
                fields = dict.fromkeys(name.split(".")[0] for name in names)
                wanted = batch.select([name for name in fields if name in batch.schema.names])
                for at in range(cut.start, cut.stop, _BATCH_ROWS):
                    few = wanted.slice(at - begin, min(_BATCH_ROWS, cut.stop - at))
                    yield from _rows_of(few, at, cut)
                return
            begin += len(batch)
        yield cut.start + 1, Broken("this row and those behind it in its part cannot be read")

    def columns(self, stream: BinaryIO) -> list[str]:
        """Those of its schema."""
        return next((list(batch.schema.names) for batch in _batches(stream)), [])


def _batches(stream: BinaryIO) -> Iterator[pa.RecordBatch]:
    """The record batches of a file or, where it is none, of a stream."""
    stream.seek(0)
    try:
        file = _ipc_file(stream)
        if file is not None:
            yield from (file.get_batch(number) for number in range(file.num_record_batches))
            return
        stream.seek(0)
        yield from pa.ipc.open_stream(stream)
    except (pa.ArrowException, OSError, MemoryError) as error:  # a damaged size may be larger than any memory
        raise ValueError("not an Arrow file that can be read, from here on") from error
    if stream.read(1):
        raise ValueError(f"something stands behind its end, at byte {stream.tell() - 1}")


def _ipc_file(stream: BinaryIO) -> pa.ipc.RecordBatchFileReader | None:
    try:
        return pa.ipc.open_file(stream)
    except pa.ArrowException:
        return None


def _rows_of(batch: pa.RecordBatch, begin: int, cut: Cut) -> Iterator[Row]:
    """The rows of a batch that belong to a part.

    Args:
        begin: rows before the batch.
    """
    wanted = range(max(0, cut.start - begin), min(len(batch), cut.stop - begin))
    try:
        columns = [_values(column) for column in batch.columns]
    except pa.ArrowException:
        yield from ((begin + at + 1, Broken("this row or one beside it is damaged")) for at in wanted)
        return
    for at in wanted:
        yield begin + at + 1, {name: column[at] for name, column in zip(batch.schema.names, columns, strict=True)}


def _values(column: pa.Array) -> list[Any]:
    """Texts as bytes, for a file may say that they are UTF-8 where they are not; anything else as Python has it.

    Raises:
        pa.ArrowException: it leads beyond its own memory, as a file that was damaged may: reading it would be a crash.
    """
    if pa.types.is_string(column.type):
        column = column.view(pa.binary())
    elif pa.types.is_large_string(column.type):
        column = column.view(pa.large_binary())
    column.validate(full=True)
    return list(column.to_pylist())


CUT: Mapping[str, Format] = {
    "jsonl": Lines(), "csv": Csv(), "tsv": Csv("\t"), "parquet": Parquet(), "arrow": Arrow(),
}  # fmt: skip
"""The formats, by the names that `tables.table_format` gives them."""

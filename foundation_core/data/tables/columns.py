"""Parquet and Arrow cut into parts of so many rows as take the bytes, and the rows of a part.

    footer, page headers --bounds--> row group --batches of bounded bytes--> rows
    descriptions of batches --bounds--> record batch ----------------------> rows

A few bytes of either may stand for any amount of memory: packed pages and buffers, values that are looked up in a
dictionary, lists, columns of nothing. What comes out is held to `most_expansion` times what it takes in the file, by
what the file says before it is unpacked, and value by value afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from foundation_core.data.reading.unpacking import most_unpacked
from foundation_core.data.tables.cuts import Broken, Cut, Row
from foundation_core.data.tables.ipc_messages import expanding
from foundation_core.data.tables.parquet_pages import Pages, column_pages
from foundation_core.specs.reading import ReadingSpec

_BATCH_ROWS = 256
_BATCH_BYTES = 1 << 24
"""What a batch may take if its rows are as large as those of its row group, and if all of its values are the largest
one of a dictionary."""
_ROW_BYTES = 8
"""What a row counts for at least: that there is none costs no bytes, but a place in memory."""


class Parquet:
    """Apache Parquet."""

    def cuts(self, stream: BinaryIO, most_bytes: int, reading: ReadingSpec) -> Iterator[Cut]:
        """Parts of as many rows as take the bytes, by what the file says of each row group."""
        facts = _opened(stream).metadata
        start = 0
        for group in (facts.row_group(number) for number in range(facts.num_row_groups)):
            end = start + group.num_rows
            packed = sum(group.column(number).total_compressed_size for number in range(group.num_columns))
            most = most_unpacked(packed, reading.most_expansion)  # also of parts, whatever the footer says
            rows = max(1, most_bytes * group.num_rows // max(1, min(group.total_byte_size, most)))
            if _ROW_BYTES * group.num_rows > most:
                rows = group.num_rows  # its reading says why
            yield from (Cut(at, min(end, at + rows), at + 1, min(end, at + rows)) for at in range(start, end, rows))
            start = end
        if start != facts.num_rows:
            raise ValueError(f"damaged: it states {facts.num_rows} rows, and its groups have {start}")

    def rows(self, stream: BinaryIO, cut: Cut, names: Sequence[str], reading: ReadingSpec) -> Iterator[Row]:
        """The rows; those from a damaged page on are broken ones."""
        file, group, begin = _opened(stream), 0, cut.start
        for number, (first, behind) in enumerate(pairwise(_starts(file))):
            if first <= cut.start < behind:  # a part lies within one group
                group, begin = number, first
        fields = list(dict.fromkeys(name.split(".")[0] for name in names))
        yield from _of_group(stream, file, group, cut, fields, reading, (begin, cut.start))

    def rows_from(self, stream: BinaryIO, start: int, fields: Sequence[str], reading: ReadingSpec) -> Iterator[Row]:
        """The rows behind so many, in one pass that begins with the row group of the first.

        Args:
            fields: the columns that are wanted, each a whole one.

        Raises:
            ValueError: it is damaged, from here on.
        """
        file, behind = _opened(stream), 0
        for group, (first, behind) in enumerate(pairwise(_starts(file))):
            if start < behind:
                cut = Cut(first, behind, first + 1, behind)
                rows = _of_group(stream, file, group, cut, fields, reading, (first, start))
                yield from (row for row in rows if row[0] > start)
        if behind != file.metadata.num_rows:
            raise ValueError(f"damaged: it states {file.metadata.num_rows} rows, and its groups have {behind}")

    def starts(self, stream: BinaryIO) -> list[int]:
        """Before which rows reading can begin without those in front of them; at the end how many there are."""
        return _starts(_opened(stream))

    def schema(self, stream: BinaryIO, reading: ReadingSpec) -> pa.Schema:
        """Its columns and their types."""
        return _opened(stream).schema_arrow

    def columns(self, stream: BinaryIO, reading: ReadingSpec) -> list[str]:
        """Those of its schema."""
        return list(self.schema(stream, reading).names)


def _starts(file: pq.ParquetFile) -> list[int]:
    """Before which row each row group begins, and how many rows they have."""
    groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
    return list(accumulate((group.num_rows for group in groups), initial=0))


def _of_group(
    stream: BinaryIO, file: pq.ParquetFile, group: int, cut: Cut, fields: Sequence[str], reading: ReadingSpec,
    begins: tuple[int, int],
) -> Iterator[Row]:  # fmt: skip
    """The rows of a part of a row group; those from a damaged page on are broken ones.

    Args:
        begins: rows before the group, and rows before the first that is wanted: batches before it are passed over.
    """
    (begin, wanted), facts = begins, file.metadata.row_group(group)
    try:
        held = _held(stream, facts, fields, reading.most_expansion)
        packed = sum(pages.packed for pages in held)
        left = most_unpacked(packed * (cut.stop - cut.start) // max(1, facts.num_rows), reading.most_expansion)
        for batch in file.iter_batches(_few(held, facts.num_rows), [group], fields):
            if begin + len(batch) > wanted and begin < cut.stop:
                for number, row in _rows_of(batch, begin, cut):
                    if (left := left - _size(row)) < 0:
                        yield from _lost(number, cut, _too_much(reading.most_expansion))
                        return
                    yield number, row
            begin += len(batch)
            if begin >= cut.stop:
                return
    except _Expanding as error:
        yield from _lost(cut.start + 1, cut, str(error))
        return
    except (pa.ArrowException, OSError, MemoryError):
        pass  # told like rows that are not there
    yield from _lost(max(begin, cut.start) + 1, cut, _UNREADABLE)


def _few(held: Sequence[Pages], rows: int) -> int:
    """How many rows a batch has: fewer of large ones, so that its bytes are bounded."""
    largest = max((pages.largest for pages in held), default=0)
    usual = sum(pages.unpacked for pages in held) // max(1, rows)
    return _rows_within(max(largest, usual))


def _rows_within(row_bytes: int) -> int:
    """How many rows of a size a batch has."""
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes)))


class _Expanding(ValueError):
    """A few bytes stand for too many."""


def check_groups(stream: BinaryIO, file: pq.ParquetFile) -> None:
    """Look at every page of a Parquet file before it is read as a whole.

    Raises:
        ValueError: it is damaged, or unpacks to too much.
    """
    for number in range(file.metadata.num_row_groups):
        try:
            _held(stream, file.metadata.row_group(number), file.schema_arrow.names, ReadingSpec().most_expansion)
        except OSError as error:
            raise ValueError(str(error)) from error


def arrow_table(stream: BinaryIO) -> pa.Table:
    """An Arrow file or stream as a whole.

    Raises:
        ValueError: it is damaged, or unpacks to too much.
    """
    batches = [batch for batch, _ in _batches(stream, ReadingSpec().most_expansion)]
    stream.seek(0)
    file = _ipc_file(stream)
    stream.seek(0)
    schema = pa.ipc.open_stream(stream).schema if file is None else file.schema
    return pa.Table.from_batches(batches, schema)


_UNREADABLE = "this row and those behind it in its part cannot be read"
_NAMED_ROWS = 100_000
"""Rows of a part that are set aside one by one; a file that states more may state any number."""


def _too_much(most_expansion: int) -> str:
    return f"this row and those behind it in its part unpack to more than {most_expansion} times their size"


def _lost(first: int, cut: Cut, reason: str) -> Iterator[Row]:
    """The rows of a part from one on, as broken ones: the file says how many there are."""
    if cut.stop - first >= _NAMED_ROWS:
        yield first, Broken(f"{reason}; the file states {cut.stop - first + 1:,} of them, which count as one")
        return
    yield from ((number, Broken(reason)) for number in range(first, max(first, cut.stop) + 1))


def _held(stream: BinaryIO, group: Any, fields: Sequence[str], most_expansion: int) -> list[Pages]:
    """The pages of the fields' columns in a row group, within bounds.

    Raises:
        _Expanding: they say that they hold more than they may.
        OSError: a header is damaged.
    """
    chunks = [group.column(number) for number in range(group.num_columns)]
    wanted = [chunk for chunk in chunks if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in fields)]
    try:
        held = [column_pages(stream, chunk) for chunk in wanted]
    except ValueError as error:
        raise OSError(str(error)) from error
    packed, unpacked = sum(pages.packed for pages in held), _ROW_BYTES * group.num_rows
    for pages in held:
        unpacked += pages.unpacked
        if pages.values > group.num_rows:  # lists: the rows of a batch may have any number of values
            unpacked += pages.values * max(_ROW_BYTES, pages.largest)
    if unpacked > most_unpacked(packed, most_expansion):
        raise _Expanding(_too_much(most_expansion))
    return held


def _size(row: Any) -> int:
    """Bytes that a row counts for."""
    values = [] if isinstance(row, Broken) else row.values()
    return _ROW_BYTES + sum(len(value) for value in values if isinstance(value, (bytes, str, list, dict)))


def _opened(stream: BinaryIO) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise ValueError("not a Parquet file that can be read") from error


class Arrow:
    """Arrow's own file or stream format."""

    def cuts(self, stream: BinaryIO, most_bytes: int, reading: ReadingSpec) -> Iterator[Cut]:
        """Parts of as many rows as take the bytes, none over the end of a batch."""
        start = 0
        for batch, _ in _batches(stream, reading.most_expansion):
            rows, end = max(1, most_bytes * len(batch) // max(1, batch.nbytes)), start + len(batch)
            yield from (Cut(at, min(end, at + rows), at + 1, min(end, at + rows)) for at in range(start, end, rows))
            start = end

    def rows(self, stream: BinaryIO, cut: Cut, names: Sequence[str], reading: ReadingSpec) -> Iterator[Row]:
        """The rows."""
        begin, fields = 0, list(dict.fromkeys(name.split(".")[0] for name in names))
        for batch, packed in _batches(stream, reading.most_expansion):
            if begin <= cut.start < begin + len(batch):
                yield from _of_batch(batch, packed, begin, cut, fields, reading)
                return
            begin += len(batch)
        yield from _lost(cut.start + 1, cut, _UNREADABLE)

    def rows_from(self, stream: BinaryIO, start: int, fields: Sequence[str], reading: ReadingSpec) -> Iterator[Row]:
        """As of Parquet, in one pass over the file: of batches before them no row becomes an object."""
        begin = 0
        for batch, packed in _batches(stream, reading.most_expansion):
            behind = begin + len(batch)
            if start < behind:
                cut = Cut(begin, behind, begin + 1, behind)
                rows = _of_batch(batch, packed, begin, cut, fields, reading)
                yield from (row for row in rows if row[0] > start)
            begin = behind

    def schema(self, stream: BinaryIO, reading: ReadingSpec) -> pa.Schema:
        """Its columns and their types; none of a file without rows."""
        batches = _batches(stream, reading.most_expansion)
        return next((batch.schema for batch, _ in batches), pa.schema([]))

    def columns(self, stream: BinaryIO, reading: ReadingSpec) -> list[str]:
        """Those of its schema."""
        return list(self.schema(stream, reading).names)


def _of_batch(
    batch: pa.RecordBatch, packed: int, begin: int, cut: Cut, fields: Sequence[str], reading: ReadingSpec
) -> Iterator[Row]:
    """The rows of a part of a record batch.

    Args:
        packed: bytes that the batch takes in the file.
        begin: rows before it.
    """
    part = batch.select([name for name in fields if name in batch.schema.names])
    part = part.slice(cut.start - begin, cut.stop - cut.start)
    most = most_unpacked(packed * len(part) // len(batch), reading.most_expansion)
    yield from _bounded(part, cut, most, reading.most_expansion)


def _bounded(part: pa.RecordBatch, cut: Cut, most_bytes: int, most_expansion: int) -> Iterator[Row]:
    """The rows of a part, a few at a time; of values that several rows share, one at a time."""
    for field in part.schema:
        if _is_unbounded(field.type):
            yield from _lost(cut.start + 1, cut, f"its column {field.name!r} of {field.type} may unpack to anything")
            return
    shared, left = any(_is_shared(field.type) for field in part.schema), most_bytes
    if shared:
        try:
            for column in part.columns:  # together: each row's check would look through all that they share
                column.validate(full=True)
        except pa.ArrowException:
            yield from _lost(cut.start + 1, cut, _UNREADABLE)
            return
    step = 1 if shared else _rows_within(part.nbytes // max(1, len(part)))
    for at in range(0, len(part), step):
        for number, row in _rows_of(part.slice(at, step), cut.start + at, cut, validated=shared):
            if shared and (left := left - _size(row)) < 0:
                yield from _lost(number, cut, _too_much(most_expansion))
                return
            yield number, row


def _is_shared(kind: pa.DataType) -> bool:
    """Whether several places of an array may be one value in memory."""
    types = pa.types
    is_view = types.is_string_view(kind) or types.is_binary_view(kind) or _is_list_view(kind)
    if is_view or types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return True
    return any(_is_shared(kind.field(number).type) for number in range(kind.num_fields))


def _is_unbounded(kind: pa.DataType) -> bool:
    """Whether one value may be a list in which a few bytes stand for any number."""
    types = pa.types
    if _is_list_view(kind):
        return True
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or types.is_map(kind)
    within = [kind.field(number).type for number in range(kind.num_fields)]
    return (is_list and any(map(_is_shared, within))) or any(map(_is_unbounded, within))


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def _batches(stream: BinaryIO, most_expansion: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The record batches of a file or, where it is none, of a stream, each with the bytes that it takes in the file.

    None is read that was not looked at before, whatever a damaged file says of itself.
    """
    stream.seek(0)
    try:
        file = _ipc_file(stream)
        told = expanding(stream, most_expansion, is_file=file is not None)
        stream.seek(0)
        read = pa.ipc.open_stream(stream).read_next_batch if file is None else lambda: None
        for number, packed in enumerate(told.packed):
            yield (read() if file is None else file.get_batch(number)), packed + told.dictionaries
        if told.first_refused:
            raise ValueError(f"a batch of rows that unpacks to more than {most_expansion} times its size")
        if told.damaged or (file is not None and file.num_record_batches > len(told.packed)):
            raise OSError
        if file is None:
            with suppress(StopIteration):
                read()
                raise OSError
    except (pa.ArrowException, OSError, MemoryError, StopIteration) as error:  # a size may be larger than any memory
        raise ValueError("not an Arrow file that can be read, from here on") from error
    if file is None and stream.read(1):
        raise ValueError(f"something stands behind its end, at byte {stream.tell() - 1}")


def _ipc_file(stream: BinaryIO) -> pa.ipc.RecordBatchFileReader | None:
    try:
        return pa.ipc.open_file(stream)
    except pa.ArrowException:
        return None


def _rows_of(batch: pa.RecordBatch, begin: int, cut: Cut, validated: bool = False) -> Iterator[Row]:
    """The rows of a batch that belong to a part.

    Args:
        begin: rows before the batch.
        validated: whether its columns are known to be sound.
    """
    wanted = range(max(0, cut.start - begin), min(len(batch), cut.stop - begin))
    try:
        columns = [_values(column, validated) for column in batch.columns]
    except pa.ArrowException:
        yield from ((begin + at + 1, Broken("this row or one beside it is damaged")) for at in wanted)
        return
    for at in wanted:
        yield begin + at + 1, {name: column[at] for name, column in zip(batch.schema.names, columns, strict=True)}


def _values(column: pa.Array, validated: bool) -> list[Any]:
    """Texts as bytes, for a file may say that they are UTF-8 where they are not; anything else as Python has it.

    Raises:
        pa.ArrowException: it leads beyond its own memory, as a file that was damaged may: reading it would be a crash.
    """
    if pa.types.is_string(column.type):
        column = column.view(pa.binary())
    elif pa.types.is_large_string(column.type):
        column = column.view(pa.large_binary())
    if not validated:
        column.validate(full=True)
    return list(column.to_pylist())

"""Tables as people have them, CSV, JSONL and Parquet, read and written in batches: memory is a batch, not a file.

    table.csv --read--> batches of rows --write--> other.parquet

A row is a dict. What a CSV file holds stays text, so that 007 is written as it was read; an empty field is null. A
Parquet file keeps its schema. Every other value is what JSON makes of it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from foundation_core.data.reading.unpacking import is_packed
from foundation_core.data.stores.places import Place
from foundation_core.data.tables.columns import arrow_table, check_groups
from foundation_core.data.tables.files import LINES, open_table, table_format
from foundation_core.errors import ConfigError, DataError, SetupError
from foundation_core.files import committed

Row = dict[str, Any]
_PACKED_BY = {".gz": "gzip", ".zst": "zstd", ".xz": "xz"}
_FIELD_CHARACTERS = 2**31 - 1
"""The longest field of a CSV file; what Python allows otherwise, 131,072 characters, is less than a long text."""
_REPAIR = "repair or remove that row"


def field_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of a field: of that very name, or of the objects that its dots lead through."""
    if name in row:
        return row[name]
    value: Any = row
    for step in name.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


@dataclass(frozen=True)
class Table:
    """A file of rows.

    Args:
        columns: their names; of a JSONL file those that its first batch has.
        schema: of a Parquet file.
        batches: the rows, once.
    """

    columns: list[str]
    schema: pa.Schema | None
    batches: Iterator[list[Row]]

    def require(self, field: str, path: Place) -> None:
        """Refuse, with the columns there are, if there is no such field.

        Raises:
            ConfigError: there is none.
        """
        if field not in self.columns:
            raise ConfigError(f"{path} has no column {field!r}", allowed=", ".join(self.columns))


@contextmanager
def read_table(path: Place, batch_rows: int) -> Iterator[Table]:
    """The rows of a file, `batch_rows` at a time.

    Raises:
        ConfigError: no table by its name.
        DataError: it is not there, or not what its name says; the message names the row.
    """
    kind, _ = table_format(path)
    with ExitStack() as stack:
        with _reading(path):
            source = stack.enter_context(open_table(path))
            table = _READERS[kind](path, source, batch_rows)
        yield table


@contextmanager
def _reading(path: Place) -> Iterator[None]:
    """Says of what cannot be read why not."""
    try:
        yield
    except pa.ArrowException as error:
        kind = table_format(path)[0].capitalize()
        raise DataError(f"{path} is not a{'n' * (kind == 'Arrow')} {kind} file that can be read: {error}") from error
    except UnicodeDecodeError as error:
        found = f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x}"
        raise DataError(found, fix="save it as UTF-8") from error
    except ValueError as error:
        if not is_packed(path.name):
            raise
        raise DataError(
            f"{path} is not a whole {_PACKED_BY[path.suffix.lower()]} file: {error}", fix="get it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", fix="name a file that is there") from error


@contextmanager
def _within_bounds(path: Place) -> Iterator[None]:
    """Says of a file of columns that it is damaged, or unpacks to too much."""
    try:
        yield
    except pa.ArrowException:
        raise
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}", fix="get it again, or save it in another format") from error


def has_more_rows(path: Place, rows: int) -> bool:
    """Whether a file has more rows than so many; it is read as far as it takes to know.

    Raises:
        ConfigError, DataError: as `read_table`.
    """
    with read_table(path, 1024) as table:
        seen = 0
        for batch in table.batches:
            seen += len(batch)
            if seen > rows:
                return True
    return False


def _read_csv(path: Place, source: BinaryIO, batch_rows: int, delimiter: str = ",") -> Table:
    csv.field_size_limit(_FIELD_CHARACTERS)
    lines = csv.reader(io.TextIOWrapper(source, "utf-8-sig", newline=""), delimiter=delimiter, strict=True)
    columns = next(_csv_lines(path, lines), [])
    _check_columns(path, columns)

    def rows() -> Iterator[Row]:
        for line in _csv_lines(path, lines):
            if len(line) != len(columns):
                found = f"{path}:{lines.line_num} has {len(line)} fields, and the header has {len(columns)}"
                raise DataError(found, fix=_REPAIR)
            yield dict(zip(columns, (field or None for field in line), strict=True))

    return Table(columns, None, _batched(path, rows(), batch_rows))


def _csv_lines(path: Place, lines: Any) -> Iterator[list[str]]:
    try:
        yield from (line for line in lines if line)
    except csv.Error as error:
        raise DataError(f"{path}:{lines.line_num} is not CSV: {error}", fix=_REPAIR) from error


def _read_jsonl(path: Place, source: BinaryIO, batch_rows: int) -> Table:
    def rows() -> Iterator[Row]:
        for number, line in enumerate(io.TextIOWrapper(source, "utf-8-sig"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number} is not JSON: {error}", fix=_REPAIR) from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number} holds a {type(row).__name__}", allowed="an object", fix=_REPAIR)
            yield row

    batches = _batched(path, rows(), batch_rows)
    first = next(batches, [])
    columns = list(dict.fromkeys(name for row in first for name in row))
    _check_columns(path, columns)
    return Table(columns, None, chain([first], batches))


def _read_parquet(path: Place, source: BinaryIO, batch_rows: int) -> Table:
    file = pq.ParquetFile(source)
    schema = file.schema_arrow
    _check_columns(path, schema.names)
    with _within_bounds(path):
        check_groups(source, file)
    rows = (row for batch in file.iter_batches(batch_rows) for row in batch.to_pylist())
    return Table(schema.names, schema, _batched(path, rows, batch_rows))


def _read_arrow(path: Place, source: BinaryIO, batch_rows: int) -> Table:
    with _within_bounds(path):
        table = arrow_table(source)
    _check_columns(path, table.schema.names)
    rows = (row for batch in table.to_batches(batch_rows) for row in batch.to_pylist())
    return Table(table.schema.names, table.schema, _batched(path, rows, batch_rows))


_READERS: Mapping[str, Callable[[Place, BinaryIO, int], Table]] = {
    "csv": _read_csv,
    "tsv": partial(_read_csv, delimiter="\t"),
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "arrow": _read_arrow,
}


def _check_columns(path: Place, columns: Sequence[str]) -> None:
    if not columns:
        raise DataError(f"{path} holds no table: it is empty", allowed="named columns and rows")
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise DataError(f"{path} has two columns called {', '.join(map(repr, twice))}", fix="give each its own name")


def _batched(path: Place, rows: Iterator[Row], batch_rows: int) -> Iterator[list[Row]]:
    while True:
        with _reading(path):
            batch = list(islice(rows, batch_rows))
        if not batch:
            return
        yield batch


# ----------------------------------------------------------------------------------------------------------- writing


class TableWriter(Protocol):
    """Takes rows, a batch at a time."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write a batch behind those before it.

        Raises:
            DataError: a row does not fit the columns.
        """


@contextmanager
def write_table(path: Path, table: Table, added: Mapping[str, pa.DataType]) -> Iterator[TableWriter]:
    """A writer of a table's rows with columns added; the file appears when the block ends well, or not at all.

    Args:
        path: its name says the format.

    Raises:
        ConfigError: no table by its name, or the table has such a column already.
    """
    kind, packed = table_format(path)
    if packed and (path.suffix.lower() != ".gz" or kind not in LINES):
        raise ConfigError(
            f"{path}: tables are written packed by gzip alone, and those of columns pack themselves",
            allowed=".csv.gz, .tsv.gz, .jsonl.gz, or no packing",
        )
    if taken := [name for name in added if name in table.columns]:
        raise ConfigError(
            f"the table has columns that would be overwritten: {', '.join(taken)}", fix="rename or remove them first"
        )
    with ExitStack() as stack:
        try:
            sink: Any = stack.enter_context(committed(path))
        except OSError as error:
            raise SetupError(f"{path} cannot be written: {error.strerror}", fix="name another file") from error
        if packed:  # no time in its header: the same rows are the same bytes
            sink = stack.enter_context(gzip.GzipFile("", "wb", fileobj=sink, mtime=0))
        if kind == "parquet":
            writer: Any = _ParquetRows(path, sink, table, added)
        elif kind in ("csv", "tsv"):
            writer = _CsvRows(path, sink, [*table.columns, *added], "," if kind == "csv" else "\t")
        elif kind == "arrow":
            raise ConfigError(f"{path}: Arrow files are read and not written", fix="write .parquet")
        else:
            writer = _JsonRows(sink)
        yield writer
        writer.close()


class _CsvRows:
    def __init__(self, path: Path, sink: BinaryIO, columns: list[str], delimiter: str) -> None:
        self._path, self._columns = path, columns
        self._text = io.TextIOWrapper(sink, "utf-8", newline="", write_through=True)
        self._lines = csv.writer(self._text, delimiter=delimiter, lineterminator="\n")
        self._lines.writerow(columns)

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            _check_fits(self._path, row, self._columns)
            self._lines.writerow([_field(row.get(name)) for name in self._columns])

    def close(self) -> None:
        self._text.detach()


def _field(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (dict, list, bool)) else value


class _JsonRows:
    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._sink.write(json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass") + b"\n")

    def close(self) -> None:
        """Nothing is held back."""


class _ParquetRows:
    """Its schema is that of the table, or what the first rows say."""

    def __init__(self, path: Path, sink: BinaryIO, table: Table, added: Mapping[str, pa.DataType]) -> None:
        self._path, self._sink, self._columns, self._added = path, sink, [*table.columns, *added], added
        self._schema = table.schema
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: Sequence[Row]) -> None:
        try:
            for row in rows:
                _check_fits(self._path, row, self._columns)
            self._opened(rows).write_table(pa.Table.from_pylist(list(rows), self._schema))
        except (pa.ArrowException, TypeError) as error:
            fix = "write .jsonl, which takes any value"
            raise DataError(f"{self._path}: a column has values of two kinds: {error}", fix=fix) from error

    def _opened(self, rows: Sequence[Row]) -> pq.ParquetWriter:
        if self._writer is not None:
            return self._writer
        if self._schema is None:
            names = [name for name in self._columns if name not in self._added]
            self._schema = pa.schema([(name, pa.array([row.get(name) for row in rows]).type) for name in names])
        for name, kind in self._added.items():
            self._schema = self._schema.append(pa.field(name, kind))
        self._writer = pq.ParquetWriter(self._sink, self._schema)
        return self._writer

    def close(self) -> None:
        self._opened([]).close()


def _check_fits(path: Path, row: Row, columns: Sequence[str]) -> None:
    if more := [name for name in row if name not in columns]:
        raise DataError(
            f"{path}: a row has a column {more[0]!r} that the first rows have not",
            fix="write .jsonl, where each row may have columns of its own",
        )

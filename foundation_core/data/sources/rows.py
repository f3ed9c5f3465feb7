"""The rows of tables as items of their own, for images and recordings, which are large beside what is known of them.

flowers.csv, row 12             --> "image_table/flowers.csv/000000012"
flowers.parquet, damaged there  --> "image_table/flowers.parquet/rest", refused; the rows before it are read

Items follow each other as the rows do, whatever their ids: each process reads a table once, from its start to its end.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from foundation_core.data.reading.decoding import decoded, is_utf8
from foundation_core.data.sources.documents import SourceFile, is_listed, patterns_of, reason_of, refused
from foundation_core.data.sources.ids import FirstOfEach, id_of
from foundation_core.data.stores.places import Place, below, located
from foundation_core.data.tables.batches import Row, field_of
from foundation_core.data.tables.columns import Arrow, Parquet
from foundation_core.data.tables.cuts import UNREADABLE, Broken, Cut, mentioned
from foundation_core.data.tables.files import LINES, is_table, open_table, table_format
from foundation_core.data.tables.records import Csv
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import SourceSpec
from foundation_core.specs.reading import ReadingSpec

_COLUMNS: Mapping[str, Parquet | Arrow] = {"parquet": Parquet(), "arrow": Arrow()}
_FIRST_ROWS = 256
"""Rows of a table of lines that say which columns it has."""


class RepairedRow(Row):
    """A row some of whose values were in old encodings.

    Args:
        encodings: of these, by the columns.
    """

    def __init__(self, values: Row, encodings: Mapping[str, str]) -> None:
        super().__init__(values)
        self.encodings = encodings


@dataclass(frozen=True)
class TableItem(SourceFile):
    """One row of a table.

    Args:
        row: its number, from 0.
        reading: what is repaired.
    """

    row: int
    reading: ReadingSpec = field(default=ReadingSpec(), kw_only=True)

    def values(self, fields: Sequence[str]) -> Row:
        """The fields of the row; of a table of lines there may be others."""
        return _cursor(self.path, self.path.stat().st_mtime_ns, tuple(fields), self.reading).row(self.row)


class TableSource:
    """The rows of a table, or of the tables of a folder that match a pattern."""

    name: str
    fields: list[str]
    """Columns that a table needs."""

    def __init__(self, spec: SourceSpec) -> None:
        if spec.path is None:
            raise ConfigError(f"source.kind={spec.kind} needs source.path", fix="name a table, or a folder of tables")
        self.path, self.spec = located(spec.path), spec
        if not self.path.exists():
            raise DataError(f"the table {self.path} is not there", fix="correct source.path")
        if not self.path.is_dir():
            table_format(self.path)

    def item(self, path: Place, document: str, number: int, row: Row) -> SourceFile:
        """The item of a row.

        Args:
            path: of the table.
            number: of the row, from 0.
        """
        raise NotImplementedError

    def files(self) -> list[SourceFile]:
        """Every row in the order of tables and rows; of those with one id, the first.

        In the order of ids that rows bring along, each would be looked for from the start of its table on.
        """
        found = [item for path in self.tables() for item in self._items(path)]
        return list(FirstOfEach(sorted(found, key=lambda item: item.place or item.document)))

    def tables(self) -> Iterator[Place]:
        """Every table."""
        if not self.path.is_dir():
            yield self.path
            return
        patterns = patterns_of(self.spec.pattern or "**/*")
        for path in dict.fromkeys(path for one in patterns for path in self.path.glob(one)):
            if is_listed(path) and (self.spec.pattern or is_table(path)):
                table_format(path)
                yield path

    def below(self, path: Place) -> str:
        """The name of a table in document ids."""
        return below(self.path, path).as_posix() if self.path.is_dir() else path.name

    def label(self, row: Row) -> str:
        """The label of a row, or empty; a lone surrogate in it is spelled out, as UTF-8 has none."""
        label = field_of(row, self.spec.label_field) if self.spec.label_field else None
        return "" if label is None else str(label).encode("utf-8", "backslashreplace").decode()

    def licence_of(self, row: Row) -> str:
        """The licence of a row, or empty: then that of the source."""
        licence = field_of(row, self.spec.licence_field) if self.spec.licence_field else None
        return "" if licence is None else str(licence).encode("utf-8", "backslashreplace").decode()

    def _items(self, path: Place) -> Iterator[SourceFile]:
        self._require(path)
        table = f"{self.name}/{self.below(path)}"
        for number, row in _until_damage(_all_rows(path, self.spec.reading, self.fields)):
            if isinstance(row, _Damage):
                reason = f"{row.reason}; how many rows are lost is not known"
                yield refused(SourceFile(f"{table}/rest", path, 0, ""), reason)
                return
            document = f"{table}/{number:09d}"
            if isinstance(row, Broken):
                yield refused(SourceFile(document, path, 0, ""), row.reason)
                continue
            item = self.item(path, document, number - 1, row)
            yield self._named(item, row) if self.spec.id_field else item

    def _named(self, item: SourceFile, row: Row) -> SourceFile:
        """An item, named by the id that its row brings along."""
        try:
            name = id_of(field_of(row, self.spec.id_field or ""))
        except ValueError as error:
            return refused(item, str(error))
        return replace(item, document=f"{self.name}/{name}", place=item.document)

    def _require(self, path: Place) -> None:
        """Refuse a table that lacks a column, by its first rows; of lines, by what they have in quotes anywhere.

        One that cannot be read lacks no column: its reading says why.

        Raises:
            ConfigError: it lacks one.
        """
        kind, _ = table_format(path)
        try:
            columns = self._columns(path)
            missing = _missing(self.fields, columns) if columns else []
            if missing and kind == "jsonl" and missing[0] != self.fields[0]:
                with open_table(path, self.spec.reading.most_expansion) as stream:
                    there = mentioned(stream, [*missing, *(name.split(".")[0] for name in missing)])
                missing = _missing(missing, there)
        except UNREADABLE:
            return
        if missing:
            raise ConfigError(f"{path} has no column {missing[0]!r}", allowed=", ".join(columns))

    def _columns(self, path: Place) -> list[str]:
        kind, _ = table_format(path)
        if kind not in LINES:
            with open_table(path, self.spec.reading.most_expansion) as stream:
                return _COLUMNS[kind].columns(stream, self.spec.reading)
        rows = islice(_until_damage(_all_rows(path, self.spec.reading, self.fields)), _FIRST_ROWS)
        return list(dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row))


def _missing(fields: Iterable[str], columns: Collection[str]) -> list[str]:
    """The fields that are not among columns; a dot leads into an object."""
    return [name for name in fields if name not in columns and name.split(".")[0] not in columns]


class _Cursor:
    """Reads the rows of a file forwards, and begins again to go back: units of work ask for rows in their order.

    It goes on in another row group of a Parquet file without reading what is between.
    """

    def __init__(self, path: Place, fields: Sequence[str], reading: ReadingSpec) -> None:
        self._path, self._fields, self._reading = path, fields, reading
        self._starts = _starts(path, reading)
        self._rows, self._behind = _all_rows(path, reading, fields), 0
        self._last: Row | Broken = {}

    def row(self, number: int) -> Row:
        """The row of a number.

        Raises:
            ValueError: it is a broken one.
            DataError: it is not there any longer.
        """
        if number != self._behind - 1:
            self._last = self._read(number)
        if isinstance(self._last, Broken):
            raise ValueError(self._last.reason)
        return self._last

    def _read(self, number: int) -> Row | Broken:
        if number < self._behind or self._group(number) > self._group(self._behind):
            self._rows, self._behind = _all_rows(self._path, self._reading, self._fields, number), number
        why = ""
        try:
            for behind, row in self._rows:
                self._behind = behind
                if behind > number:
                    return row
        except UNREADABLE as error:
            why = f": {why_broken(error)}"
        raise DataError(f"{self._path} changed while it was read: row {number + 1} is gone{why}", fix="run again")

    def _group(self, number: int) -> int:
        return bisect_right(self._starts, number)


@lru_cache(maxsize=1)
def _cursor(path: Place, changed: int, fields: tuple[str, ...], reading: ReadingSpec) -> _Cursor:
    return _Cursor(path, fields, reading)


def _starts(path: Place, reading: ReadingSpec) -> Sequence[int]:
    """Before which rows of a table reading can begin without those in front of them."""
    form = _COLUMNS.get(table_format(path)[0])
    if not isinstance(form, Parquet):
        return (0,)
    with open_table(path, reading.most_expansion) as stream:
        return form.starts(stream)


class _Damage(NamedTuple):
    """Why there are no more rows of a table that can be read."""

    reason: str


_Rows = Iterator[tuple[int, Row | Broken]]
"""Rows with their numbers, from 1; those that cannot be read as broken ones in their place."""


def _until_damage(rows: _Rows) -> Iterator[tuple[int, Row | Broken | _Damage]]:
    """The rows of a table, and why there are no more of one that breaks off."""
    number = 0
    try:
        for number, row in rows:
            yield number, row
    except UNREADABLE as error:
        yield number + 1, _Damage(why_broken(error))


def why_broken(error: Exception) -> str:
    """Why a table breaks off, in words that name no place on this machine."""
    if isinstance(error, OSError) and error.strerror:
        return reason_of(error)
    told = isinstance(error, ValueError) and not isinstance(error, pa.ArrowException)
    return str(error) if told else "the table ends too early, or is damaged here"


def _all_rows(path: Place, reading: ReadingSpec, fields: Sequence[str], start: int = 0) -> _Rows:
    """The rows of a table behind so many.

    Args:
        fields: what is read of a table of columns; one of lines is read with all that it has.

    Raises:
        OSError, EOFError, ValueError, pa.ArrowException: it is damaged or cut off, from here on.
    """
    kind, _ = table_format(path)
    with open_table(path, reading.most_expansion) as stream:
        if kind not in LINES:
            yield from _of_columns(stream, _COLUMNS[kind], fields, start, reading)
            return
        rows = _objects(stream, reading.repair_encoding) if kind == "jsonl" else _records(stream, kind, reading)
        yield from islice(enumerate(rows, 1), start, None)


def _of_columns(
    stream: BinaryIO, form: Parquet | Arrow, fields: Sequence[str], start: int, reading: ReadingSpec
) -> _Rows:
    """The rows of a table of columns; its texts are read as those of lines are."""
    schema = form.schema(stream, reading)
    _check_columns(schema.names)
    wanted = list(dict.fromkeys(name if name in schema.names else name.split(".")[0] for name in fields))
    kinds = {name: schema.field(name).type for name in wanted if name in schema.names}
    texts = [name for name, kind in kinds.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)]
    for number, row in form.rows_from(stream, start, wanted, reading):
        yield number, row if isinstance(row, Broken) else _with_texts(dict(row), texts, reading.repair_encoding)


def _check_columns(columns: Sequence[str]) -> None:
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ValueError(f"two of its columns are called {', '.join(map(repr, twice))}")


def _objects(stream: BinaryIO, repair: bool) -> Iterator[Row | Broken]:
    for number, line in enumerate(stream):
        line = line if number else line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            text, encoding = _text(line, repair)
        except ValueError as error:
            yield Broken(str(error))
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield Broken(f"not JSON: {error}")
            continue
        if not isinstance(row, dict):
            yield Broken(f"a JSON {type(row).__name__}, not an object")
        else:
            yield RepairedRow(row, dict.fromkeys(row, encoding)) if encoding else row


def _records(stream: BinaryIO, kind: str, reading: ReadingSpec) -> Iterator[Row | Broken]:
    form = Csv("," if kind == "csv" else "\t")
    columns = form.columns(stream, reading)
    _check_columns(columns)
    rows = form.rows(stream, Cut(0, 1 << 62, 0, 0), columns, reading)
    for _, row in islice(rows, 1, None):  # behind the names of the columns
        if isinstance(row, Broken):
            yield row
            continue
        yield _with_texts({name: row.get(name) for name in columns}, columns, reading.repair_encoding)


def _with_texts(row: Row, texts: Iterable[str], repair: bool) -> Row | Broken:
    """A row whose texts are bytes so far.

    Args:
        texts: the columns that hold them.
    """
    encodings = dict[str, str]()
    for name in texts:
        if row.get(name) is not None:
            try:
                row[name], encoding = _text(row[name], repair)
            except ValueError as error:
                return Broken(str(error))
            if encoding:
                encodings[name] = encoding
    return RepairedRow(row, encodings) if encodings else row


def _text(value: bytes, repair: bool) -> tuple[str, str]:
    """A value as it is, for it may be a path, and the old encoding that it was in, if it was; then it is in NFC."""
    return (value.decode(), "") if is_utf8(value) else decoded(value, repair)

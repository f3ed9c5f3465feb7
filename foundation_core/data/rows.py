"""The rows of tables as items of their own, for images and recordings, which are large beside what is known of them.

flowers.csv, row 12 --> "image_table/flowers.csv/000000012"
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import BinaryIO

from foundation_core.data.cuts import UNREADABLE, Broken, Cut, mentioned
from foundation_core.data.decoding import decoded, is_utf8
from foundation_core.data.documents import SourceFile, is_listed, patterns_of, reason_of, refused
from foundation_core.data.ids import FirstOfEach, id_of
from foundation_core.data.places import Place, below, located
from foundation_core.data.records import Csv
from foundation_core.data.table_files import LINES, is_table, open_table, table_format
from foundation_core.data.tables import Row, field_of, read_table
from foundation_core.errors import ConfigError, DataError
from foundation_core.spec_reading import ReadingSpec
from foundation_core.specs import SourceSpec

_BATCH_ROWS = 256


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

    def values(self) -> Row:
        """The row."""
        return _cursor(self.path, self.path.stat().st_mtime_ns, self.reading).row(self.row)


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
        """Every row, sorted by document id; of those with one id, the first in the order of tables and rows."""
        found = [item for path in self.tables() for item in self._items(path)]
        in_place = sorted(found, key=lambda item: item.place or item.document)
        return sorted(FirstOfEach(in_place), key=lambda item: item.document)

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
        for number, row in enumerate(_all_rows(path, self.spec.reading)):
            document = f"{self.name}/{self.below(path)}/{number + 1:09d}"
            if isinstance(row, Broken):
                yield refused(SourceFile(document, path, 0, ""), row.reason)
                continue
            item = self.item(path, document, number, row)
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

        Raises:
            ConfigError: it lacks one.
            DataError: it is no table.
        """
        kind, _ = table_format(path)
        if kind not in LINES:
            with read_table(path, _BATCH_ROWS) as table:
                columns = table.columns
        else:
            first = (row for row in _all_rows(path, self.spec.reading) if not isinstance(row, Broken))
            columns = list(dict.fromkeys(name for row in islice(first, _BATCH_ROWS) for name in row))
        if not columns:
            raise DataError(f"{path} holds no row that can be read", allowed="named columns and rows")
        missing = _missing(self.fields, columns)
        if missing and kind == "jsonl" and missing[0] != self.fields[0]:
            try:
                with open_table(path, self.spec.reading.most_expansion) as stream:
                    there = mentioned(stream, [*missing, *(name.split(".")[0] for name in missing)])
            except UNREADABLE:
                return  # its reading says why
            missing = _missing(missing, there)
        if missing:
            raise ConfigError(f"{path} has no column {missing[0]!r}", allowed=", ".join(columns))


def _missing(fields: Iterable[str], columns: Collection[str]) -> list[str]:
    """The fields that are not among columns; a dot leads into an object."""
    return [name for name in fields if name not in columns and name.split(".")[0] not in columns]


class _Cursor:
    """Reads the rows of a file forwards, and begins again to go back: units of work ask for rows in their order."""

    def __init__(self, path: Place, reading: ReadingSpec) -> None:
        self._path, self._reading = path, reading
        self._rows, self._next = _all_rows(path, reading), 0
        self._last: Row | Broken = {}

    def row(self, number: int) -> Row:
        """The row of a number."""
        if number != self._next - 1:
            if number < self._next:
                self._rows, self._next = _all_rows(self._path, self._reading), 0
            found = next(islice(self._rows, number - self._next, None), None)
            if found is None:
                raise DataError(f"{self._path} changed while it was read: row {number + 1} is gone", fix="run again")
            self._next, self._last = number + 1, found
        if isinstance(self._last, Broken):
            raise ValueError(self._last.reason)
        return self._last


@lru_cache(maxsize=1)
def _cursor(path: Place, changed: int, reading: ReadingSpec) -> _Cursor:
    return _Cursor(path, reading)


def _all_rows(path: Place, reading: ReadingSpec) -> Iterator[Row | Broken]:
    """The rows of a table; of lines, those that cannot be read as broken ones in their place."""
    kind, _ = table_format(path)
    if kind not in LINES:
        with read_table(path, _BATCH_ROWS) as table:
            for batch in table.batches:
                yield from batch
        return
    try:
        with open_table(path) as stream:
            yield from _objects(stream, reading.repair_encoding) if kind == "jsonl" else _records(stream, kind, reading)
    except UNREADABLE as error:
        reason = reason_of(error) if isinstance(error, (OSError, ValueError)) else "it ends too early"
        raise DataError(f"{path} cannot be read to its end: {reason}", fix="repair it, or get it again") from error


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
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ValueError(f"two of its columns are called {', '.join(map(repr, twice))}")
    rows = form.rows(stream, Cut(0, 1 << 62, 0, 0), columns, reading)
    for _, row in islice(rows, 1, None):  # behind the names of the columns
        if isinstance(row, Broken):
            yield row
            continue
        try:
            texts = {name: _text(value, reading.repair_encoding) for name, value in row.items()}
        except ValueError as error:
            yield Broken(str(error))
        else:
            values = {name: texts[name][0] if name in texts else None for name in columns}
            encodings = {name: encoding for name, (_, encoding) in texts.items() if encoding}
            yield RepairedRow(values, encodings) if encodings else values


def _text(value: bytes, repair: bool) -> tuple[str, str]:
    """A value as it is, for it may be a path, and the old encoding that it was in, if it was; then it is in NFC."""
    return (value.decode(), "") if is_utf8(value) else decoded(value, repair)

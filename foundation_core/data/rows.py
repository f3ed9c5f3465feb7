"""The rows of tables as documents: a text, and a label that becomes the document's group.

    reviews.csv, row 12 --> document "table/reviews.csv/000000012", group = its label, text = its text

The names of the columns are not part of the identity: what they hold is the content.
"""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from foundation_core.data.documents import NOT_STATED, SourceFile
from foundation_core.data.tables import Row, is_table, read_table, table_format
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import SourceSpec

_BATCH_ROWS = 256


@dataclass(frozen=True)
class TableItem(SourceFile):
    """One row of a table.

    Args:
        row: its number, from 0.
    """

    row: int

    def values(self) -> Row:
        """The row."""
        return _cursor(self.path, self.path.stat().st_mtime_ns).row(self.row)


@dataclass(frozen=True)
class TableRow(TableItem):
    """The text of a row.

    Args:
        bytes: of its text.
        sha256: of label and text, when the table was listed.
    """

    text_field: str
    sha256: str

    def read(self) -> builtins.bytes:
        """The text; ValueError where there is none."""
        return _text(self.values().get(self.text_field))

    def digest(self) -> str:
        """Of label and text."""
        return self.sha256


class TableSource:
    """The rows of a table, or of the tables of a folder that match a pattern."""

    name: str
    fields: list[str]
    """Columns that a table needs."""

    def __init__(self, spec: SourceSpec) -> None:
        if spec.path is None:
            raise ConfigError(f"source.kind={spec.kind} needs source.path", fix="name a table, or a folder of tables")
        self.path, self.spec = Path(spec.path).expanduser(), spec
        if not self.path.exists():
            raise DataError(f"the table {self.path} is not there", fix="correct source.path")
        if not self.path.is_dir():
            table_format(self.path)

    def item(self, path: Path, document: str, number: int, row: Row) -> SourceFile:
        """The item of a row.

        Args:
            path: of the table.
            number: of the row, from 0.
        """
        raise NotImplementedError

    def files(self) -> list[SourceFile]:
        """Every row, sorted by document id."""
        return sorted((item for path in self.tables() for item in self._items(path)), key=lambda item: item.document)

    def tables(self) -> Iterator[Path]:
        """Every table."""
        if not self.path.is_dir():
            yield self.path
            return
        for path in self.path.glob(self.spec.pattern or "**/*"):
            if path.is_file() and (self.spec.pattern or is_table(path)):
                table_format(path)
                yield path

    def below(self, path: Path) -> str:
        """The name of a table in document ids."""
        return path.relative_to(self.path).as_posix() if self.path.is_dir() else path.name

    def label(self, row: Row) -> str:
        """The label of a row, or empty."""
        label = row.get(self.spec.label_field) if self.spec.label_field else None
        return "" if label is None else str(label)

    def _items(self, path: Path) -> Iterator[SourceFile]:
        with read_table(path, _BATCH_ROWS) as table:
            for field in self.fields:
                table.require(field, path)
            for number, row in enumerate(row for batch in table.batches for row in batch):
                yield self.item(path, f"{self.name}/{self.below(path)}/{number + 1:09d}", number, row)


class Tables(TableSource):
    """The texts of tables."""

    modality, captioned = "text", False
    name = "table"
    language = "text"
    licence = NOT_STATED

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec)
        self.fields = [spec.text_field, *filter(None, [spec.label_field])]
        self.description = "rows of tables, each a text" + (" with a label" if spec.label_field else "")

    def item(self, path: Path, document: str, number: int, row: Row) -> SourceFile:
        """The text of a row."""
        group = self.label(row)
        try:
            data = _text(row.get(self.spec.text_field))
            content = hashlib.sha256(group.encode() + b"\0" + data).hexdigest()
        except ValueError as error:  # the read quarantines it for the same reason, so the reason is its content
            data, content = b"", str(error)
        return TableRow(document, path, len(data), group, number, self.spec.text_field, content)


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("no text" if value is None else f"{type(value).__name__}, not a text")
    return value.encode()


class _Cursor:
    """Reads the rows of a file forwards, and begins again to go back: units of work ask for rows in their order."""

    def __init__(self, path: Path) -> None:
        self._path, self._rows, self._next = path, _all_rows(path), 0
        self._last: Row = {}

    def row(self, number: int) -> Row:
        """The row of a number."""
        if number == self._next - 1:
            return self._last
        if number < self._next:
            self._rows, self._next = _all_rows(self._path), 0
        found = next(islice(self._rows, number - self._next, None), None)
        if found is None:
            raise DataError(f"{self._path} changed while it was read: row {number + 1} is gone", fix="run again")
        self._next, self._last = number + 1, found
        return found


@lru_cache(maxsize=1)
def _cursor(path: Path, changed: int) -> _Cursor:
    return _Cursor(path)


def _all_rows(path: Path) -> Iterator[Row]:
    with read_table(path, _BATCH_ROWS) as table:
        for batch in table.batches:
            yield from batch

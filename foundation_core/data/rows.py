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

from foundation_core.data.documents import NOT_STATED, PYTHON_FILES, SourceFile
from foundation_core.data.tables import Row, read_table, table_format
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import SourceSpec

_BATCH_ROWS = 256


@dataclass(frozen=True)
class TableRow(SourceFile):
    """One row of a table.

    Args:
        bytes: of its text.
        row: its number, from 0.
        sha256: of label and text, when the table was listed.
    """

    text_field: str
    row: int
    sha256: str

    def read(self) -> builtins.bytes:
        """The text; ValueError where there is none."""
        row = _cursor(self.path, self.path.stat().st_mtime_ns).row(self.row)
        return _text(row.get(self.text_field))

    def digest(self) -> str:
        """Of label and text."""
        return self.sha256


class Tables:
    """The rows of a table, or of the tables of a folder that match a pattern."""

    modality, captioned = "text", False
    language = "text"
    licence = NOT_STATED

    def __init__(self, spec: SourceSpec) -> None:
        if spec.path is None:
            raise ConfigError("source.kind=table needs source.path", fix="name a table, or a folder of tables")
        self.path, self._spec = Path(spec.path).expanduser(), spec
        self.description = "rows of tables, each a text" + (" with a label" if spec.label_field else "")
        if not self.path.exists():
            raise DataError(f"the table {self.path} is not there", fix="correct source.path")
        if not self.path.is_dir():
            table_format(self.path)

    def files(self) -> list[SourceFile]:
        """Every row, sorted by document id."""
        return sorted((row for path in self._tables() for row in self._rows(path)), key=lambda row: row.document)

    def _tables(self) -> Iterator[Path]:
        if not self.path.is_dir():
            yield self.path
            return
        for path in self.path.glob(self._spec.pattern or PYTHON_FILES):
            if path.is_file():
                table_format(path)
                yield path

    def _rows(self, path: Path) -> Iterator[TableRow]:
        text_field, label_field = self._spec.text_field, self._spec.label_field
        below = path.relative_to(self.path).as_posix() if self.path.is_dir() else path.name
        with read_table(path, _BATCH_ROWS) as table:
            for field in filter(None, (text_field, label_field)):
                table.require(field, path)
            for number, row in enumerate(row for batch in table.batches for row in batch):
                label = row.get(label_field) if label_field else None
                group = "" if label is None else str(label)
                try:
                    data = _text(row.get(text_field))
                    content = hashlib.sha256(group.encode() + b"\0" + data).hexdigest()
                except ValueError as error:  # the read quarantines it for the same reason, so the reason is its content
                    data, content = b"", str(error)
                yield TableRow(f"table/{below}/{number + 1:09d}", path, len(data), group, text_field, number, content)


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("no text" if value is None else f"{type(value).__name__}, not a text")
    return value.encode()


class _Cursor:
    """Reads the rows of a file forwards, and begins again to go back: units of work ask for rows in their order."""

    def __init__(self, path: Path) -> None:
        self._path, self._rows, self._next = path, _all_rows(path), 0

    def row(self, number: int) -> Row:
        """The row of a number."""
        if number < self._next:
            self._rows, self._next = _all_rows(self._path), 0
        found = next(islice(self._rows, number - self._next, None), None)
        if found is None:
            raise DataError(f"{self._path} changed while it was read: row {number + 1} is gone", fix="run again")
        self._next = number + 1
        return found


@lru_cache(maxsize=1)
def _cursor(path: Path, changed: int) -> _Cursor:
    return _Cursor(path)


def _all_rows(path: Path) -> Iterator[Row]:
    with read_table(path, _BATCH_ROWS) as table:
        for batch in table.batches:
            yield from batch

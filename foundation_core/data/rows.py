"""The rows of tables as items of their own, for images and recordings, which are large beside what is known of them.

flowers.csv, row 12 --> "image_table/flowers.csv/000000012"
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

from foundation_core.data.documents import SourceFile, is_listed, refused
from foundation_core.data.ids import FirstOfEach, id_of
from foundation_core.data.places import Place, below, located
from foundation_core.data.tables import Row, field_of, is_table, read_table, table_format
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
        for path in self.path.glob(self.spec.pattern or "**/*"):
            if is_listed(path) and (self.spec.pattern or is_table(path)):
                table_format(path)
                yield path

    def below(self, path: Place) -> str:
        """The name of a table in document ids."""
        return below(self.path, path).as_posix() if self.path.is_dir() else path.name

    def label(self, row: Row) -> str:
        """The label of a row, or empty; a lone surrogate in it is spelled out, as UTF-8 has none."""
        label = row.get(self.spec.label_field) if self.spec.label_field else None
        return "" if label is None else str(label).encode("utf-8", "backslashreplace").decode()

    def licence_of(self, row: Row) -> str:
        """The licence of a row, or empty: then that of the source."""
        licence = field_of(row, self.spec.licence_field) if self.spec.licence_field else None
        return "" if licence is None else str(licence).encode("utf-8", "backslashreplace").decode()

    def _items(self, path: Place) -> Iterator[SourceFile]:
        with read_table(path, _BATCH_ROWS) as table:
            for field in self.fields:
                table.require(field, path)
            for number, row in enumerate(row for batch in table.batches for row in batch):
                item = self.item(path, f"{self.name}/{self.below(path)}/{number + 1:09d}", number, row)
                yield self._named(item, row) if self.spec.id_field else item

    def _named(self, item: SourceFile, row: Row) -> SourceFile:
        """An item, named by the id that its row brings along."""
        try:
            name = id_of(field_of(row, self.spec.id_field or ""))
        except ValueError as error:
            return refused(item, str(error))
        return replace(item, document=f"{self.name}/{name}", place=item.document)


class _Cursor:
    """Reads the rows of a file forwards, and begins again to go back: units of work ask for rows in their order."""

    def __init__(self, path: Place) -> None:
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
def _cursor(path: Place, changed: int) -> _Cursor:
    return _Cursor(path)


def _all_rows(path: Place) -> Iterator[Row]:
    with read_table(path, _BATCH_ROWS) as table:
        for batch in table.batches:
            yield from batch

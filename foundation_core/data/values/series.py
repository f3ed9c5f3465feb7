"""Tables of numbers become windows of one length: a row is a moment, a column is a channel.

    table of R rows:   | train ............ | validation .. | test ... |     in the order of its rows
    windows:           |----|  |----|  |----| |----|  |----|  |----|         of `window` rows, every `stride` rows

A table is cut into its splits by time before windows are cut from it, so that no window reaches over a border and none
of the test lies before what was trained on.
"""

from __future__ import annotations

import builtins
import csv
import hashlib
import io
import math
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import pyarrow as pa

from foundation_core.data.sources.documents import NOT_STATED, SourceFile, file_bytes, reason_of, refused
from foundation_core.data.sources.modalities import Content, Item, Modality
from foundation_core.data.sources.rows import TableSource, why_broken
from foundation_core.data.split import SPLITS, Split
from foundation_core.data.tables.batches import read_table
from foundation_core.data.tables.cuts import UNREADABLE
from foundation_core.errors import ConfigError, DataError
from foundation_core.shape import SampleShape
from foundation_core.specs import IngestSpec, SourceSpec, SplitSpec

_BATCH_ROWS = 1024


@dataclass(frozen=True)
class SeriesFile(SourceFile):
    """A table of numbers.

    Args:
        label_field, licence_field: the columns that hold the label and the licence of each row, or None.
    """

    label_field: str | None
    licence_field: str | None

    def require(self, columns: Sequence[str]) -> None:
        """Refuse columns that it has not.

        Raises:
            ConfigError: one is not there, with those that are.
        """
        with read_table(self.path, 1) as table:
            for column in columns:
                table.require(column, self.path)

    def columns(self, names: Sequence[str]) -> list[list[Any]]:
        """Whole columns, as they stand there."""
        with read_table(self.path, _BATCH_ROWS) as table:
            rows = [[row.get(name) for name in names] for batch in table.batches for row in batch]
        return [list(column) for column in zip(*rows, strict=True)]

    def stretches(self, rows: int, split: SplitSpec) -> list[tuple[Split, int, int]]:
        """Its parts by split, from one row to before another: it is cut by time, and its end is the test."""
        borders = _borders(rows, split)
        return list(zip(SPLITS, borders, borders[1:], strict=False))

    def labels(self) -> list[str]:
        """The label of each row, or empty: as many as there are rows.

        Raises:
            ConfigError: there is no such column.
        """
        return self._column(self.label_field)

    def licences(self) -> list[str]:
        """The licence of each row, likewise."""
        return self._column(self.licence_field)

    def _column(self, field: str | None) -> list[str]:
        with read_table(self.path, _BATCH_ROWS) as table:
            if field is None:
                return [""] * sum(map(len, table.batches))
            table.require(field, self.path)
            found = [row.get(field) for batch in table.batches for row in batch]
        return ["" if value is None else str(value) for value in found]

    def said(self, columns: Sequence[str] = ()) -> tuple[list[str], list[str]]:
        """The labels and the licences of its rows, which are all read for it.

        Args:
            columns: that it must have.

        Raises:
            ConfigError: there is no such column.
            ValueError: it is damaged, in words that name no place on this machine.
        """
        try:
            self.require(columns)
            return self.labels(), self.licences()
        except DataError as error:
            raise ValueError(error.found.replace(str(self.path), self.path.name)) from error
        except UNREADABLE as error:
            raise ValueError(why_broken(error)) from error

    def digest(self) -> str:
        """Of the table and what is said of its rows; of a damaged one, of its bytes alone."""
        labels, licences = list[str](), list[str]()
        if self.label_field or self.licence_field:
            with suppress(ValueError):
                labels, licences = self.said()
        said = [*(labels if self.label_field else ()), *(licences if self.licence_field else ())]
        return hashlib.sha256(super().digest().encode() + "\0".join(said).encode()).hexdigest()


@dataclass(frozen=True)
class Window(SourceFile):
    """Some rows of a table, one after the other.

    Args:
        table: that they are rows of.
        first: number of the first one, from 0.
        rows: how many there are.
    """

    table: SeriesFile
    first: int
    rows: int
    columns: tuple[str, ...]

    def read(self) -> builtins.bytes:
        """The rows as a CSV table of the columns.

        Raises:
            OSError, ValueError: the table cannot be read.
        """
        columns = _columns(self.table, self.path.stat().st_mtime_ns, self.columns)
        if isinstance(columns, str):
            raise ValueError(columns)
        lines = io.StringIO()
        writer = csv.writer(lines)
        writer.writerow(self.columns)
        writer.writerows(zip(*(column[self.first : self.first + self.rows] for column in columns), strict=True))
        return lines.getvalue().encode()

    def digest(self) -> str:
        """Of the rows; or why they cannot be read."""
        try:
            return super().digest()
        except ValueError as error:
            return reason_of(error)


@lru_cache(maxsize=1)
def _columns(table: SeriesFile, changed: int, names: tuple[str, ...]) -> list[list[Any]] | str:
    """Whole columns of a table, or why they cannot be read, which is not tried for each of its windows: windows
    overlap, and a worker reads one table after the other."""
    try:
        return table.columns(names)
    except (OSError, ValueError) as error:
        return reason_of(error)


class Series(Modality):
    """Windows of tables of numbers."""

    libraries = ()
    reads = ("series",)
    values = pa.float32()

    def __init__(self, spec: IngestSpec) -> None:
        self._spec, self._split = spec.series, spec.split
        columns = self._spec.columns
        if not columns:
            raise ConfigError("ingest.series.columns is empty", fix="name the columns of numbers, one or more")
        self.shape = SampleShape(channels=len(columns), height=1, width=self._spec.window)
        self.reading = (
            f"Windows of {self._spec.window:,} rows, one every {self._spec.stride:,}, of the columns"
            f" {', '.join(columns)}, as float32. Each table was cut by its rows: its first part trains, its last is the"
            " test, and no window reaches over a border; a recording lies in one split as a whole."
        )

    def items(self, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
        """The windows of every table; one that is damaged, or gives no window, is refused with the reason."""
        return [window for file in files for window in self._windows(file)]

    def _windows(self, file: SourceFile) -> Sequence[SourceFile]:
        if not isinstance(file, SeriesFile):
            return [file]  # its source refused it; it is quarantined with the reason
        try:
            labels, licences = file.said(self._spec.columns)
        except ValueError as error:
            return [refused(file, str(error))]
        rows, length = len(labels), self._spec.window
        windows = [
            Window(
                document=f"{file.document}/{first + 1:09d}",
                path=file.path,
                bytes=4 * length * len(self._spec.columns),
                group=labels[first + length - 1],
                splits=(split,),
                source=file.source,
                licence="; ".join(dict.fromkeys(filter(None, licences[first : first + length]))) or file.licence,
                table=file,
                first=first,
                rows=length,
                columns=self._spec.columns,
            )
            for split, start, end in file.stretches(rows, self._split)
            for first in range(start, end - length + 1, self._spec.stride)
        ]
        return windows or [refused(file, _too_short(rows, length))]

    def example(self) -> Item:
        """A wave in each column."""
        wave = [math.sin(place / 4) for place in range(self._spec.window)]
        return [wave for _ in self._spec.columns]

    def read(self, data: bytes) -> Content:
        """The numbers, (columns, 1, rows), of a CSV table that has the columns and as many rows as a window."""
        try:
            rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"not a CSV table: {error}") from error
        if len(rows) != self._spec.window:
            raise ValueError(f"{len(rows)} rows; a window has {self._spec.window}")
        numbers = [_number(row, number, name) for name in self._spec.columns for number, row in enumerate(rows, 1)]
        return Content(values=struct.pack(f"<{len(numbers)}f", *numbers))


def _too_short(rows: int, window: int) -> str:
    """Why a table gives no window: said by its rows alone, as a unit that is read is used again with other splits."""
    if rows < window:
        return f"{rows:,} rows; a window has {window:,}"
    return f"{rows:,} rows, and none of its splits has as many as a window: {window:,}"


def _borders(rows: int, split: SplitSpec) -> tuple[int, int, int, int]:
    """Where the splits of a table begin, and where the last one ends."""
    test = rows - round(rows * split.test_fraction)
    return 0, test - round(rows * split.validation_fraction), test, rows


def _number(row: dict[str, str], number: int, name: str) -> float:
    text = row.get(name)
    try:
        found = struct.unpack("<f", struct.pack("<f", float(text or "")))[0]
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"row {number} has no number in column {name!r}: {text!r}")
    return cast(float, found)


class SeriesTables(TableSource):
    """Tables of numbers: one, or those of a folder that match a pattern."""

    modality, captioned = "series", False
    name = "series_table"
    description, language = "tables of numbers, row after row", "none"

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec)
        self.fields = []
        self.licence = spec.licence or NOT_STATED

    def files(self) -> list[SourceFile]:
        """Every table."""
        said = self.spec.label_field, self.spec.licence_field
        found = [
            SeriesFile(f"{self.name}/{self.below(path)}", path, file_bytes(path), "", *said) for path in self.tables()
        ]
        return sorted(found, key=lambda file: file.document)

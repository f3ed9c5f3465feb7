"""Tables of texts: each row is a document, and a part of a table is what one worker reads.

    reviews.jsonl --parts--> bytes 0 to 4 M, ... --entries--> "table/reviews.jsonl/000000012", group = its label

Listing a table costs one pass over its bytes; no row becomes an object before a worker reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from foundation_core.data.formats.base import check_size
from foundation_core.data.reading.decoding import decoded, is_utf8
from foundation_core.data.reading.frames import copy_of
from foundation_core.data.sources.documents import (
    NOT_STATED,
    Entry,
    SourceFile,
    before_wildcards,
    entries_of,
    file_bytes,
    refused,
)
from foundation_core.data.sources.ids import id_of
from foundation_core.data.sources.rows import TableSource, why_broken
from foundation_core.data.tables.batches import field_of
from foundation_core.data.tables.columns import Arrow, Parquet
from foundation_core.data.tables.cuts import UNREADABLE, Broken, Cut, Fields, Format, Lines, Repaired, mentioned
from foundation_core.data.tables.files import copied_table, open_table, table_format
from foundation_core.data.tables.records import Csv
from foundation_core.errors import ConfigError
from foundation_core.specs import SourceSpec
from foundation_core.specs.reading import ReadingSpec

_CHUNK_BYTES = 1 << 20
CUT: Mapping[str, Format] = {
    "jsonl": Lines(), "csv": Csv(), "tsv": Csv("\t"), "parquet": Parquet(), "arrow": Arrow(),
}  # fmt: skip
"""The formats, by the names that `table_files.table_format` gives them."""
DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars", ",": "commas"}
"""What stands between values, and how it is called."""
_IN_UTF8 = "set source.reading.repair_encoding, or save it as UTF-8"


class Columns(NamedTuple):
    """What of a row is read, by the names of its fields; a dot leads into an object."""

    text: str
    label: str | None = None
    licence: str | None = None
    id: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are wanted."""
        return tuple(name for name in self if name)

    def missing(self, there: Collection[str]) -> list[str]:
        """Those of the wanted ones that are not among the names of a table's columns."""
        return [name for name in self.names if name not in there and name.split(".")[0] not in there]


@dataclass(frozen=True)
class TextTable(SourceFile):
    """A table.

    Args:
        below: how its id ends: its path below the source's folder.
        delimiter: what stands between the values of a CSV file. Empty: what its name says.
    """

    columns: Columns
    reading: ReadingSpec
    below: str
    delimiter: str = ""

    @property
    def format(self) -> Format:
        """How it holds rows."""
        return Csv(self.delimiter) if self.delimiter else CUT[table_format(self.path)[0]]

    def decided_by(self) -> str:
        """The names of what is read of it."""
        return repr(self.columns)

    def required(self) -> TextTable:
        """The table, with what stands between its values. One that cannot be read lacks no column.

        That a CSV file has other delimiters than its name says shows in its first line: by them it has the columns
        that are asked for, and by its own it has not.

        Raises:
            ConfigError: it lacks a column that is read.
        """
        try:
            own = self._columns()
            missing = self.columns.missing(own) if own else []
            if missing and isinstance(self.format, Csv):
                for other in (replace(self, delimiter=delimiter) for delimiter in DELIMITERS):
                    with suppress(ValueError):  # a first line that is no CSV by it
                        if not self.columns.missing(other._columns()):
                            return other
            if missing and isinstance(self.format, Lines) and self.columns.text not in missing:
                with open_table(self.path, self.reading.most_expansion) as stream:
                    there = mentioned(stream, [*missing, *(name.split(".")[0] for name in missing)])
                missing = self.columns.missing({*own, *there})
        except UNREADABLE:
            return self  # its reading says why
        if missing:
            in_utf8 = "\ufffd" not in "".join(own)
            raise ConfigError(
                f"{self.path} has no column {missing[0]!r}",
                allowed=", ".join(own),
                fix="" if in_utf8 else f"its first line is not UTF-8: {_IN_UTF8}",
            )
        return self

    def _columns(self) -> list[str]:
        with open_table(self.path, self.reading.most_expansion) as stream:
            return self.format.columns(stream, self.reading)

    def parts(self, unit_bytes: int, copies: Path | None = None) -> Iterator[SourceFile]:
        """Parts of its rows. One that is damaged ends with a part that says so."""
        copy = copy_of(copies, self.document)
        try:
            with copied_table(self.path, self.reading.most_expansion, copy, unit_bytes) as stream:
                whole = ""
                for cut in self.format.cuts(stream, unit_bytes, self.reading):
                    if not cut.digest:  # rows of columns have no bytes of their own
                        whole = whole or self.digest()
                        cut = cut._replace(digest=whole)
                    size = cut.stop - cut.start
                    yield TablePart(
                        f"{self.document}/{cut.first:09d}+{size}", self.path, size, "", source=self.source,
                        licence=self.licence, table=self, cut=cut, copy=copy,
                    )  # fmt: skip
        except UNREADABLE as error:
            reason = f"{why_broken(error)}; how many rows are lost is not known"
            yield refused(replace(self, document=f"{self.document}/rest"), reason)

    def entries(self) -> Iterator[SourceFile]:
        """Its rows as documents."""
        return entries_of(self, _CHUNK_BYTES)


@dataclass(frozen=True)
class TablePart(SourceFile):
    """Some rows of a table, one behind the other.

    Args:
        copy: where a packed one was unpacked to, if it was.
    """

    table: TextTable
    cut: Cut
    copy: Path | None

    def digest(self) -> str:
        """Hex sha256 of its bytes and of the names of what is read of it: rows that join behind it change nothing."""
        return hashlib.sha256(f"{self.table.columns!r}{self.cut.digest}".encode()).hexdigest()

    def most_documents(self) -> int:
        """Its rows, and a place where it breaks off."""
        return self.cut.last - self.cut.first + 2

    def may_hold(self, pattern: str) -> bool:
        """Whether a row of it may have an id that fits the pattern; of an id without wildcards, whether one has."""
        literal = before_wildcards(pattern)
        if self.table.columns.id is not None:  # any row may have any id
            named = self.table.document.removesuffix(self.table.below)
            return named.startswith(literal) or literal.startswith(named)
        rows = f"{self.table.document}/"
        if literal != pattern:
            return rows.startswith(literal) or literal.startswith(rows)
        number = pattern.removeprefix(rows)
        return number != pattern and number.isdecimal() and self.cut.first <= int(number) <= self.cut.last

    def entries(self) -> Iterator[SourceFile]:
        """Its rows as documents; one that cannot be read as a refused one."""
        columns, reading, number = self.table.columns, self.table.reading, self.cut.first - 1
        try:
            with open_table(self.path, reading.most_expansion, self.copy) as stream:
                for number, row in self.table.format.rows(stream, self.cut, columns.names, reading):
                    yield self._entry(number, row)
        except UNREADABLE as error:
            yield refused(self._named(number + 1), why_broken(error))

    def _named(self, number: int) -> SourceFile:
        return SourceFile(
            f"{self.table.document}/{number:09d}", self.path, 0, "", source=self.source, licence=self.licence
        )

    def _entry(self, number: int, row: Fields | Broken) -> SourceFile:
        document, columns = self._named(number), self.table.columns
        if isinstance(row, Broken):
            return refused(document, row.reason)
        reading = self.table.reading
        try:
            if columns.id is not None:
                name = self.table.document.removesuffix(self.table.below) + id_of(field_of(row, columns.id))
                document = replace(document, document=name, place=document.document)
            data, encoding = _text(field_of(row, columns.text), reading.repair_encoding)
            check_size(len(data), reading, "a text")
            label, licence = (
                _said(field_of(row, name), name, reading.repair_encoding) if name else ""
                for name in (columns.label, columns.licence)
            )
        except ValueError as error:
            return refused(document, str(error))
        if isinstance(row, Repaired):
            encoding = row.encoding
        return Entry(
            document.document, self.path, len(data), label, source=self.source, licence=licence or self.licence,
            encoding=encoding, place=document.place, data=data,
        )  # fmt: skip


def _text(value: Any, repair: bool) -> tuple[bytes, str]:
    """A text in UTF-8, and the old encoding that it was in, if it was; what is in none is left to its modality."""
    if isinstance(value, bytes):
        if not repair or is_utf8(value):
            return value, ""
        text, encoding = decoded(value, repair)
        return text.encode(), encoding
    if not isinstance(value, str):
        raise ValueError("no text" if value is None else f"{type(value).__name__}, not a text")
    return value.encode(), ""


def _said(value: Any, column: str, repair: bool) -> str:
    if not isinstance(value, bytes):
        return "" if value is None else str(value)
    if is_utf8(value):
        return value.decode()
    try:
        return decoded(value, repair).text
    except ValueError as error:
        raise ValueError(f"its {column}: {error}") from error


class Tables(TableSource):
    """The texts of tables."""

    modality, captioned = "text", False
    name = "table"
    language = "text"

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec)
        self.fields, self.findings = [], list[str]()
        self.licence = spec.licence or NOT_STATED
        self.description = "rows of tables, each a text" + (" with a label" if spec.label_field else "")

    def files(self) -> list[SourceFile]:
        """Every table, sorted as its rows are."""
        columns = Columns(self.spec.text_field, self.spec.label_field, self.spec.licence_field, self.spec.id_field)
        found = [
            TextTable(
                f"{self.name}/{self.below(path)}", path, file_bytes(path), "", columns=columns,
                reading=self.spec.reading, below=self.below(path),
            )
            for path in self.tables()
        ]  # fmt: skip
        found = [table.required() for table in found]
        for delimiter, said in DELIMITERS.items():
            if of := [table.document for table in found if table.delimiter == delimiter]:
                more = f", and {len(of) - 1} more" if len(of) > 1 else ""
                self.findings.append(f"values are parted by {said} in {of[0]}{more}")
        return sorted(found, key=lambda file: f"{file.document}/")

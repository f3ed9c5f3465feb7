"""Tables of texts: each row is a document, and a part of a table is what one worker reads.

    reviews.jsonl --parts--> bytes 0 to 4 M, ... --entries--> "table/reviews.jsonl/000000012", group = its label

Listing a table costs one pass over its bytes; no row becomes an object before a worker reads it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa

from foundation_core.data.columns import Arrow, Parquet
from foundation_core.data.cuts import UNREADABLE, Broken, Csv, Cut, Fields, Format, Lines
from foundation_core.data.documents import NOT_STATED, Entry, SourceFile, content_digest, file_bytes, reason_of, refused
from foundation_core.data.formats.base import check_size
from foundation_core.data.ids import id_of
from foundation_core.data.rows import TableSource
from foundation_core.data.tables import field_of, open_table, table_format
from foundation_core.errors import ConfigError
from foundation_core.spec_reading import ReadingSpec
from foundation_core.specs import SourceSpec

_CHUNK_BYTES = 1 << 20
CUT: Mapping[str, Format] = {
    "jsonl": Lines(), "csv": Csv(), "tsv": Csv("\t"), "parquet": Parquet(), "arrow": Arrow(),
}  # fmt: skip
"""The formats, by the names that `tables.table_format` gives them."""


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


@dataclass(frozen=True)
class TextTable(SourceFile):
    """A table.

    Args:
        below: how its id ends: its path below the source's folder.
    """

    columns: Columns
    reading: ReadingSpec
    below: str

    def digest(self) -> str:
        """Hex sha256 of its bytes and of the names of what is read of it; or why it cannot be read."""
        return content_digest(self.path, repr(self.columns))

    def require(self) -> None:
        """Refuse, with the columns there are, if it lacks one that is read. A table that cannot be read lacks none.

        Raises:
            ConfigError: it does.
        """
        kind, _ = table_format(self.path)
        try:
            with open_table(self.path, self.reading.most_expansion) as stream:
                columns = CUT[kind].columns(stream)
        except UNREADABLE:
            return  # its reading says why
        for name in self.columns.names if columns else ():
            if name not in columns and name.split(".")[0] not in columns:
                raise ConfigError(f"{self.path} has no column {name!r}", allowed=", ".join(columns))

    def parts(self, unit_bytes: int) -> Iterator[SourceFile]:
        """Parts of its rows. One that is damaged ends with a part that says so."""
        kind, _ = table_format(self.path)
        try:
            with open_table(self.path, self.reading.most_expansion) as stream:
                whole = ""
                for cut in CUT[kind].cuts(stream, unit_bytes, self.reading):
                    if not cut.digest:  # rows of columns have no bytes of their own
                        whole = whole or self.digest()
                        cut = cut._replace(digest=whole)
                    size = cut.stop - cut.start
                    yield TablePart(
                        f"{self.document}/{cut.first:09d}+{size}", self.path, size, "", source=self.source,
                        licence=self.licence, table=self, cut=cut,
                    )  # fmt: skip
        except UNREADABLE as error:
            yield refused(replace(self, document=f"{self.document}/rest"), _why(error))

    def entries(self) -> Iterator[SourceFile]:
        """Its rows as documents."""
        return (entry for part in self.parts(_CHUNK_BYTES) for entry in part.entries())


@dataclass(frozen=True)
class TablePart(SourceFile):
    """Some rows of a table, one behind the other."""

    table: TextTable
    cut: Cut

    def digest(self) -> str:
        """Hex sha256 of its bytes and of the names of what is read of it: rows that join behind it change nothing."""
        return hashlib.sha256(f"{self.table.columns!r}{self.cut.digest}".encode()).hexdigest()

    def most_documents(self) -> int:
        """Its rows, and a place where it breaks off."""
        return self.cut.last - self.cut.first + 2

    def may_hold(self, pattern: str) -> bool:
        """Whether a row of it may have an id that fits the pattern; of an id without wildcards, whether one has."""
        literal = re.split(r"[*?[]", pattern, maxsplit=1)[0]
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
        kind, _ = table_format(self.path)
        columns, reading, number = self.table.columns, self.table.reading, self.cut.first - 1
        try:
            with open_table(self.path, reading.most_expansion) as stream:
                for number, row in CUT[kind].rows(stream, self.cut, columns.names, reading):
                    yield self._entry(number, row)
        except UNREADABLE as error:
            yield refused(self._named(number + 1), _why(error))

    def _named(self, number: int) -> SourceFile:
        return SourceFile(
            f"{self.table.document}/{number:09d}", self.path, 0, "", source=self.source, licence=self.licence
        )

    def _entry(self, number: int, row: Fields | Broken) -> SourceFile:
        document, columns = self._named(number), self.table.columns
        if isinstance(row, Broken):
            return refused(document, row.reason)
        try:
            if columns.id is not None:
                name = self.table.document.removesuffix(self.table.below) + id_of(field_of(row, columns.id))
                document = replace(document, document=name, place=document.document)
            data = _text(field_of(row, columns.text))
            check_size(len(data), self.table.reading, "a text")
        except ValueError as error:
            return refused(document, str(error))
        label, licence = (_said(field_of(row, name)) if name else "" for name in (columns.label, columns.licence))
        return Entry(
            document.document, self.path, len(data), label, source=self.source, licence=licence or self.licence,
            place=document.place,
            data=data,
        )  # fmt: skip


def _why(error: Exception) -> str:
    """Why a table breaks off, in words that name no place on this machine."""
    if isinstance(error, OSError) and error.strerror:
        return reason_of(error)
    told = isinstance(error, ValueError) and not isinstance(error, pa.ArrowException)
    return str(error) if told else "the table ends too early, or is damaged here"


def _text(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("no text" if value is None else f"{type(value).__name__}, not a text")
    return value.encode()


def _said(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


class Tables(TableSource):
    """The texts of tables."""

    modality, captioned = "text", False
    name = "table"
    language = "text"

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec)
        self.fields = []
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
        for table in found:
            table.require()
        return sorted(found, key=lambda file: f"{file.document}/")

"""The texts of evaluation sets: read from tables and files of text, and known by the hash of what they hold.

They lie where sources may lie, and are read by what reads sources: stores, packed files, dotted fields are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from foundation_core.data.reading.unpacking import unpacked
from foundation_core.data.sources.documents import file_bytes, files_below, reason_of
from foundation_core.data.sources.modalities import normalise
from foundation_core.data.sources.text_tables import Columns, TextTable
from foundation_core.data.stores.places import Place, located
from foundation_core.data.tables.files import is_table
from foundation_core.errors import DataError
from foundation_core.specs.decontamination import DecontaminationSpec, EvaluationSetSpec
from foundation_core.specs.reading import ReadingSpec

_READING = ReadingSpec()


def evaluation_texts(spec: EvaluationSetSpec) -> Iterator[str]:
    """The texts of a set, file by file in the order of their paths; of a table field by field, row by row.

    Raises:
        ConfigError: a table has no such column, its store is none, or its address holds a key.
        DataError: nothing is there, or it cannot be read.
        SetupError: its store gives nothing, as with the key that there is.
    """
    for path in _files(spec):
        if is_table(path):
            for name in spec.text_fields:
                yield from _column(spec, path, name)
            continue
        with _reading(spec, str(path)):
            _, data = unpacked(path.name, path.read_bytes(), _READING.most_document_bytes)
            text = normalise(data)
        yield text


def _column(spec: EvaluationSetSpec, path: Place, name: str) -> Iterator[str]:
    """The texts that a field of a table holds."""
    table = TextTable(str(path), path, file_bytes(path), "", columns=Columns(name), reading=_READING, below=path.name)
    for row in table.required().entries():
        number = row.document.rpartition("/")[2]  # it names a row, or the rest that cannot be read
        with _reading(spec, f"row {int(number)} of {path}, {name!r}" if number.isdecimal() else str(path)):
            text = normalise(row.read())
        yield text


def set_digests(spec: DecontaminationSpec) -> dict[str, str]:
    """Hex sha256 of the texts of each set, by name: they are inputs of the ingestion.

    Raises:
        ConfigError, DataError, SetupError: as `evaluation_texts`.
    """
    return {one.name: _digest(one) for one in spec.sets}


def _digest(spec: EvaluationSetSpec) -> str:
    content = hashlib.sha256()
    for text in evaluation_texts(spec):
        content.update(hashlib.sha256(text.encode()).digest())
    return content.hexdigest()


def _files(spec: EvaluationSetSpec) -> list[Place]:
    root = located(spec.path)
    if not root.exists():
        raise DataError(
            f"{_field(spec)}: {root} is not there",
            fix="correct its path: a table (.csv, .jsonl, .parquet), a file of text, or a folder of them, on this"
            " machine or in a store",
        )
    if not root.is_dir():
        return [root]
    files = files_below(spec.name, root, spec.pattern)
    if not files:
        raise DataError(f"{_field(spec)}: no file in {root} matches {spec.pattern}", fix="correct its path or pattern")
    return [file.path for file in files]


@contextmanager
def _reading(spec: EvaluationSetSpec, place: str) -> Iterator[None]:
    """Says of what cannot be read where it is."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise DataError(f"{_field(spec)}: {place}: {reason_of(error)}", fix="repair or remove it") from error


def _field(spec: EvaluationSetSpec) -> str:
    return f"ingest.decontamination.sets, {spec.name}"

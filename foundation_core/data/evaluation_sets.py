"""The texts of evaluation sets: read from tables and files of text, and known by the hash of what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundation_core.data.documents import reason_of
from foundation_core.data.modalities import normalise
from foundation_core.data.table_files import is_table
from foundation_core.data.tables import read_table
from foundation_core.errors import DataError
from foundation_core.spec_decontamination import DecontaminationSpec, EvaluationSetSpec

_BATCH_ROWS = 1024


def evaluation_texts(spec: EvaluationSetSpec) -> Iterator[str]:
    """The texts of a set, file by file in the order of their paths, row by row.

    Raises:
        ConfigError: a table has no such column.
        DataError: nothing is there, or it cannot be read.
    """
    for path in _files(spec):
        if not is_table(path):
            with _reading(spec, str(path)):
                text = normalise(path.read_bytes())
            yield text
            continue
        with read_table(path, _BATCH_ROWS) as table:
            table.require(spec.text_field, path)
            for number, row in enumerate((row for batch in table.batches for row in batch), 1):
                with _reading(spec, f"row {number} of {path}"):
                    text = _normalised(row.get(spec.text_field))
                yield text


def set_digests(spec: DecontaminationSpec) -> dict[str, str]:
    """Hex sha256 of the texts of each set, by name: they are inputs of the ingestion.

    Raises:
        ConfigError, DataError: as `evaluation_texts`.
    """
    return {one.name: _digest(one) for one in spec.sets}


def _digest(spec: EvaluationSetSpec) -> str:
    content = hashlib.sha256()
    for text in evaluation_texts(spec):
        content.update(hashlib.sha256(text.encode()).digest())
    return content.hexdigest()


def _files(spec: EvaluationSetSpec) -> list[Path]:
    path = Path(spec.path).expanduser()
    if not path.exists():
        raise DataError(
            f"{_field(spec)}: {path} is not there",
            fix="correct its path: a table (.csv, .jsonl, .parquet), a file of text, or a folder of them",
        )
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.glob(spec.pattern) if file.is_file())
    if not files:
        raise DataError(f"{_field(spec)}: no file in {path} matches {spec.pattern}", fix="correct its path or pattern")
    return files


def _normalised(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("no text" if value is None else f"{type(value).__name__}, not a text")
    return normalise(value.encode())


@contextmanager
def _reading(spec: EvaluationSetSpec, place: str) -> Iterator[None]:
    """Says of what cannot be read where it is."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise DataError(f"{_field(spec)}: {place}: {reason_of(error)}", fix="repair or remove it") from error


def _field(spec: EvaluationSetSpec) -> str:
    return f"ingest.decontamination.sets, {spec.name}"

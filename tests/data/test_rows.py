"""The rows of a table are documents: the label is the group, file and row are the id, and the text is the content."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundation_core.data.documents import open_source, source_content
from foundation_core.data.modalities import Reader, Text, read_files
from foundation_core.errors import ConfigError, DataError, FoundationError
from foundation_core.specs import IngestSpec, SourceSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest

TEXT = Reader(Text(IngestSpec()), captioned=False)
TEXTS = [f"the text of row {number}, which is long enough" for number in range(600)]


def _spec(path: Path, **fields: str) -> SourceSpec:
    return SourceSpec(kind="table", path=str(path), label_field="kind", pattern="**/*", **fields)


def _write(path: Path, texts: list[str | None], text_field: str = "text") -> Path:
    rows = [{text_field: text, "kind": number % 3} for number, text in enumerate(texts)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_row_is_a_document_with_its_label_as_the_group(tmp_path: Path, name: str) -> None:
    files = open_source(_spec(_write(tmp_path / name, TEXTS))).files()
    documents, quarantined = read_files(files, TEXT)
    assert len(quarantined) == 0
    assert documents["document"].to_pylist() == [f"table/{name}/{number + 1:09d}" for number in range(600)]
    assert documents["group"].to_pylist() == [str(number % 3) for number in range(600)]
    assert documents["text"].to_pylist() == TEXTS


def test_rows_are_read_in_any_order(tmp_path: Path) -> None:
    files = open_source(_spec(_write(tmp_path / "a.jsonl", TEXTS))).files()
    chosen = [files[number] for number in (599, 3, 4, 300, 0)]
    assert read_files(chosen, TEXT)[0]["text"].to_pylist() == [TEXTS[number] for number in (599, 3, 4, 300, 0)]


def test_the_content_is_texts_and_labels_and_not_names_or_places(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    here = source_content(open_source(_spec(_write(tmp_path / "a.jsonl", ["x", "y"]))).files())
    there = _write(tmp_path / "other" / "a.jsonl", ["x", "y"], text_field="body")
    assert source_content(open_source(_spec(there, text_field="body")).files()) == here
    for changed in (["x", "z"], ["y", "x"], ["x"], ["x", None]):
        path = _write(tmp_path / "other" / "a.jsonl", changed)
        assert source_content(open_source(_spec(path)).files()) != here
    unlabelled = SourceSpec(kind="table", path=str(tmp_path / "a.jsonl"))
    assert source_content(open_source(unlabelled).files()) != here


def test_a_row_without_a_text_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "kind": 1}\n{"text": null}\n{"text": 5}\n{"text": "a\\u0000"}\n')
    documents, quarantined = read_files(open_source(_spec(tmp_path / "a.jsonl")).files(), TEXT)
    assert documents["text"].to_pylist() == ["x"]
    reasons = ["no text", "int, not a text", "not text: a NUL byte at offset 1"]
    assert quarantined["reason"].to_pylist() == reasons


def test_a_folder_of_tables_is_one_source(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    _write(tmp_path / "b.jsonl", ["1"])
    _write(tmp_path / "deep" / "a.jsonl", ["2", "3"])
    names = [file.document for file in open_source(_spec(tmp_path)).files()]
    assert names == ["table/b.jsonl/000000001", "table/deep/a.jsonl/000000001", "table/deep/a.jsonl/000000002"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"path": "nowhere.csv"}, "is not there"),
        ({"path": "a.txt"}, "no table by its name"),
        ({"text_field": "body"}, "has no column 'body'"),
        ({"label_field": "topic"}, "has no column 'topic'"),
    ],
)
def test_what_cannot_be_a_table_is_refused(tmp_path: Path, fields: Mapping[str, str], words: str) -> None:
    _write(tmp_path / "a.jsonl", ["x"])
    (tmp_path / "a.txt").touch()
    spec = {"kind": "table", **fields, "path": str(tmp_path / fields.get("path", "a.jsonl"))}
    with pytest.raises(FoundationError, match=words) as refused:
        open_source(SourceSpec.model_validate(spec)).files()
    assert isinstance(refused.value, (ConfigError, DataError))


def test_a_table_becomes_the_same_corpus_in_units_of_any_size(
    tmp_path: Path, serial_context: Callable[[Path], Context]
) -> None:
    source = _spec(_write(tmp_path / "a.jsonl", TEXTS))
    made = []
    for unit_bytes in (1024, 10**6):
        spec = IngestSpec.model_validate({"source": source, "tokenizer": {"vocabulary": 270}, "unit_bytes": unit_bytes})
        made.append(ingest(spec, {}, serial_context(tmp_path / str(unit_bytes))))
    assert made[0].outputs == made[1].outputs
    assert made[0].summary["groups"] == {"0": 200, "1": 200, "2": 200}

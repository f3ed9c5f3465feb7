"""Rows that bring ids along are named by them, wherever they stand; one id stands for one document."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources.documents import open_source
from foundation_core.data.sources.ids import id_of
from foundation_core.data.sources.modalities import Reader, Text, read_files
from foundation_core.errors import ConfigError
from foundation_core.pages.finding import places
from foundation_core.pages.reading import open_corpus
from foundation_core.specs import FilterSpec, IngestSpec, SourceSpec, SplitSpec, TokenizerSpec
from foundation_core.stages.ingest import ingest
from tests.support.ingestion import ShuffledPool

Build = Callable[..., Any]
TEXT = Reader(Text(IngestSpec()), captioned=False)


def text(number: int) -> str:
    return f"text number {number}, which says {number * 7919} things of its own, " * 3


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"meta": {"id": f"doc-{number}"}, "text": text(number)} for number in range(first, first + count)]


def write(path: Path, some: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in some))


def spec_of(folder: Path, withdrawn: tuple[str, ...] = (), **fields: Any) -> IngestSpec:
    usual: dict[str, Any] = {
        "source": SourceSpec(
            kind="several",
            parts={"web": SourceSpec(kind="table", path=str(folder), id_field="meta.id")},  # type: ignore[dict-item]
            withdrawn=withdrawn,
        ),
        "tokenizer": TokenizerSpec(vocabulary=300), "split": SplitSpec(validation_fraction=0.2, test_fraction=0.2),
        "unit_bytes": 2048, "quarantine_fraction": 1.0,
    }  # fmt: skip
    return IngestSpec(**{**usual, **fields})


def held(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    found = [row for table in ShardDataset(folder / name).tables() for row in table.to_pylist()]
    assert len({row["document"] for row in found}) == len(found)
    return {row["document"]: row for row in found}


def test_a_row_keeps_its_name_its_split_and_its_place_in_drops_wherever_it_stands(
    tmp_path: Path, serial_context: Build
) -> None:
    short = {"meta": {"id": "short"}, "text": "short"}
    empty = {"meta": {"id": "empty"}, "text": None}
    corpus = [*rows(60), short, empty]
    found = []
    for name, order in (("a", corpus), ("b", corpus[::-1])):
        write(tmp_path / name / f"{name}.jsonl", order)
        spec = spec_of(tmp_path / name, filters=(FilterSpec(measure="characters", at_least=50),))
        ingest(spec, {}, serial_context(tmp_path / f"of-{name}"))
        documents = held(tmp_path / f"of-{name}", "documents")
        assert {row["text"] for row in documents.values()} == {row["text"] for row in rows(60)}
        assert documents["web/table/doc-7"]["text"] == text(7)
        assert set(held(tmp_path / f"of-{name}", "dropped")) == {"web/table/short"}
        assert held(tmp_path / f"of-{name}", "quarantined")["web/table/empty"]["reason"] == "no text"
        found.append({document: row["split"] for document, row in documents.items()})
    assert found[0] == found[1]
    _, placed = places(open_corpus(tmp_path / "of-a"), "web/table/doc-7")
    assert placed.values["document"] == "web/table/doc-7"


@pytest.mark.parametrize("unit_bytes", [1024, 10**6])
def test_of_rows_with_one_id_the_first_stays_and_the_others_are_quarantined_with_both_places(
    tmp_path: Path, serial_context: Build, digests: Build, unit_bytes: int
) -> None:
    again = [{"meta": {"id": "doc-3"}, "text": text(100)}, {"meta": {"id": "doc-40"}, "text": "x"}]
    beside = [{"meta": {"id": "short"}, "text": "y"}, {"meta": {"id": "empty"}, "text": None}]
    write(tmp_path / "s" / "a.jsonl", [*rows(50), *beside, again[0]])
    write(
        tmp_path / "s" / "b.jsonl",
        [*again, *rows(10, 50), *[{**row, "text": text(200 + n)} for n, row in enumerate(beside)]],
    )
    spec = spec_of(tmp_path / "s", unit_bytes=unit_bytes, filters=(FilterSpec(measure="characters", at_least=50),))
    result = ingest(spec, {}, serial_context(tmp_path / "one"))
    assert result.summary["documents"] == {"in": 67, "kept": 60, "dropped": 1, "quarantined": 6}
    first = "web/table/a.jsonl/{:09d}"
    assert {name: row["reason"] for name, row in held(tmp_path / "one", "quarantined").items()} == {
        "web/table/empty": "no text",
        "web/table/a.jsonl/000000053": f"its id is that of {first.format(4)}: web/table/doc-3",
        "web/table/b.jsonl/000000001": f"its id is that of {first.format(4)}: web/table/doc-3",
        "web/table/b.jsonl/000000002": f"its id is that of {first.format(41)}: web/table/doc-40",
        "web/table/b.jsonl/000000013": f"its id is that of {first.format(51)}: web/table/short",
        "web/table/b.jsonl/000000014": f"its id is that of {first.format(52)}: web/table/empty",
    }
    assert held(tmp_path / "one", "documents")["web/table/doc-3"]["text"] == text(3)
    assert set(held(tmp_path / "one", "dropped")) == {"web/table/short"}
    little = spec.model_copy(update={"work_memory_bytes": 1024})
    ingest(little, {}, serial_context(tmp_path / "two", pool=ShuffledPool()))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_row_is_withdrawn_by_its_id_and_one_with_the_same_id_goes_too(tmp_path: Path, serial_context: Build) -> None:
    write(tmp_path / "s" / "a.jsonl", [*rows(40), {"meta": {"id": "doc-5"}, "text": text(90)}])
    spec = spec_of(tmp_path / "s", ("web/table/doc-5", "web/table/doc-3?"))
    result = ingest(spec, {}, serial_context(tmp_path / "out"))
    assert result.summary["withdrawn"] == {"web/table/doc-5": 2, "web/table/doc-3?": 10}
    assert not {"web/table/doc-5", "web/table/doc-30"} & set(held(tmp_path / "out", "documents"))
    with pytest.raises(ConfigError, match="names no document"):
        ingest(spec_of(tmp_path / "s", ("web/table/doc-77",)), {}, serial_context(tmp_path / "wrong"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no id"), ("", "no id"), (1.5, "its id is float, not a text or a whole number"),
        (True, "its id is bool, not a text or a whole number"), ({}, "its id is dict, not a text or a whole number"),
        ("a\nb", "its id holds a character that cannot be printed"), (b"\xff", "its id is not UTF-8"),
        ("\ud800", "its id holds a character that cannot be printed"),
        ("x" * 1001, "its id has more than 1,000 characters"),
    ],
)  # fmt: skip
def test_what_is_no_id_says_why(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        id_of(value)


def test_numbers_and_bytes_are_ids_and_a_row_without_one_is_named_by_its_place(tmp_path: Path) -> None:
    assert [id_of(value) for value in (7, "7", b"7", "https://x.org/?a=1", "ñ 1")] == [
        "7", "7", "7", "https://x.org/?a=1", "ñ 1",
    ]  # fmt: skip
    (tmp_path / "a.csv").write_text("key,text\n12,one\n,two\n")
    source = SourceSpec(kind="table", path=str(tmp_path / "a.csv"), id_field="key")
    documents, quarantined = read_files(open_source(source).files(), TEXT)
    assert documents["document"].to_pylist() == ["table/12"]
    assert quarantined.to_pylist() == [{"document": "table/a.csv/000000002", "reason": "no id"}]


def test_a_table_without_the_column_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", rows(2))
    with pytest.raises(ConfigError, match="has no column 'key'"):
        open_source(SourceSpec(kind="table", path=str(tmp_path / "a.jsonl"), id_field="key")).files()


def test_images_of_a_table_are_named_by_their_ids_too(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    some = [
        {"image": "a.png", "key": 1},
        {"image": "b.png", "key": 2},
        {"image": "b.png", "key": 1},
        {"image": "a.png"},
    ]
    write(tmp_path / "t.jsonl", some)
    files = open_source(SourceSpec(kind="image_table", path=str(tmp_path / "t.jsonl"), id_field="key")).files()
    assert [file.document for file in files] == [
        "image_table/1", "image_table/2", "image_table/t.jsonl/000000003", "image_table/t.jsonl/000000004",
    ]  # fmt: skip
    assert files[0].read() == b"a"
    for file, reason in zip(
        files[2:], ("its id is that of image_table/t.jsonl/000000001: image_table/1", "no id"), strict=True
    ):
        with pytest.raises(ValueError, match=reason):
            file.read()


def test_the_id_is_part_of_what_a_table_is_known_by(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", rows(2))
    named = [
        open_source(SourceSpec(kind="table", path=str(tmp_path / "a.jsonl"), id_field=field)).files()[0].digest()
        for field in (None, "meta.id")
    ]
    assert named[0] != named[1]

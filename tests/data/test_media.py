"""Folders of classes and tables of images or recordings: ids, labels, captions and content."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundation_core.data.sources.digests import source_content
from foundation_core.data.sources.documents import SourceFile, open_source
from foundation_core.data.sources.modalities import Reader, open_reader, read_files
from foundation_core.errors import ConfigError
from foundation_core.specs import IngestSpec, SourceSpec
from tests.support.raw_items import picture, tone, write_images, write_recordings


def files_of(kind: str, path: Path, **fields: Any) -> list[SourceFile]:
    return open_source(SourceSpec.model_validate({"kind": kind, "path": str(path), **fields})).files()


def reader_of(kind: str, path: Path, **fields: Any) -> Reader:
    source = SourceSpec.model_validate({"kind": kind, "path": str(path), **fields})
    return open_reader(open_source(source), IngestSpec.model_validate({"image": {"size_pixels": 4}}))


def test_the_first_folder_is_the_label_and_other_files_are_not_looked_at(tmp_path: Path) -> None:
    write_images(tmp_path)
    files = files_of("image_folder", tmp_path)
    assert len(files) == 43
    assert {file.document.split("/")[1] for file in files} == {file.group for file in files} == {"rose", "lily", "moss"}
    assert len(files_of("image_folder", tmp_path, pattern="rose/*")) == 15  # a pattern takes every file that it matches


def test_a_pattern_finds_the_label_in_the_path_and_a_path_without_one_is_quarantined(tmp_path: Path) -> None:
    write_recordings(tmp_path)
    files = files_of("audio_folder", tmp_path, label_pattern=r"/(\d)\d\.wav")
    assert {file.group for file in files if "/text.wav" not in file.document} >= {"0", "1", "2", "3"}
    _, quarantined = read_files(files, reader_of("audio_folder", tmp_path))
    reasons = {row["document"]: row["reason"] for row in quarantined.to_pylist()}
    assert reasons["audio_folder/moss/text.wav"] == "source.label_pattern finds no label in its path moss/text.wav"
    for pattern, words in ((r"(\d)(\d)", "has 2 groups"), (r"(\d", "is no regular expression")):
        with pytest.raises(ValueError, match=words):
            SourceSpec(kind="audio_folder", label_pattern=pattern)


def _rows(folder: Path) -> list[dict[str, Any]]:
    for number in range(5):
        (folder / f"{number}.png").write_bytes(picture(number))
    return [{"picture": f"{number}.png", "kind": number % 2, "says": f"no {number}"} for number in range(5)]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with open(path, "w", newline="") as sink:
            lines = csv.DictWriter(sink, list(rows[0]))
            lines.writeheader()
            lines.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


FIELDS = {"image_field": "picture", "label_field": "kind", "caption_field": "says"}


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "bytes", "hub"])
def test_a_table_names_images_or_holds_them(tmp_path: Path, form: str) -> None:
    rows = _rows(tmp_path)
    if form in ("bytes", "hub"):
        for row in rows:
            data = (tmp_path / row["picture"]).read_bytes()
            row["picture"] = data if form == "bytes" else {"bytes": data, "path": "elsewhere.png"}
    path = _write(tmp_path / f"a.{'parquet' if form in ('bytes', 'hub') else form}", rows)
    files = files_of("image_table", path, **FIELDS)
    assert [file.document for file in files] == [f"image_table/{path.name}/{number + 1:09d}" for number in range(5)]
    assert [file.group for file in files] == ["0", "1", "0", "1", "0"]
    assert [file.read() for file in files] == [picture(number) for number in range(5)]
    assert [file.caption() for file in files] == [f"no {number}" for number in range(5)]
    assert [file.bytes for file in files] == [len(picture(number)) for number in range(5)]


def test_recordings_are_read_from_tables_in_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(tone(300))
    files = files_of("audio_table", _write(tmp_path / "a.jsonl", [{"audio": "a.wav"}, {"audio": None}]))
    documents, quarantined = read_files(files, reader_of("audio_table", tmp_path / "a.jsonl"))
    assert documents["document"].to_pylist() == ["audio_table/a.jsonl/000000001"]
    assert quarantined["reason"].to_pylist() == ["no bytes and no path"]


def test_the_content_is_images_labels_and_captions_and_not_names_of_columns(tmp_path: Path) -> None:
    rows = _rows(tmp_path)
    here = source_content(files_of("image_table", _write(tmp_path / "a.jsonl", rows), **FIELDS))
    renamed = [{"p": row["picture"], "k": row["kind"], "s": row["says"]} for row in rows]
    other = {"image_field": "p", "label_field": "k", "caption_field": "s"}
    assert source_content(files_of("image_table", _write(tmp_path / "a.jsonl", renamed), **other)) == here
    for field, value in (
        ("picture", "0.png"),
        ("kind", 7),
        ("says", "no more"),
        ("says", None),
        ("picture", "lost.png"),
    ):
        changed = [*rows[:-1], {**rows[-1], field: value}]
        assert source_content(files_of("image_table", _write(tmp_path / "a.jsonl", changed), **FIELDS)) != here
    (tmp_path / "4.png").write_bytes(picture(77))
    assert source_content(files_of("image_table", _write(tmp_path / "a.jsonl", rows), **FIELDS)) != here


def test_what_a_row_lacks_is_its_reason(tmp_path: Path) -> None:
    rows = _rows(tmp_path)
    rows[0]["says"], rows[1]["says"], rows[2]["picture"], rows[3]["picture"] = None, 5, 6, "lost.png"
    path = _write(tmp_path / "a.jsonl", rows)
    documents, quarantined = read_files(
        files_of("image_table", path, **FIELDS), reader_of("image_table", path, **FIELDS)
    )
    assert documents["text"].to_pylist() == ["no 4"]
    assert quarantined["reason"].to_pylist() == [
        "no caption",
        "its caption is no text but int",
        "neither bytes nor a path",
        "unreadable: No such file or directory",
    ]


@pytest.mark.parametrize("caption", ["\ufeff", "\u200b", " \u200e\u00ad\t", "\x07"])
def test_a_caption_that_nobody_sees_is_none(tmp_path: Path, caption: str) -> None:
    rows = _rows(tmp_path)
    rows[0]["says"], rows[1]["says"] = caption, f"{caption}a\u200dcat"
    path = _write(tmp_path / "a.jsonl", rows)
    documents, quarantined = read_files(
        files_of("image_table", path, **FIELDS), reader_of("image_table", path, **FIELDS)
    )
    assert quarantined["reason"].to_pylist() == ["no caption"]
    assert len(documents) == 4
    assert documents["text"][0].as_py().endswith("a\u200dcat"), "of one that is seen nothing is taken"


def test_a_folder_of_tables_is_one_source_and_its_images_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    _write(tmp_path / "deep" / "b.jsonl", _rows(tmp_path / "deep"))
    _write(tmp_path / "a.csv", _rows(tmp_path))
    assert len(files_of("image_table", tmp_path, **FIELDS)) == 10


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no column 'image'"):
        files_of("image_table", _write(tmp_path / "a.jsonl", _rows(tmp_path)))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            r'{"picture": "0.png", "says": "a \ud800", "kind": 1}',
            "its caption is not text: a lone surrogate at character 2",
        ),
        (r'{"picture": "\u0000", "says": "a", "kind": 1}', "embedded null byte"),
        ('{"picture": ".", "says": "a", "kind": 1}', "unreadable: Is a directory"),
        ('{"picture": {"bytes": 5}, "says": "a", "kind": 1}', "neither bytes nor a path"),
        (r'{"picture": "0.png", "says": "a", "kind": "\ud800"}', None),
        ('{"picture": ' + "[" * 100_000, "not JSON: maximum recursion depth exceeded"),
        ("{", "not JSON: Expecting property name enclosed in double quotes"),
        ("[1]", "a JSON list, not an object"),
    ],
)
def test_a_malformed_row_is_set_aside(tmp_path: Path, line: str, reason: str | None) -> None:
    path = _write(tmp_path / "a.jsonl", _rows(tmp_path))
    good = path.read_text()
    path.write_text(line + "\n" + good)
    fields = {"image_field": "picture", "label_field": "kind", "caption_field": "says"}
    files = files_of("image_table", path, **fields)
    source_content(files)
    documents, quarantined = read_files(files, reader_of("image_table", path, **fields))
    reasons = quarantined["reason"].to_pylist()
    assert len(reasons) == (reason is not None)
    assert all(found.startswith(reason or "") for found in reasons)
    assert len(documents) == 5 + (reason is None)


def test_a_record_of_a_table_of_images_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", _rows(tmp_path))
    header, *records = path.read_bytes().splitlines(keepends=True)
    wrong = [b"too,few\r\n", b'"never closed,1,x\r\n', "4.png,año,x\r\n".encode("latin-1")]
    path.write_bytes(b"".join([header, *wrong, *records]))
    fields = {**FIELDS, "caption_field": None}
    for repair, kept in ((False, 5), (True, 6)):
        files = files_of("image_table", path, reading={"repair_encoding": repair}, **fields)
        documents, quarantined = read_files(files, reader_of("image_table", path, **fields))
        assert len(documents) == kept
        assert len(quarantined) == 8 - kept
        assert ("año" in documents["group"].to_pylist()) is repair


@pytest.mark.parametrize("field", ["id_field", "licence_field"])
def test_a_column_of_ids_or_licences_that_is_not_there_is_refused(tmp_path: Path, field: str) -> None:
    rows = [{**row, "known": {"as": f"n{number}"}} for number, row in enumerate(_rows(tmp_path))]
    path = _write(tmp_path / "a.jsonl", rows)
    with pytest.raises(ConfigError, match="has no column 'knwon'"):
        files_of("image_table", path, **FIELDS, **{field: "knwon"})
    found = files_of("image_table", path, **FIELDS, **{field: "known.as"})
    assert [file.document if field == "id_field" else file.licence for file in found] == [
        f"image_table/n{number}" if field == "id_field" else f"n{number}" for number in range(5)
    ]


def test_a_column_that_comes_late_in_a_table_of_lines_is_there(tmp_path: Path) -> None:
    rows = [{"picture": "0.png"}] * 300 + [{"picture": "0.png", "licence": "CC0"}]
    files = files_of("image_table", _write(tmp_path / "a.jsonl", rows), image_field="picture", licence_field="licence")
    assert [file.licence for file in files] == [""] * 300 + ["CC0"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_captions_in_an_old_encoding_are_repaired_and_counted(tmp_path: Path, form: str) -> None:
    path = _write(tmp_path / f"a.{form}", _rows(tmp_path))
    old = {"csv": "4.png,0,el año próximo\r\n", "jsonl": '{"picture": "4.png", "kind": 0, "says": "el año próximo"}\n'}
    path.write_bytes(path.read_bytes() + old[form].encode("latin-1"))
    for repair in (False, True):
        fields: dict[str, Any] = {**FIELDS, "reading": {"repair_encoding": repair}}
        documents, quarantined = read_files(
            files_of("image_table", path, **fields), reader_of("image_table", path, **fields)
        )
        assert documents["encoding"].to_pylist() == ["utf-8"] * 5 + ["latin-1"] * repair
        assert ("el año próximo" in documents["text"].to_pylist()) is repair
        assert [reason[:9] for reason in quarantined["reason"].to_pylist()] == ["not UTF-8"] * (not repair)

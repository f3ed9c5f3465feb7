"""The rows of a table are documents: the label is the group, file and row are the id, and the text is the content."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation_core.data.reading.unpacking import FREE_BYTES
from foundation_core.data.sources.digests import source_content
from foundation_core.data.sources.documents import Refused, open_source
from foundation_core.data.sources.modalities import Reader, Text, read_files
from foundation_core.errors import ConfigError, DataError, FoundationError
from foundation_core.specs import IngestSpec, SourceSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest

TEXT = Reader(Text(IngestSpec()), captioned=False)
TEXTS = [f'the "text" of row {number},\nwhich is läng enough' for number in range(600)]
NAMES = [
    "a.jsonl",
    "a.jsonl.gz",
    "a.jsonl.zst",
    "a.csv",
    "a.csv.gz",
    "a.csv.xz",
    "a.tsv",
    "a.parquet",
    "a.arrow",
    "stream.arrow",
]


def _spec(path: Path, **fields: Any) -> SourceSpec:
    return SourceSpec(kind="table", path=str(path), **{"label_field": "kind", "pattern": "**/*", **fields})


def _write(path: Path, texts: Sequence[str | None]) -> Path:
    rows = [{"text": text, "kind": number % 3} for number, text in enumerate(texts)]
    path.write_bytes(_bytes(path.name, rows))
    return path


def _bytes(name: str, rows: list[dict[str, Any]]) -> bytes:
    for ending, compress in ((".gz", gzip.compress), (".zst", zstd.compress), (".xz", lzma.compress)):
        if name.endswith(ending):
            return compress(_bytes(name.removesuffix(ending), rows))
    if name.endswith(".jsonl"):
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if name.endswith((".csv", ".tsv")):
        text = io.StringIO()
        lines = csv.DictWriter(text, ["text", "kind"], delimiter="\t" if name.endswith(".tsv") else ",")
        lines.writeheader()
        lines.writerows(rows)
        return text.getvalue().encode()
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    if name.endswith(".parquet"):
        pq.write_table(table, sink, row_group_size=250)
    else:
        opened = (pa.ipc.new_stream if name.startswith("stream") else pa.ipc.new_file)(sink, table.schema)
        with opened as writer:
            writer.write_table(table, 250)
    return sink.getvalue()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("unit_bytes", [1024, 10**9])
def test_a_row_is_a_document_with_its_label_as_the_group(tmp_path: Path, name: str, unit_bytes: int) -> None:
    (table,) = open_source(_spec(_write(tmp_path / name, TEXTS))).files()
    parts = list(table.parts(unit_bytes))
    assert (len(parts) > 10) is (unit_bytes == 1024)
    documents, quarantined = read_files(parts, TEXT)
    assert len(quarantined) == 0
    assert documents["text"].to_pylist() == TEXTS
    assert documents["group"].to_pylist() == [str(number % 3) for number in range(600)]
    numbers = [int(document.removeprefix(f"table/{name}/")) for document in documents["document"].to_pylist()]
    assert numbers == list(range(1, 601))


@pytest.mark.parametrize("name", NAMES)
def test_parts_are_read_in_any_order(tmp_path: Path, name: str) -> None:
    (table,) = open_source(_spec(_write(tmp_path / name, TEXTS))).files()
    parts = list(table.parts(1024))
    backwards = [read_files([part], TEXT)[0]["text"].to_pylist() for part in reversed(parts)]
    assert [text for texts in reversed(backwards) for text in texts] == TEXTS


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=40))
def test_any_texts_come_back_from_parts_of_any_size(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        (table,) = open_source(_spec(_write(folder / name, texts))).files()
        for unit_bytes in (1, 50):
            read = [entry.read().decode() for part in table.parts(unit_bytes) for entry in part.entries()]
            assert read == texts, name


def test_the_content_is_what_the_table_holds_and_what_is_read_of_it_and_no_place(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    here = source_content(open_source(_spec(_write(tmp_path / "a.jsonl", ["x", "y"]))).files())
    there = _write(tmp_path / "other" / "a.jsonl", ["x", "y"])
    assert source_content(open_source(_spec(there)).files()) == here
    for changed in (["x", "z"], ["y", "x"], ["x"], ["x", None]):
        path = _write(tmp_path / "other" / "a.jsonl", changed)
        assert source_content(open_source(_spec(path)).files()) != here
    assert source_content(open_source(_spec(tmp_path / "a.jsonl", label_field=None)).files()) != here


def test_a_row_that_cannot_be_read_is_set_aside_with_the_reason_and_its_neighbours_are_read(tmp_path: Path) -> None:
    lines = [
        b'{"text": "x", "kind": 1}',
        b'{"text": null}',
        b'{"text": 5}',
        b'{"text": "a\\u0000"}',
        b'{"text": ',
        b"[1]",
        b"",
        b'{"text": "\\ud800"}',
        b"[" * 100_000,
        b'{"text": "' + b"y" * 500 + b'"}',
        b'{"text": "last"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    spec = _spec(tmp_path / "a.jsonl", label_field=None, reading={"most_document_bytes": 200})
    for unit_bytes in (1, 10**6):
        (table,) = open_source(spec).files()
        documents, quarantined = read_files(table.parts(unit_bytes), TEXT)
        assert documents["text"].to_pylist() == ["x", "last"]
        reasons = quarantined["reason"].to_pylist()
        assert reasons[:3] == ["no text", "int, not a text", "not text: a NUL byte at offset 1"]
        assert all(reason.startswith("not JSON: ") for reason in (reasons[3], reasons[5]))
        assert reasons[4] == "a JSON list, not an object"
        assert reasons[6:] == ["a line of more than 200 bytes"] * 2
        rows = [int(document[-9:]) for document in quarantined["document"].to_pylist()]
        assert rows == [2, 3, 4, 5, 6, 8, 9, 10]


def test_a_record_of_csv_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'text,kind\nx,1\ntoo,many,fields\n,2\n"a"b,3\ny,4\n"open\n')
    (table,) = open_source(_spec(tmp_path / "a.csv")).files()
    documents, quarantined = read_files(table.parts(10**6), TEXT)
    assert documents["text"].to_pylist() == ["x", "y"]
    fields, empty, quote, unended = quarantined["reason"].to_pylist()
    assert fields == "3 fields, and the header has 2"
    assert empty == "no text"
    assert quote.startswith("not CSV: ")
    assert unended.startswith("not CSV: ")


def test_blank_lines_before_the_names_of_the_columns_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n\r\n" + "text,kind\n" + "a text,1\n" * 3)
    (table,) = open_source(_spec(tmp_path / "a.csv")).files()
    for unit_bytes in (1, 10**6):
        documents, quarantined = read_files(table.parts(unit_bytes), TEXT)
        assert (documents["text"].to_pylist(), len(quarantined)) == (["a text"] * 3, 0)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet", "a.arrow"])
def test_a_table_that_is_cut_off_gives_what_can_be_read_and_a_reason(tmp_path: Path, name: str) -> None:
    path = _write(tmp_path / name, TEXTS)
    whole = path.read_bytes()
    for size in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:size])
        (table,) = open_source(_spec(path)).files()
        documents, quarantined = read_files(table.parts(2000), TEXT)
        assert documents["text"].to_pylist() == TEXTS[: len(documents)]
        if len(documents) < len(TEXTS) and size:
            assert len(quarantined) >= 1


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(["a.parquet", "a.arrow", "stream.arrow"]), data=st.data())
def test_a_table_with_changed_bytes_is_read_row_by_row_or_set_aside_and_none_is_lost(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    texts = TEXTS[:9]
    path = _write(tmp_path_factory.mktemp("changed") / name, texts)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        (table,) = open_source(_spec(path)).files()
    except ConfigError:  # the change was in the column's name, which it then lacks
        return
    documents, quarantined = read_files(table.parts(2000), TEXT)
    assert len(documents) == len(texts) or len(quarantined)


@pytest.mark.parametrize("most_document_bytes", [300, 10**6])
@pytest.mark.parametrize("behind", ["", '"closed, at last"\n', 'a "quoted" word,5\n', '"two\nlines",6\n'])
def test_a_quote_that_is_never_closed_takes_no_other_row_along(
    tmp_path: Path, behind: str, most_document_bytes: int
) -> None:
    rows = "".join(f"text {number},{number}\n" for number in range(200))
    (tmp_path / "a.csv").write_text(f'text,kind\n{rows}"never closed,1\n{rows}{behind}')
    spec = _spec(tmp_path / "a.csv", reading={"most_document_bytes": most_document_bytes})
    made = []
    for unit_bytes in (1, 500, 10**6):
        (table,) = open_source(spec).files()
        documents, quarantined = read_files(table.parts(unit_bytes), TEXT)
        texts, reasons = documents["text"].to_pylist(), quarantined["reason"].to_pylist()
        assert texts[:400] == [f"text {number}" for number in range(200)] * 2
        assert quarantined["document"].to_pylist()[0] == "table/a.csv/000000201"
        assert reasons[0] == "not CSV: a quote is opened here that no quote closes as it should"
        assert len(documents) + len(quarantined) == 401 + bool(behind)
        made.append((documents.to_pylist(), quarantined.to_pylist()))
    assert made[0] == made[1] == made[2]


def test_many_quotes_that_are_never_closed_are_read_in_linear_time(tmp_path: Path) -> None:
    for count in (1, 2000):
        lines = "".join(f'"open {number}\n' + "x,1\n" * 10 for number in range(count))
        (tmp_path / "a.csv").write_text(f"text,kind\n{lines}")
        (table,) = open_source(_spec(tmp_path / "a.csv")).files()
        documents, quarantined = read_files([table], TEXT)
        assert (len(documents), len(quarantined)) == (10 * count, count)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "stream.arrow"])
def test_rows_that_are_lost_with_a_damaged_page_are_counted_as_rows(tmp_path: Path, name: str) -> None:
    path = _write(tmp_path / name, TEXTS)
    whole = path.read_bytes()
    if name == "a.parquet":
        place = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset + 100
    else:
        place = whole.index(b"row 300,")  # of the second batch
    path.write_bytes(whole[:place] + bytes(400) + whole[place + 400 :])
    (table,) = open_source(_spec(path)).files()
    documents, quarantined = read_files(table.parts(2000), TEXT)
    rows = [int(name[-9:]) for table in (documents, quarantined) for name in table["document"].to_pylist()]
    assert sorted(rows) == list(range(1, 601))
    assert len(quarantined) > 1


def test_a_table_that_breaks_off_says_what_it_does_not_know(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl.gz", TEXTS)
    path.write_bytes(path.read_bytes()[:-200])
    (table,) = open_source(_spec(path)).files()
    documents, quarantined = read_files(table.parts(10**6), TEXT)
    assert len(documents) > 400  # every whole line before the damage
    (reason,) = quarantined["reason"].to_pylist()
    assert reason.startswith("truncated gzip: ")
    assert reason.endswith("; how many rows are lost is not known")


def test_a_field_that_comes_late_in_a_table_is_there(tmp_path: Path) -> None:
    early = '{"text": "early"}\n' * 100_000
    for late, refused in (('{"text": "late", "terms": "CC0"}\n', False), ('{"text": "late", "kind": "CC0"}\n', True)):
        (tmp_path / "a.jsonl").write_text(early + late)
        source = open_source(_spec(tmp_path / "a.jsonl", label_field=None, licence_field="terms"))
        if refused:
            with pytest.raises(ConfigError, match="has no column 'terms'"):
                source.files()
        else:
            (table,) = source.files()
            assert list(table.parts(10**5))[-1].may_hold("*")
            *_, last = table.entries()
            assert last.licence == "CC0"


def test_a_packed_table_that_unpacks_to_too_much_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    line = b'{"text": "x"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line * 1_000_000))
    # the first is the negative control; of the second comes what may come out of any file, however small it is
    for most_expansion, rows in ((1000, 1_000_000), (10, FREE_BYTES // len(line))):
        source = open_source(
            _spec(tmp_path / "a.jsonl.gz", label_field=None, reading={"most_expansion": most_expansion})
        )
        (table,) = source.files()
        entries = [entry for part in table.parts(10**9) for entry in part.entries()]
        refused = [entry for entry in entries if isinstance(entry, Refused)]
        assert len(entries) - len(refused) == rows
        assert len(refused) == (rows < 1_000_000)
        assert all(entry is entries[-1] and "times" in entry.reason for entry in refused)


def test_a_text_that_is_too_large_is_set_aside_whatever_the_format(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv", "a.parquet", "a.arrow"):
        path = _write(tmp_path / name, ["small", "l" * 3000])
        (table,) = open_source(_spec(path, reading={"most_document_bytes": 2000})).files()
        documents, quarantined = read_files([table], TEXT)
        assert documents["text"].to_pylist() == ["small"]
        assert len(quarantined) == 1


def test_a_dot_leads_into_an_object_and_licences_are_kept(tmp_path: Path) -> None:
    rows = [{"data": {"body": "x"}, "terms": "CC0"}, {"data": {"body": "y"}}, {"data": 5}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"label_field": None, "text_field": "data.body", "licence_field": "terms", "licence": "MIT"}
    source = open_source(_spec(tmp_path / "a.jsonl", **fields))
    documents, quarantined = read_files(source.files(), Reader(Text(IngestSpec()), False, source.licence))
    assert documents["text"].to_pylist() == ["x", "y"]
    assert documents["licence"].to_pylist() == ["CC0", "MIT"]
    assert quarantined["reason"].to_pylist() == ["no text"]


SPANISH = "El niño comió una piña en la montaña y soñó con el otoño"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_table_in_an_old_encoding_is_repaired_with_its_labels_and_columns(
    tmp_path: Path, name: str, encoding: str
) -> None:
    rows = [{"descripción": f"{SPANISH} número {number}", "país": "España"} for number in range(3)]
    if name == "a.csv":
        text = "descripción,país\n" + "".join(f"{row['descripción']},{row['país']}\n" for row in rows)
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / name).write_bytes(text.encode(encoding))
    fields: dict[str, Any] = {"text_field": "descripción", "label_field": "país"}
    source = open_source(_spec(tmp_path / name, **fields, reading={"repair_encoding": True}))
    documents, quarantined = read_files(source.files(), TEXT)
    assert quarantined["reason"].to_pylist() == []
    assert documents["text"].to_pylist() == [row["descripción"] for row in rows]
    assert documents["group"].to_pylist() == ["España"] * 3
    assert documents["encoding"].to_pylist() == ["utf-8" if encoding == "utf-8" else "latin-1"] * 3
    if encoding == "utf-8" or name != "a.csv":
        return
    with pytest.raises(ConfigError, match="first line is not UTF-8: set source"):
        open_source(_spec(tmp_path / name, **fields)).files()


def test_a_label_that_is_not_utf8_sets_its_row_aside_and_becomes_no_other_label(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text,kind\nx,España\ny,Peru\n".encode("latin-1"))
    documents, quarantined = read_files(open_source(_spec(tmp_path / "a.csv")).files(), TEXT)
    assert documents["group"].to_pylist() == ["Peru"]
    assert quarantined["reason"].to_pylist() == ["its kind: not UTF-8: byte 0xf1 at offset 4"]


@pytest.mark.parametrize(
    ("delimiter", "said"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars"), (",", "")]
)
def test_what_stands_between_values_is_found_by_the_columns(tmp_path: Path, delimiter: str, said: str) -> None:
    rows = [["text", "kind"], *([text, str(number % 3)] for number, text in enumerate(TEXTS))]
    sink = io.StringIO()
    csv.writer(sink, delimiter=delimiter).writerows(rows)
    (tmp_path / "a.csv").write_text(sink.getvalue())
    source = open_source(_spec(tmp_path / "a.csv"))
    (table,) = source.files()
    documents, quarantined = read_files(table.parts(3000), TEXT)
    assert documents["text"].to_pylist() == TEXTS
    assert len(quarantined) == 0
    assert getattr(source, "findings", None) == ([f"values are parted by {said} in table/a.csv"] if said else [])
    with pytest.raises(ConfigError, match="has no column 'body'"):
        open_source(_spec(tmp_path / "a.csv", text_field="body")).files()


def test_a_folder_of_tables_is_one_source(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    _write(tmp_path / "b.jsonl", ["1"])
    _write(tmp_path / "deep" / "a.jsonl", ["2", "3"])
    documents, _ = read_files(open_source(_spec(tmp_path)).files(), TEXT)
    names = ["table/b.jsonl/000000001", "table/deep/a.jsonl/000000001", "table/deep/a.jsonl/000000002"]
    assert documents["document"].to_pylist() == names


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


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_table_becomes_the_same_corpus_in_units_of_any_size(
    tmp_path: Path, serial_context: Callable[[Path], Context], name: str
) -> None:
    source = _spec(_write(tmp_path / name, TEXTS))
    made = []
    for unit_bytes in (1024, 10**6):
        spec = IngestSpec.model_validate({"source": source, "tokenizer": {"vocabulary": 270}, "unit_bytes": unit_bytes})
        made.append(ingest(spec, {}, serial_context(tmp_path / str(unit_bytes))))
    assert made[0].outputs == made[1].outputs
    assert made[0].summary["groups"] == {"0": 200, "1": 200, "2": 200}

"""Tables are read and written in batches, keep what they hold, and say which row is wrong."""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundation_core.data.tables.batches import has_more_rows, read_table, write_table
from foundation_core.data.tables.files import ALLOWED, table_format
from foundation_core.errors import ConfigError, DataError, FoundationError, SetupError

CSV = 'id,text,day\n007,"two\nlines, ""quoted""",2024-01-01\n8,,\n9,caf\u00e9,x\n'
JSONL = (
    '{"id": 1, "text": "a", "more": [1, {"b": null}]}\n\n{"text": null, "id": "x"}\n{"id": 2.5, "day": "2024-01-01"}\n'
)


def _copy(source: Path, out: Path, batch_rows: int = 2, added: dict[str, pa.DataType] | None = None) -> list[int]:
    """Copy a table; the rows of each batch."""
    sizes = []
    with read_table(source, batch_rows) as table, write_table(out, table, added or {}) as writer:
        for batch in table.batches:
            writer.write(batch)
            sizes.append(len(batch))
    return sizes


def _rows(path: Path) -> list[dict[str, Any]]:
    with read_table(path, 100) as table:
        return [row for batch in table.batches for row in batch]


def test_text_formats_come_out_as_they_went_in(tmp_path: Path) -> None:
    for name, content in (("a.csv", CSV), ("a.jsonl", JSONL.replace("\n\n", "\n"))):
        (tmp_path / name).write_text(content)
        assert _copy(tmp_path / name, tmp_path / f"out-{name}") == [2, 1]
        assert (tmp_path / f"out-{name}").read_text() == content
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
        _copy(tmp_path / f"{name}.gz", tmp_path / f"out-{name}.gz")
        assert gzip.decompress((tmp_path / f"out-{name}.gz").read_bytes()).decode() == content


def test_a_parquet_file_keeps_its_schema_and_its_values(tmp_path: Path) -> None:
    table = pa.table(
        {
            "small": pa.array([1, None, 3], pa.int8()),
            "text": pa.array(["a", "", None], pa.large_string()),
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
            "when": pa.array([datetime.datetime(2024, 1, 1), None, None], pa.timestamp("us")),
            "list": pa.array([[1.5], [], None], pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert _copy(tmp_path / "a.parquet", tmp_path / "out.parquet") == [2, 1]
    copy = pq.read_table(tmp_path / "out.parquet")
    assert copy.schema == table.schema
    assert copy.to_pylist() == table.to_pylist()


def test_an_empty_field_of_a_csv_file_is_null(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    assert [row["text"] for row in _rows(tmp_path / "a.csv")] == ['two\nlines, "quoted"', None, "caf\u00e9"]


@pytest.mark.parametrize("out", ["out.csv", "out.jsonl", "out.parquet", "out.csv.gz"])
def test_each_format_can_become_each_other(tmp_path: Path, out: str) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    _copy(tmp_path / "a.csv", tmp_path / out)
    assert _rows(tmp_path / out) == _rows(tmp_path / "a.csv")


def test_a_batch_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 5 + "broken\n")
    with read_table(tmp_path / "a.jsonl", 2) as table:
        assert len(next(table.batches)) == 2
        assert len(next(table.batches)) == 2
        with pytest.raises(DataError, match=r"a.jsonl:6 is not JSON"):
            next(table.batches)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "it is empty"),
        ("a.jsonl", b"\n", "it is empty"),
        ("a.csv", b"a,a\n1,2\n", "two columns called 'a'"),
        ("a.csv", b"a,b\n1,2\n1\n", r"a.csv:3 has 1 fields, and the header has 2"),
        ("a.csv", b'a\n"open\n', "is not CSV: unexpected end"),
        ("a.csv", b"a\ncaf\xe9\n", "not UTF-8: byte 0xe9"),
        ("a.jsonl", b"[1]\n", "a.jsonl:1 holds a list"),
        ("a.parquet", b"no", "not a Parquet file"),
        ("a.csv.gz", b"no", "not a whole gzip file"),
        ("a.csv.gz", gzip.compress(b"a\n" * 999)[:-9], "not a whole gzip file"),
    ],
)
def test_what_is_no_table_is_refused_with_the_place(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        _rows(tmp_path / name)


def test_names_that_say_no_format_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for name in ("a.txt", "a", "a.gz", "a.txt.gz", ".csv"):
        with pytest.raises(ConfigError) as refused:
            table_format(tmp_path / name)
        assert refused.value.allowed == ALLOWED
    with pytest.raises(DataError, match="No such file"):
        _rows(tmp_path / "a.csv")


def test_columns_are_not_written_into_a_packing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    for name in ("out.parquet.gz", "out.csv.zst"):
        with (
            pytest.raises(ConfigError, match="packed by gzip alone"),
            read_table(tmp_path / "a.jsonl", 10) as table,
            write_table(tmp_path / name, table, {}),
        ):
            pass
        assert not (tmp_path / name).exists()


def test_an_error_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("before")
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    with pytest.raises(DataError, match="a column 'b' that the first rows have not"):
        _copy(tmp_path / "a.jsonl", tmp_path / "out.csv", batch_rows=1)
    assert (tmp_path / "out.csv").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.csv"]


def test_columns_are_not_overwritten_and_mixed_values_have_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": "x"}\n')
    with pytest.raises(ConfigError, match="would be overwritten: a"):
        _copy(tmp_path / "a.jsonl", tmp_path / "out.jsonl", added={"a": pa.string()})
    for batch_rows in (1, 2):
        with pytest.raises(DataError, match="two kinds"):
            _copy(tmp_path / "a.jsonl", tmp_path / "out.parquet", batch_rows)
    (tmp_path / "file").touch()
    with pytest.raises((SetupError, FoundationError), match="cannot be written"):
        _copy(tmp_path / "a.jsonl", tmp_path / "file" / "out.jsonl")


def test_rows_are_counted_as_far_as_it_takes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"a": n}) + "\n" for n in range(3)))
    assert has_more_rows(tmp_path / "a.jsonl", 2)
    assert not has_more_rows(tmp_path / "a.jsonl", 3)

"""Tables of images: read once whatever ids say; what stands before damage stays; batches and images are bounded."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources import rows
from foundation_core.data.sources.digests import source_digests
from foundation_core.data.sources.documents import SourceFile, open_source
from foundation_core.data.sources.modalities import open_reader, read_files
from foundation_core.data.tables import columns
from foundation_core.errors import DataError
from foundation_core.specs import IngestSpec, SourceSpec
from foundation_core.stages.ingest import ingest
from tests.support.ingestion import ShuffledPool
from tests.support.raw_items import picture

Build = Callable[..., Any]
ROWS = 120


def _spec(folder: Path, **fields: Any) -> IngestSpec:
    source = {"kind": "image_table", "path": str(folder), "image_field": "picture", **fields.pop("source", {})}
    usual: dict[str, Any] = {
        "source": source, "image": {"size_pixels": 4}, "split": {"validation_fraction": 0.3, "test_fraction": 0.3},
        "unit_bytes": 2048, "quarantine_fraction": 0.5,
    }  # fmt: skip
    return IngestSpec.model_validate({**usual, **fields})


def _files(folder: Path, **fields: Any) -> list[SourceFile]:
    return open_source(_spec(folder, source=fields).source).files()


def _rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Rows that bring along ids whose order has nothing to do with theirs."""
    return [
        {"id": hashlib.sha256(b"%d" % number).hexdigest(), "picture": picture(number)}
        for number in range(first, first + count)
    ]


def _write(path: Path, some: list[dict[str, Any]], group: int = 16) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(some), path, row_group_size=group, use_dictionary=False)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(some)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, group)
    else:
        lines = []
        for row in some:
            (path.parent / f"{row['id']}.png").write_bytes(row["picture"])
            lines.append(json.dumps({**row, "picture": f"{row['id']}.png"}).encode() + b"\n")
        data = b"".join(lines)
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def _held(folder: Path, name: str) -> list[dict[str, Any]]:
    return [row for table in ShardDataset(folder / name).tables() for row in table.to_pylist()]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A one for each row that is passed on, and for columns how many values become objects at a time."""
    read, all_rows, values = list[int](), rows._all_rows, columns._values

    def counting(*arguments: Any) -> Iterator[Any]:
        for row in all_rows(*arguments):
            read.append(1)
            yield row

    def counting_values(column: pa.Array, validated: bool) -> list[Any]:
        read.append(len(column))
        return values(column, validated)

    monkeypatch.setattr(rows, "_all_rows", counting)
    monkeypatch.setattr(columns, "_values", counting_values)
    return read


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl", "a.jsonl.gz"])
def test_rows_with_ids_in_any_order_are_read_a_few_times_each(tmp_path: Path, name: str, counted: list[int]) -> None:
    some = _rows(2 * ROWS)
    _write(tmp_path / "tables" / f"1{name}", some[:ROWS])
    _write(tmp_path / "tables" / f"2{name}", some[ROWS:])
    files = _files(tmp_path / "tables", id_field="id")
    assert [file.document for file in files] == [f"image_table/{row['id']}" for row in some]
    source_digests(files)
    assert [file.read() for file in files] == [row["picture"] for row in some]
    assert sum(counted) <= 7 * len(some)  # rows and two values to list them, then twice a row and a value
    for file in sorted(files, key=lambda file: file.document):  # the negative control
        file.read()
    assert sum(counted) > 15 * len(some)


def test_of_parquet_no_row_group_is_read_for_one_behind_it(tmp_path: Path, counted: list[int]) -> None:
    files = _files(_write(tmp_path / "a.parquet", _rows(ROWS)))
    counted.clear()
    assert [files[number].read() for number in (3, 50, 100, 20)] == [picture(number) for number in (3, 50, 100, 20)]
    assert sum(counted) == 4 * 16 + 4 + 3  # the first from the start of its row group on


def test_the_bytes_do_not_depend_on_who_reads_rows_with_ids(
    tmp_path: Path, serial_context: Build, digests: Build
) -> None:
    for name in ("a.parquet", "b.arrow", "c.jsonl"):
        _write(tmp_path / "tables" / name, _rows(40, 40 * "abc".index(name[0])))
    spec = _spec(tmp_path / "tables", source={"id_field": "id"})
    ingest(spec, {}, serial_context(tmp_path / "one"))
    ingest(spec, {}, serial_context(tmp_path / "two", pool=ShuffledPool()))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert [row["document"] for row in _held(tmp_path / "one", "documents")] == [
        f"image_table/{row['id']}" for row in _rows(120)
    ]


def _damaged(folder: Path) -> None:
    """Three tables: one is whole, of one the end is missing, one is packed lines that are cut off."""
    _write(folder / "whole.parquet", _rows(20))
    end = _write(folder / "end.parquet", _rows(20, 20))
    end.write_bytes(end.read_bytes()[:-50])
    cut = _write(folder / "cut.jsonl.gz", _rows(20, 40))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])


def test_of_damaged_tables_the_rest_is_one_entry_each_and_all_that_was_read_stays(
    tmp_path: Path, serial_context: Build
) -> None:
    _damaged(tmp_path / "tables")
    result = ingest(_spec(tmp_path / "tables", source={"id_field": "id"}), {}, serial_context(tmp_path / "out"))
    kept = [row["document"].removeprefix("image_table/") for row in _held(tmp_path / "out", "documents")]
    of_cut = [row["id"] for row in _rows(20, 40)]
    assert set(kept) - set(of_cut) == {row["id"] for row in _rows(20)}
    read = [name for name in kept if name in of_cut]
    assert 3 < len(read) < 17
    assert read == of_cut[: len(read)]
    reasons = {row["document"]: row["reason"] for row in _held(tmp_path / "out", "quarantined")}
    lost = "how many rows are lost is not known"
    assert set(reasons) == {"image_table/cut.jsonl.gz/rest", "image_table/end.parquet/rest"}
    assert reasons["image_table/end.parquet/rest"] == f"not a Parquet file that can be read; {lost}"
    assert reasons["image_table/cut.jsonl.gz/rest"].endswith(lost)
    assert str(tmp_path) not in "".join(reasons.values())
    assert result.summary["documents"]["quarantined"] == 2


def test_the_budget_decides_whether_damaged_tables_stop_it(tmp_path: Path, serial_context: Build) -> None:
    _damaged(tmp_path / "tables")
    with pytest.raises(DataError, match=r"2 of .* documents cannot be read: image_table/cut.jsonl.gz/rest: "):
        ingest(_spec(tmp_path / "tables", quarantine_fraction=0.01), {}, serial_context(tmp_path / "out"))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl.gz"])
def test_a_table_that_is_cut_or_changed_anywhere_stops_nothing(tmp_path: Path, name: str) -> None:
    whole = _write(tmp_path / name, _rows(20), 4).read_bytes()
    pictures = {f"image_table/{name}/{number + 1:09d}": picture(number) for number in range(20)}
    assert {file.document: file.read() for file in _files(tmp_path / name)} == pictures
    for place in range(0, len(whole), len(whole) // 23):
        (tmp_path / name).write_bytes(whole[:place])
        cut = _files(tmp_path / name)
        assert cut[-1].document.endswith("/rest")
        assert [file.read() for file in cut[:-1]] == [picture(number) for number in range(len(cut) - 1)]
        (tmp_path / name).write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        documents, quarantined = read_files(_files(tmp_path / name), _reader(tmp_path / name))
        assert len(documents) + len(quarantined) >= 1


def _reader(path: Path) -> Any:
    spec = _spec(path)
    return open_reader(open_source(spec.source), spec)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_batch_has_fewer_rows_if_they_are_large(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held, values = list[int](), columns._values

    def noted(column: pa.Array, validated: bool) -> list[Any]:
        held.append(column.nbytes)
        return values(column, validated)

    monkeypatch.setattr(columns, "_values", noted)
    large = [{"picture": bytes([number]) * 1_000_000} for number in range(48)]
    files = _files(_write(tmp_path / name, large, 48))
    assert [file.bytes for file in files] == [1_000_000] * 48
    assert [file.read()[0] for file in files] == list(range(48))
    assert 8_000_000 < max(held) <= columns._BATCH_BYTES + 1_000_000
    assert sum(held) < 3 * 48 * 1_000_100


def test_an_image_that_is_larger_than_allowed_is_set_aside_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large.png").write_bytes(bytes(20_000))
    (tmp_path / "little.png").write_bytes(picture(1))
    named = [{"picture": "large.png"}, {"picture": "little.png"}]
    (tmp_path / "named.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    _write(tmp_path / "held.parquet", [{"picture": bytes(20_000)}, {"picture": picture(1)}])
    reading = {"most_document_bytes": 10_000}
    folder = SourceSpec.model_validate({"kind": "image_folder", "path": str(tmp_path), "reading": reading})
    unread = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        assert path.name != "large.png"
        return unread(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    reason = "20,000 bytes, more than the 10,000 of source.reading.most_document_bytes"
    for large, little in (
        _files(tmp_path / "named.jsonl", reading=reading),
        _files(tmp_path / "held.parquet", reading=reading),
        open_source(folder).files(),
    ):
        assert little.read() == picture(1)
        assert large.digest() == reason
        with pytest.raises(ValueError, match=f"^{reason}$"):
            large.read()
    reading = {"most_document_bytes": 20_000}  # the negative control
    assert len(_files(tmp_path / "held.parquet", reading=reading)[0].read()) == 20_000

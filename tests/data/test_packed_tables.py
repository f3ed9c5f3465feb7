"""Packed tables and archives: unpacked once whatever their parts, to the same documents; columns too."""

from __future__ import annotations

import errno
import gzip
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

from foundation_core.data.reading import frames, unpacking
from foundation_core.data.sources.documents import SourceFile, open_source
from foundation_core.data.sources.modalities import Reader, Text, read_files
from foundation_core.data.tables import files as table_files
from foundation_core.data.tables.batches import read_table
from foundation_core.errors import DiskFullError, TransientError
from foundation_core.specs import IngestSpec, SourceSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest

TEXT = Reader(Text(IngestSpec()), captioned=False)
PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstd.compress, ".xz": lzma.compress}
ROWS, UNIT_BYTES = 600, 10_000


def _texts(rows: int) -> list[str]:
    return [f"row {number} says {number * 7919 % 10007} and {'goes on ' * 10}" for number in range(rows)]


def _held(name: str, rows: int) -> bytes:
    """What is packed in a file of that name."""
    if ".jsonl" in name:
        return "".join(json.dumps({"text": text}) + "\n" for text in _texts(rows)).encode()
    if ".csv" in name:
        return "".join(["text\n", *(f'"{text}"\n' for text in _texts(rows))]).encode()
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for number, text in enumerate("\n".join(_texts(rows)[at : at + 10]) for at in range(0, rows, 10)):
            info = tarfile.TarInfo(f"{number:06d}.txt")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return sink.getvalue()


def _file(path: Path, rows: int = ROWS) -> tuple[SourceFile, int]:
    """A packed file, and the bytes that it holds."""
    held = _held(path.name, rows)
    path.write_bytes(PACK[path.suffix](held))
    kind = "folder" if ".tar" in path.name else "table"
    folder = path.parent if kind == "folder" else path
    (file,) = open_source(SourceSpec(kind=kind, path=str(folder), pattern=path.name)).files()
    return file, len(held)


@pytest.fixture(autouse=True)
def _small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """As small beside the files of these tests as frames are beside real ones."""
    monkeypatch.setattr(frames, "FRAME_BYTES", 2048)


@pytest.fixture
def unpacked_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What came out of any decoder, piece by piece."""
    counted, real, held = list[int](), unpacking._Unpacked.readinto, frames.unpacked_frame

    def counting(self: Any, sink: memoryview) -> int:
        counted.append(real(self, sink))
        return counted[-1]

    def frame(file: Any) -> bytes:
        data = held(file)
        counted.append(len(data))
        return data

    monkeypatch.setattr(unpacking._Unpacked, "readinto", counting)
    monkeypatch.setattr(frames, "unpacked_frame", frame)
    return counted


NAMES = ["a.jsonl.gz", "a.jsonl.zst", "a.jsonl.xz", "a.csv.gz", "a.tar.gz", "a.tar.zst"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_unpacked_grows_with_the_file_and_not_with_its_parts(
    tmp_path: Path, name: str, unpacked_bytes: list[int]
) -> None:
    for rows in (ROWS, 4 * ROWS):
        file, size = _file(tmp_path / name, rows)
        unpacked_bytes.clear()
        parts = list(file.parts(UNIT_BYTES, tmp_path / "copies"))
        assert len(parts) > 2
        assert len(read_files(reversed(parts), TEXT)[0]) == (rows // 10 if ".tar" in name else rows)
        edges = 2 * frames.FRAME_BYTES * len(parts)  # a frame is begun at both ends of a part, or for names of columns
        assert sum(unpacked_bytes) <= 2 * size + edges


def test_without_a_copy_each_part_unpacks_what_lies_before_it(tmp_path: Path, unpacked_bytes: list[int]) -> None:
    """The negative control: it shows what is counted."""
    file, size = _file(tmp_path / "a.jsonl.gz", 4 * ROWS)
    assert len(read_files(file.parts(UNIT_BYTES), TEXT)[0]) == 4 * ROWS
    assert sum(unpacked_bytes) > 4 * size


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_changes_no_document(tmp_path: Path, name: str) -> None:
    file, _ = _file(tmp_path / name)
    read = []
    for copies in (None, tmp_path / "copies"):
        parts = list(file.parts(UNIT_BYTES, copies))
        read.append(([part.document for part in parts], [part.digest() for part in parts], *read_files(parts, TEXT)))
    assert read[0] == read[1]
    assert read_files([file], TEXT) == read[0][2:]
    assert len(list((tmp_path / "copies").iterdir())) == 1
    assert (tmp_path / "copies").stat().st_size < 100_000


def test_a_file_of_one_part_is_not_copied(tmp_path: Path) -> None:
    file, size = _file(tmp_path / "a.jsonl.gz", 100)
    (part,) = file.parts(size, tmp_path / "copies")
    assert not (tmp_path / "copies").exists()
    assert len(read_files([part], TEXT)[0]) == 100


@pytest.mark.parametrize("name", NAMES)
def test_a_packed_file_that_is_cut_off_gives_the_same_with_a_copy(tmp_path: Path, name: str) -> None:
    file, _ = _file(tmp_path / name)
    file.path.write_bytes(file.path.read_bytes()[:-100])
    read = [read_files(list(file.parts(UNIT_BYTES, copies)), TEXT) for copies in (None, tmp_path / "copies")]
    assert read[0] == read[1]
    assert len(read[0][0]) < ROWS
    assert len(read[0][0]) or name.endswith(".zst")  # so little is one block
    assert len(read[0][1]) >= 1


def test_a_disk_that_fills_is_not_taken_for_a_damaged_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = _file(tmp_path / "a.jsonl.gz")

    def full(*arguments: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(frames.zstd, "compress", full)
    with pytest.raises(DiskFullError):
        list(file.parts(UNIT_BYTES, tmp_path / "copies"))
    assert list((tmp_path / "copies").iterdir()) == []


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.tar.gz"])
@pytest.mark.parametrize("harm", ["short", "shorter", "changed", "locked"])
def test_a_copy_that_cannot_be_read_is_not_taken_for_a_damaged_source(
    tmp_path: Path, name: str, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = _file(tmp_path / name)
    parts = list(file.parts(UNIT_BYTES, tmp_path / "copies"))
    (copy,) = (tmp_path / "copies").iterdir()
    data = copy.read_bytes()
    if harm == "locked":
        real = open

        def closed(path: Any, *mode: Any) -> Any:
            if path == copy:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return real(path, *mode)

        monkeypatch.setattr(frames, "open", closed, raising=False)
    else:
        copy.write_bytes({"short": data[:-1], "shorter": data[:9], "changed": bytes(len(data) - 16) + data[-16:]}[harm])
    with pytest.raises(TransientError, match="into which a packed file was unpacked, cannot be read"):
        read_files(parts, TEXT)


def test_a_frame_that_is_cut_off_ends(tmp_path: Path) -> None:
    with pytest.raises(EOFError):
        frames.unpacked_frame(io.BytesIO(zstd.compress(b"a text" * 99)[:-5]))


def test_a_full_disk_of_temporary_files_is_not_taken_for_a_damaged_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": _texts(30)}), sink)
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(sink.getvalue()))

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(table_files.shutil, "copyfileobj", full)
    with pytest.raises(DiskFullError), table_files.open_table(tmp_path / "a.parquet.gz"):
        pass


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("form", [".parquet", ".arrow", ".feather"])
def test_columns_may_be_packed(tmp_path: Path, form: str, ending: str) -> None:
    table, sink = pa.table({"text": _texts(300)}), io.BytesIO()
    if form == ".parquet":
        pq.write_table(table, sink, row_group_size=100)
    else:
        with (pa.ipc.new_file if form == ".arrow" else pa.ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table, 100)
    path = tmp_path / f"a{form}{ending}"
    path.write_bytes(PACK[ending](sink.getvalue()))
    (file,) = open_source(SourceSpec(kind="table", path=str(path))).files()
    for copies in (None, tmp_path / "copies"):
        parts = list(file.parts(5000, copies))
        assert len(parts) > 2
        documents, quarantined = read_files(reversed(parts), TEXT)
        assert sorted(documents["text"].to_pylist()) == sorted(_texts(300))
        assert len(quarantined) == 0
    with read_table(path, 64) as rows:
        assert [row["text"] for batch in rows.batches for row in batch] == _texts(300)
    path.write_bytes(path.read_bytes()[:-9])
    (file,) = open_source(SourceSpec(kind="table", path=str(path))).files()
    (reason,) = read_files(file.parts(5000, tmp_path / "copies"), TEXT)[1]["reason"].to_pylist()
    assert "truncated" in reason


def test_packed_columns_are_held_to_the_bound_of_what_may_be_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(gzip.compress(bytes(5_000_000)))
    (file,) = open_source(SourceSpec(kind="table", path=str(path))).files()
    (reason,) = read_files(file.parts(10**6, tmp_path / "copies"), TEXT)[1]["reason"].to_pylist()
    assert reason.startswith("gzip that unpacks to more than 100 times its size")
    assert not list((tmp_path / "copies").glob("*.partial"))


def _ingested(path: Path, context: Context) -> Any:
    source = {"kind": "table", "path": str(path)}
    spec = {"source": source, "tokenizer": {"vocabulary": 300}, "unit_bytes": UNIT_BYTES}
    return ingest(IngestSpec.model_validate(spec), {}, context)


def test_an_ingestion_unpacks_a_packed_table_once_and_leaves_no_copy(
    tmp_path: Path, serial_context: Callable[[Path], Context], unpacked_bytes: list[int]
) -> None:
    file, size = _file(tmp_path / "a.jsonl.gz", 4 * ROWS)
    unpacked_bytes.clear()
    packed = _ingested(file.path, serial_context(tmp_path / "packed"))
    assert sum(unpacked_bytes) <= 3.5 * size  # a look at the first MiB, once to cut it, once its frames
    assert not (tmp_path / "packed" / "unpacked").exists()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.jsonl").write_bytes(gzip.decompress(file.path.read_bytes()))
    plain = _ingested(tmp_path / "plain" / "a.jsonl", serial_context(tmp_path / "unpacked"))
    assert packed.summary["documents"] == plain.summary["documents"]

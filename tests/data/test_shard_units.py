"""Shards that results share: one file under several names, which lives as long as one of them, and the same bytes."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foundation_core.data.shards.dataset import Rows, ShardDataset, ShardWriter
from foundation_core.data.shards.shared import SharedShards
from foundation_core.data.units.store import prune
from foundation_core.files import own_bytes
from tests.support.data_folder import DataFolder, little_ingestion, little_text, little_texts, write_texts

Digests = Callable[[Path], dict[str, str]]
SCHEMA = pa.schema({"document": pa.string(), "group": pa.string(), "tokens": pa.large_list(pa.int32())})


def inodes(folder: Path) -> dict[int, Path]:
    """The shards of a result by the files that they are."""
    return {path.stat().st_ino: path for path in folder.glob("**/shard-*.arrow")}


def test_a_result_shares_the_shards_that_held_no_changed_document(tmp_path: Path, digests: Digests) -> None:
    folder, new = DataFolder(tmp_path / "home"), DataFolder(tmp_path / "new")
    raw = write_texts(tmp_path / "raw", little_texts(120))
    folder.ingest(little_ingestion(raw))
    first, before = folder.last, own_bytes(tmp_path / "home" / "units")
    kept = {"kind": "existing", "path": str(first / "tokenizer.json")}
    write_texts(raw, {**little_texts(120), "064.txt": little_text("changed")})
    result = folder.ingest(little_ingestion(raw, tokenizer=kept))
    new.ingest(little_ingestion(raw, tokenizer=kept))
    assert digests(folder.last) == digests(new.last)
    shared = inodes(first).keys() & inodes(folder.last).keys()
    counts = result.summary["units"]["shards"]
    assert counts["done"] <= 3  # of documents and of tokens; the negative control: one text is another
    assert counts["done"] > 0
    assert len(shared) == counts["reused"] > 6
    assert result.summary["units"]["encode"]["done"] <= 2
    pruned = prune(tmp_path / "home" / "units", time.time() + 1)
    assert pruned.removed_bytes > before
    assert not list((tmp_path / "home" / "units").rglob("*.arrow"))
    for each in (first, folder.last):
        for path in ("documents", "tokens/train", "tokens/validation", "tokens/test"):
            ShardDataset(each / path).verify()
    assert digests(folder.last) == digests(new.last)


def test_what_only_a_unit_has_counts_as_room_and_what_a_result_has_does_not(tmp_path: Path) -> None:
    shards = SharedShards(tmp_path / "units", "test")
    with ShardWriter(tmp_path / "result", SCHEMA, source={}, shard_size=10**9, make=shards) as writer:
        writer.write(table(1000))
    dataset = ShardDataset(tmp_path / "result")
    assert own_bytes(tmp_path / "units") < 2000 < dataset.manifest["bytes"]
    assert own_bytes(tmp_path / "result") < 2000  # a manifest alone: the shard stays if this folder goes
    (tmp_path / "result" / "shard-00000.arrow").unlink()
    assert own_bytes(tmp_path / "units") > dataset.manifest["bytes"]


def test_rows_of_a_shard_that_is_there_are_not_read(tmp_path: Path) -> None:
    def unread(start: int, count: int) -> Any:
        raise AssertionError("nobody needs them")

    rows, shards = Rows.of(table(50)), SharedShards(tmp_path / "units", "test")
    contents = []
    for name, held in (("first", rows.held), ("second", unread)):
        with ShardWriter(tmp_path / name, SCHEMA, source={}, shard_size=40, make=shards) as writer:
            writer.add(Rows(rows.known, rows.sizes, held))
        contents.append(ShardDataset(tmp_path / name).content)
    assert contents[0] == contents[1]
    assert shards.done["reused"] == shards.done["done"] > 2
    others = SharedShards(tmp_path / "units", "made by other code")
    writer = ShardWriter(tmp_path / "third", SCHEMA, source={}, shard_size=40, make=others)
    with pytest.raises(AssertionError, match="nobody needs them"), writer:
        writer.add(Rows(rows.known, rows.sizes, unread))


def test_shards_are_the_same_however_they_are_made(tmp_path: Path) -> None:
    rows, shards, made = table(300), SharedShards(tmp_path / "units", "test"), []
    for number, at in enumerate(([300], [1, 299], [100, 100, 100])):
        for name, make in (("alone", {}), ("shared", {"make": shards})):
            folder, start = tmp_path / f"{name}-{number}", 0
            with ShardWriter(folder, SCHEMA, source={}, shard_size=90, **make) as writer:
                for count in at:
                    writer.add(Rows.of(rows).slice(start, count))
                    start += count
            made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert all(one == made[0] for one in made)
    assert shards.done["done"] == len(made[0]) - 1


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_a_file_can_have_no_second_name_the_shard_is_a_copy(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    shards = SharedShards(tmp_path / "units", "test")
    for name in ("first", "second"):
        with ShardWriter(tmp_path / name, SCHEMA, source={}, shard_size=1000, make=shards) as writer:
            writer.write(table(30))
        ShardDataset(tmp_path / name).verify()
    assert shards.done == {"reused": 1, "done": 1}
    assert not inodes(tmp_path / "first").keys() & inodes(tmp_path / "second").keys()


def test_a_damaged_shard_is_made_anew_and_no_result_gets_it(tmp_path: Path) -> None:
    shards = SharedShards(tmp_path / "units", "test")
    for name in ("first", "second"):
        with ShardWriter(tmp_path / name, SCHEMA, source={}, shard_size=1000, make=shards) as writer:
            writer.write(table(30))
        ShardDataset(tmp_path / name).verify()
        with open(tmp_path / name / "shard-00000.arrow", "r+b") as file:  # and so the unit's, which is the same file
            file.seek(100)
            file.write(b"damage")
    assert shards.done == {"reused": 0, "done": 2}


def table(count: int) -> pa.Table:
    """Rows of three tokens each."""
    names = [f"{number:06d}" for number in range(count)]
    return pa.table({"document": names, "group": ["g"] * count, "tokens": [[1, 2, 3]] * count}, schema=SCHEMA)

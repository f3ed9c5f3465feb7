"""Shards: whole or not there, and what they say they are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from foundation_core.data.shards.dataset import ShardDataset, ShardWriter
from foundation_core.errors import DataError, SetupError

SCHEMA = pa.schema({"document": pa.string(), "tokens": pa.large_list(pa.int32())})

# Writes three shards, for a row of 4/3 of the size always ends one, in a child for each moment at which a writer can be
# killed: before its n-th fsync or rename.
KILLED_AT_EVERY_MOMENT = """
import os, signal, sys
from pathlib import Path
import pyarrow as pa
from foundation_core.data.shards.dataset import ShardWriter

SCHEMA = pa.schema({"document": pa.string(), "tokens": pa.large_list(pa.int32())})

def write(folder):
    with ShardWriter(folder, SCHEMA, source={}, shard_size=10) as writer:
        for number in range(3):
            writer.write(pa.table({"document": [f"{number}"], "tokens": [[number] * 14]}, schema=SCHEMA))

def dying(call, moments=iter(range(10**6))):
    def count(*arguments):
        if next(moments) == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    return count

for point in range(9):
    child = os.fork()
    if not child:
        os.fsync, os.replace = dying(os.fsync), dying(os.replace)
        write(Path(sys.argv[1]) / str(point))
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""

WRITES_UNTIL_KILLED = """
import sys
from itertools import count
from pathlib import Path
import pyarrow as pa
from foundation_core.data.shards.dataset import ShardWriter

SCHEMA = pa.schema({"document": pa.string(), "tokens": pa.large_list(pa.int32())})
with ShardWriter(Path(sys.argv[1]), SCHEMA, source={}, shard_size=1000) as writer:
    for number in count():
        writer.write(pa.table({"document": [f"{number}"], "tokens": [[number] * 1400]}, schema=SCHEMA))
        print(number, flush=True)
"""


def rows(count: int, size: int = 4) -> pa.Table:
    tokens = [[number] * size for number in range(count)]
    return pa.table({"document": [f"s/{number}" for number in range(count)], "tokens": tokens}, schema=SCHEMA)


def write(folder: Path, *parts: pa.Table, shard_size: int = 10) -> ShardDataset:
    with ShardWriter(folder, SCHEMA, source={"kind": "test"}, shard_size=shard_size) as writer:
        for part in parts:
            writer.write(part)
    return ShardDataset(folder)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_written_is_read_in_order(tmp_path: Path) -> None:
    dataset = write(tmp_path, rows(11))
    assert pa.concat_tables(dataset.tables()).equals(rows(11))
    assert (dataset.rows, dataset.tokens) == (11, 44)
    assert dataset.shards > 1


def test_shards_have_the_size_that_is_asked_for_on_average_and_never_more_than_twice(tmp_path: Path) -> None:
    dataset = write(tmp_path, rows(2000, size=10), shard_size=200)
    tokens = [shard["tokens"] for shard in dataset.manifest["shards"]]
    assert 150 < sum(tokens) / len(tokens) < 250
    assert max(tokens) <= 400
    assert write(tmp_path / "large", rows(3, size=401), shard_size=200).shards == 3  # one row is never cut


def test_a_row_that_joins_or_leaves_changes_the_shard_that_it_is_in_and_no_other(tmp_path: Path) -> None:
    def shards(name: str, table: pa.Table) -> set[str]:
        return {shard["sha256"] for shard in write(tmp_path / name, table, shard_size=60).manifest["shards"]}

    whole = rows(400)
    before = shards("before", whole)
    after = shards("after", pa.concat_tables([whole.slice(0, 201), whole.slice(202)]))
    assert len(before) > 20
    assert len(before - after) in (1, 2)  # two where the row had ended one
    others = whole.set_column(0, "document", pa.array([f"other/{number}" for number in range(400)]))
    assert not before & shards("others", others)  # the negative control


@pytest.mark.parametrize("step", [1, 2, 5, 100])
def test_the_same_rows_give_the_same_bytes_however_they_arrive(tmp_path: Path, step: int) -> None:
    write(tmp_path / "whole", rows(20))
    write(tmp_path / "parts", *(rows(20).slice(start, step) for start in range(0, 20, step)))
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")
    write(tmp_path / "others", rows(20).slice(1))  # the negative control
    assert files_of(tmp_path / "others") != files_of(tmp_path / "whole")


def test_the_content_hash_follows_rows_and_tokenizer_but_not_the_source_or_the_folder(tmp_path: Path) -> None:
    def content(name: str, table: pa.Table, source: str = "one", tokenizer: str = "t") -> str:
        with ShardWriter(tmp_path / name, SCHEMA, source={"is": source}, tokenizer=tokenizer, shard_size=10) as writer:
            writer.write(table)
        return ShardDataset(tmp_path / name).content

    first = content("a", rows(9))
    assert content("b", rows(9), source="two") == first
    assert content("c", rows(8)) != first
    assert content("d", rows(9), tokenizer="u") != first


def test_no_rows_are_a_data_set_too(tmp_path: Path) -> None:
    dataset = write(tmp_path, rows(0))
    assert (dataset.rows, dataset.shards, list(dataset.tables())) == (0, 0, [])


def test_a_writer_killed_before_any_fsync_or_rename_leaves_nothing_readable(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_AT_EVERY_MOMENT, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["9"] * 8 + ["0"]  # killed at each of eight moments; the ninth never comes
    for moment in range(8):
        with pytest.raises(DataError, match="not a finished data set"):
            ShardDataset(tmp_path / str(moment))
    assert ShardDataset(tmp_path / "8").rows == 3  # the negative control: not killed, it can be read


def test_a_writer_killed_from_outside_leaves_nothing_readable_and_another_can_start_anew(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITES_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while int(child.stdout.readline()) < 5:
            pass
        child.kill()
    assert len(list(tmp_path.glob("shard-*.arrow"))) >= 5
    with pytest.raises(DataError, match="not a finished data set"):
        ShardDataset(tmp_path)
    write(tmp_path, rows(3), shard_size=10**6)
    assert sorted(files_of(tmp_path)) == ["manifest.json", "shard-00000.arrow"]


def test_a_writer_that_fails_leaves_nothing_readable(tmp_path: Path) -> None:
    def fail_after_two_shards() -> None:
        with ShardWriter(tmp_path, SCHEMA, source={}, shard_size=10) as writer:
            writer.write(rows(2, size=14))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_two_shards()
    assert len(list(tmp_path.glob("shard-*.arrow"))) == 2
    with pytest.raises(DataError, match="not a finished data set"):
        ShardDataset(tmp_path)


def test_a_finished_data_set_is_not_written_over(tmp_path: Path) -> None:
    before = write(tmp_path, rows(5)).content
    with pytest.raises(DataError, match="already holds"):
        write(tmp_path, rows(6))
    assert ShardDataset(tmp_path).content == before


@pytest.mark.parametrize(
    ("damage", "words"), [("truncated", "bytes long"), ("edited", "was edited"), ("gone", "not there")]
)
def test_a_shard_that_is_not_what_was_written_is_named_with_its_sha256(tmp_path: Path, damage: str, words: str) -> None:
    dataset = write(tmp_path, rows(9))
    path, data = tmp_path / "shard-00001.arrow", bytearray((tmp_path / "shard-00001.arrow").read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(data[:-1])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(DataError, match=rf"shard-00001\.arrow is damaged.*{words}") as caught:
        ShardDataset(tmp_path).verify()
    assert dataset.manifest["shards"][1]["sha256"] in caught.value.found
    assert "run the ingest stage again" in caught.value.fix


def test_processes_of_a_machine_find_together_each_shard_that_is_too_short(tmp_path: Path) -> None:
    shards = write(tmp_path, rows(9)).shards
    for shard in range(shards):
        path = tmp_path / f"shard-{shard:05d}.arrow"
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        for process in range(3):
            if process == shard % 3:
                with pytest.raises(DataError, match=rf"shard-{shard:05d}\.arrow is damaged.*bytes long"):
                    ShardDataset(tmp_path, share=(process, 3))
            else:  # no size is compared twice; whoever reads the shard compares its sha256
                opened = ShardDataset(tmp_path, share=(process, 3))
                with pytest.raises(DataError, match=rf"shard-{shard:05d}\.arrow is damaged"):
                    opened.table(shard)
        path.write_bytes(data)


def test_an_edit_of_the_same_length_is_found_at_every_look(tmp_path: Path) -> None:
    write(tmp_path, rows(3), shard_size=10**6)
    path = tmp_path / "shard-00000.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="no Arrow file"):
        ShardDataset(tmp_path, verify=False).table(0)
    opened = ShardDataset(tmp_path)
    for look in (lambda: opened.table(0), lambda: opened.table(0), opened.verify):
        with pytest.raises(DataError, match="was edited"):
            look()


def test_a_shard_is_compared_with_its_sha256_when_it_is_first_read_and_no_other_one(tmp_path: Path) -> None:
    write(tmp_path, rows(9))
    path = tmp_path / "shard-00001.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    opened = ShardDataset(tmp_path)
    opened.table(0)
    with pytest.raises(DataError, match=r"shard-00001\.arrow is damaged.*was edited"):
        opened.table(1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 3}, "has version 3"),
        ({"content": "0" * 64}, "was edited"),
        ({"tokenizer": "another"}, "was edited"),
        ({"shards": []}, "was edited"),
    ],
)
def test_a_manifest_that_is_newer_or_edited_is_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    dataset = write(tmp_path, rows(3))
    (tmp_path / "manifest.json").write_text(json.dumps({**dataset.manifest, **change}))
    with pytest.raises(DataError, match=words):
        ShardDataset(tmp_path)


def test_shards_that_are_gone_through_do_not_stay_in_memory(tmp_path: Path) -> None:
    dataset = write(tmp_path, rows(25), shard_size=10)

    def mapped() -> int:
        return sum(str(tmp_path) in line for line in Path("/proc/self/maps").read_text().splitlines())

    most = 0
    for table in dataset.tables():
        most = max(most, mapped())
        del table
    assert dataset.shards > 2
    assert (most, mapped()) == (1, 0)
    held = [dataset.table(shard) for shard in range(dataset.shards)]  # the control: what is asked for by number stays
    del held
    list(dataset.tables())
    assert mapped() == dataset.shards


def test_a_full_disk_is_said_and_leaves_nothing_readable(little_disk: Callable[[str], Path]) -> None:
    disk = little_disk("128k")
    with pytest.raises(SetupError, match="no room left on the disk"):
        write(disk / "data", rows(100, size=1000), shard_size=10_000)
    assert not list(disk.glob("**/*.partial"))
    with pytest.raises(DataError, match="not a finished data set"):
        ShardDataset(disk / "data")
    write(disk / "less", rows(3))  # the negative control: what fits is written

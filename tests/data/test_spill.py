"""Records on disk: whatever the partitions and the memory, a key's records are found together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation_core.data.copies.spill import Lists, Scratch, repeats

SCHEMA = pa.schema({"key": pa.uint64(), "row": pa.int64()})
LENGTHS = pa.schema({"length": pa.int64()})
_IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def table(keys: list[int], first: int = 0) -> pa.Table:
    return pa.table([keys, list(range(first, first + len(keys)))], schema=SCHEMA)


@given(
    batches=st.lists(st.lists(st.integers(0, 20), max_size=9), max_size=6),
    count=st.integers(1, 5),
    memory_bytes=st.sampled_from([1, 200, 5000, 1 << 20]),
)
@settings(max_examples=60)
def test_repeats_are_those_that_plain_python_counts(batches: list[list[int]], count: int, memory_bytes: int) -> None:
    keys = [key for batch in batches for key in batch]
    counts = Counter(keys)
    with TemporaryDirectory(dir=_IN_MEMORY) as folder, Scratch(Path(folder) / "s", memory_bytes).opened() as scratch:
        partitions, first = scratch.partitions("keys", SCHEMA, count), 0
        for batch in batches:
            partitions.add(table(batch, first), pa.array([key % count for key in batch], pa.int64()))
            first += len(batch)
        found = {}
        for number in range(count):
            lengths, some = repeats(partitions, number, "row")
            for each in some:
                columns = (each.records["row"], each.records["key"], each.key, each.first, each.count)
                for row, key, place, smallest, how_many in zip(
                    *(column.to_pylist() for column in columns), strict=True
                ):
                    found[row] = key, smallest, how_many
                    assert lengths[place].as_py() == how_many
            partitions.remove(number)
        assert partitions.records == len(keys)
        left = [path for path in scratch.folder.rglob("*") if path.is_file()]
    expected = {row: (key, keys.index(key), counts[key]) for row, key in enumerate(keys) if counts[key] > 1}
    assert found == expected
    assert left == []


def test_less_memory_makes_more_partitions_and_none_is_read_by_more_than_its_share(tmp_path: Path) -> None:
    few, many = (Scratch(tmp_path / "s", memory_bytes).parts_of(10_000, SCHEMA) for memory_bytes in (1 << 24, 1 << 14))
    assert few == 1
    assert many == 10_000 * 16 * 8 / (1 << 14) // 1 + 1
    with Scratch(tmp_path / "s", 1 << 14).opened() as scratch:
        one_key = scratch.partitions("keys", SCHEMA, 1)
        for first in range(0, 10_000, 50):
            one_key.add(table([7] * 50, first))
        sizes = [len(chunk) for chunk in one_key.chunks(0)]
        assert sum(sizes) == 10_000
        assert max(sizes) * 16 <= (1 << 14) // 8 + 50 * 16  # a key that all records have makes no larger chunk
    assert not scratch.folder.exists()


@given(values=st.lists(st.integers(0, 3), max_size=30), held_bytes=st.sampled_from([1, 100_000]))
@settings(max_examples=30)
def test_lists_keep_what_was_added_however_often_their_pages_are_given_back(values: list[int], held_bytes: int) -> None:
    with TemporaryDirectory(dir=_IN_MEMORY) as folder, Scratch(Path(folder) / "s", 1000).opened() as scratch:
        lengths = scratch.partitions("lengths", LENGTHS, 1)
        lengths.add(pa.table([[values.count(number) for number in range(4)]], schema=LENGTHS))
        lists = Lists(scratch.folder / "lists", lengths, held_bytes)
        for place, number in enumerate(values):
            lists.append(number, place)
        for number in range(4):
            assert lists.of(number) == [place for place, each in enumerate(values) if each == number]


def test_a_scratch_folder_is_gone_after_an_error_too(tmp_path: Path) -> None:
    def failing() -> None:
        with Scratch(tmp_path / "s", 1000).opened() as scratch:
            scratch.partitions("keys", SCHEMA, 1).add(table([1, 2]))
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert list(tmp_path.iterdir()) == []

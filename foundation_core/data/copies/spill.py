"""Records that need not fit in memory: on disk in partitions by their key, and looked at a partition at a time.

    records --add--> partitions by a part of their key --repeats--> records whose key others have too

All records of a key lie in one partition, so that copies are found in each partition apart (the partitioning of a hash
join: DeWitt et al. 1984). A partition may outgrow the memory all the same, where many records have one key: it is read
in chunks, and what is held of it is one entry for each different key.

The files are scratch: nothing of them counts after an interruption, so they are neither hashed nor synced.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.files import full_disk_said

_SHARE = 8
"""Memory is divided by so much for what is read at once: grouping, sorting and looking up take copies of it."""
_PAGE_BYTES = 4096


@dataclass(frozen=True)
class Scratch:
    """A folder for partitions, and the memory in which they are looked at.

    Args:
        memory_bytes: that may be held at a time; about.
    """

    folder: Path
    memory_bytes: int

    @contextmanager
    def opened(self) -> Iterator[Scratch]:
        """The folder, empty; it is removed with all that is in it.

        Raises:
            DiskFullError: there is no room for what is put into it.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            with full_disk_said(self.folder):
                self.folder.mkdir(parents=True)
                yield self
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def parts_of(self, records: int, schema: pa.Schema) -> int:
        """Into how many partitions so many records go."""
        return max(1, -(-records * _width(schema) * _SHARE // self.memory_bytes))

    def partitions(self, name: str, schema: pa.Schema, count: int) -> Partitions:
        """New and empty ones."""
        return Partitions(self.folder / name, schema, count, max(1, self.memory_bytes // _SHARE // _width(schema)))


def _width(schema: pa.Schema) -> int:
    bits: int = sum(field.type.bit_width for field in schema)
    return bits // 8


class Partitions:
    """Records of a schema of fixed widths, in numbered files.

    Args:
        held: records that wait before they are written.
    """

    def __init__(self, folder: Path, schema: pa.Schema, count: int, held: int) -> None:
        self.folder, self.schema, self.count, self.records = folder, schema, count, 0
        self._held, self._waiting, self._waiting_records = held, list[pa.Table](), 0
        folder.mkdir(parents=True)

    def add(self, records: pa.Table, numbers: pa.Array | None = None) -> None:
        """Append records.

        Args:
            numbers: of the partition of each. None: all go to the first.
        """
        if numbers is None:
            numbers = pa.repeat(pa.scalar(0, pa.int64()), len(records))
        self._waiting.append(records.cast(self.schema).append_column("", numbers))
        self.records += len(records)
        self._waiting_records += len(records)
        if self._waiting_records >= self._held:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting_records:
            return
        waiting = pa.concat_tables(self._waiting).combine_chunks()
        waiting = waiting.take(pc.sort_indices(waiting[""]))
        start, records = 0, waiting.drop_columns([""])
        for row in waiting[""].value_counts().to_pylist():  # each number where it comes first: in their order
            some = records.slice(start, row["counts"])
            start += len(some)
            with open(self._file(row["values"]), "ab") as sink, pa.ipc.new_stream(sink, self.schema) as writer:
                writer.write_table(some)
        self._waiting, self._waiting_records = [], 0

    def chunks(self, number: int) -> Iterator[pa.Table]:
        """A partition's records in the order in which they were added, as many at a time as were written at once."""
        self._flush()
        if self._file(number).exists():
            with open(self._file(number), "rb") as source:
                end = os.fstat(source.fileno()).st_size
                while source.tell() < end:
                    yield pa.ipc.open_stream(source).read_all()

    def held(self, number: int) -> pa.Table:
        """A partition's records at once."""
        return pa.concat_tables([self.schema.empty_table(), *self.chunks(number)])

    def remove(self, number: int) -> None:
        """Give the room of a partition back."""
        self._file(number).unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}"


class Repeats(NamedTuple):
    """Records whose key others of their partition have too.

    Args:
        key: the number of each record's key among the partition's repeated keys.
        first: the smallest value of all records with the key.
        count: of all records with the key.
    """

    records: pa.Table
    key: pa.ChunkedArray
    first: pa.ChunkedArray
    count: pa.ChunkedArray


def repeats(partitions: Partitions, number: int, smallest: str) -> tuple[pa.ChunkedArray, Iterator[Repeats]]:
    """How many records each repeated key of a partition has, and these records, some at a time.

    Args:
        smallest: the column whose smallest value is found for each key. Keys are in the column `key`.
    """
    known = pa.table({"key": partitions.schema.empty_table()["key"], "first": partitions.schema.empty_table()[smallest],
                      "count": pa.array([], pa.int64())})  # fmt: skip
    for some in partitions.chunks(number):
        ones = pa.repeat(pa.scalar(1, pa.int64()), len(some))
        here = pa.table({"key": some["key"], "first": some[smallest], "count": ones})
        groups = pa.concat_tables([known, here]).group_by("key", use_threads=False)
        known = groups.aggregate([("first", "min"), ("count", "sum")]).select(["key", "first_min", "count_sum"])
        known = known.rename_columns(["key", "first", "count"])
    known = known.filter(pc.greater(known["count"], 1)).combine_chunks()

    def found() -> Iterator[Repeats]:
        for some in partitions.chunks(number) if len(known) else ():
            key = pc.index_in(some["key"], known["key"].combine_chunks())
            there = key.is_valid()
            key = key.filter(there)
            yield Repeats(some.filter(there), key, known["first"].take(key), known["count"].take(key))

    return known["count"], found()


class Lists:
    """Lists of numbers on disk, each of a known greatest length; pages that were touched are given back.

    Args:
        lengths: the greatest length of each list.
        held_bytes: of pages that may be touched before they are given back.
    """

    def __init__(self, file: Path, lengths: Partitions, held_bytes: int) -> None:
        count, room = lengths.records, sum(pc.sum(some["length"]).as_py() or 0 for some in lengths.chunks(0))
        size = 8 * max(1, 2 * count + room)
        with open(file, "w+b") as source:
            os.posix_fallocate(source.fileno(), 0, size)  # a page that finds no room later would end the process
            self._map = mmap.mmap(source.fileno(), size)
        whole = memoryview(self._map).cast("q")
        self._starts, self._filled, self._numbers = whole[:count], whole[count : 2 * count], whole[2 * count :]
        self._most_touched, self._touched = max(1, held_bytes // (3 * _PAGE_BYTES)), 0
        place = 0
        for number, length in enumerate(one for some in lengths.chunks(0) for one in some["length"].to_pylist()):
            self._touch()
            self._starts[number], place = place, place + length

    def of(self, number: int) -> list[int]:
        """The numbers of a list, in the order in which they came."""
        self._touch()
        start = self._starts[number]
        return self._numbers[start : start + self._filled[number]].tolist()

    def append(self, number: int, value: int) -> None:
        """Add a number to a list."""
        self._touch()
        self._numbers[self._starts[number] + self._filled[number]] = value
        self._filled[number] += 1

    def _touch(self) -> None:
        self._touched += 1
        if self._touched >= self._most_touched:
            self._touched = 0
            self._map.madvise(mmap.MADV_DONTNEED)  # what was written stays in the file

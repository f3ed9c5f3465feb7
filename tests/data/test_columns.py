"""Parquet and Arrow in which a few bytes stand for any amount of memory are set aside before they take it."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundation_core.data.tables.batches import read_table
from foundation_core.data.tables.columns import Arrow, Parquet
from foundation_core.data.tables.cuts import Broken
from foundation_core.data.tables.ipc_messages import expanding
from foundation_core.data.tables.parquet_pages import column_pages
from foundation_core.errors import DataError
from foundation_core.specs.reading import ReadingSpec

ROWS, ENTRY, EXPANSION = 1000, 150_000, 20
BOUND_BYTES = 100_000_000
"""What a child may take beside its imports; every bomb would take more."""

# Reads each file in a process that cannot have more memory; says how many rows came and why others did not.
READS = """
import json, resource, sys
from pathlib import Path
import pyarrow.parquet
from foundation_core.data.tables.columns import Arrow, Parquet
from foundation_core.data.tables.cuts import Broken
from foundation_core.specs.reading import ReadingSpec

taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[1]),) * 2)
reading, found = ReadingSpec(most_expansion=int(sys.argv[2])), {}
for name in sys.argv[3:]:
    kind, held, reasons, cuts = Parquet() if name.endswith("parquet") else Arrow(), [], [], 0
    with open(name, "rb") as stream:
        try:
            for cut in kind.cuts(stream, 1_000_000, reading):
                cuts += 1
                for _, row in kind.rows(stream, cut, ["text"], reading):
                    if isinstance(row, Broken):
                        reasons.append(row.reason)
                    else:
                        held.append((row["text"] or b"")[:1])
        except ValueError as error:
            reasons.append(str(error))
    found[Path(name).name] = [len(held), cuts, reasons[:9]]
print(json.dumps(found))
"""


def noise(size: int = ENTRY) -> str:
    """A text that does not pack."""
    return random.Random(size).randbytes(size // 2).hex()


def looked_up(count: int = ROWS) -> pa.Array:
    """So many rows that are all one text, which is held once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([noise()]))


def zeros() -> pa.Array:
    return pa.array(["0" * ENTRY] * ROWS, pa.large_string())


def parquet(column: pa.Array, path: Path, **options: object) -> None:
    pq.write_table(pa.table({"text": column}), path, **options)


def arrow(column: pa.Array, path: Path, compression: str | None = None, stream: bool = False) -> None:
    table = pa.table({"text": column})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), table.schema, options=options) as writer:
        writer.write_table(table)


def lists() -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, ROWS], pa.int32()), looked_up())


BOMBS: dict[str, Callable[[Path], None]] = {
    "pages.parquet": lambda path: parquet(zeros(), path, compression="zstd", use_dictionary=False),
    "looked up.parquet": lambda path: parquet(looked_up(), path, compression="none"),
    "prefixes.parquet": lambda path: parquet(
        pa.array([noise()] * ROWS), path, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"}
    ),
    "lists.parquet": lambda path: parquet(lists(), path, compression="none"),
    "nothing.parquet": lambda path: parquet(pa.nulls(3_000_000, pa.string()), path),
    "buffers.arrow": lambda path: arrow(zeros(), path, "zstd"),
    "stream.arrow": lambda path: arrow(zeros(), path, "lz4", stream=True),
    "looked up.arrow": lambda path: arrow(looked_up(), path),
    "dictionary.arrow": lambda path: arrow(pa.DictionaryArray.from_arrays(pa.array([0]), zeros()), path, "zstd"),
    "lists.arrow": lambda path: arrow(lists(), path),
    "nothing.arrow": lambda path: arrow(pa.Array.from_buffers(pa.null(), 2 * 10**9, [None]), path),
}


PACKED = {"pages.parquet", "buffers.arrow", "stream.arrow", "dictionary.arrow"}


def read_in_a_child(folder: Path, most_expansion: int) -> dict[str, tuple[int, int, list[str]]]:
    """For each bomb of a folder the rows that came, the parts, and why others did not come."""
    names = sorted(str(path) for path in folder.iterdir())
    command = [sys.executable, "-c", READS, str(BOUND_BYTES), str(most_expansion), *names]
    one_pool = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **one_pool})
    found: dict[str, tuple[int, int, list[str]]] = json.loads(run.stdout)
    return found


def test_bombs_are_set_aside_with_the_reason_before_they_take_memory(tmp_path: Path) -> None:
    for name, write in BOMBS.items():
        write(tmp_path / name)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 5_000_000
    for name, (rows, parts, reasons) in read_in_a_child(tmp_path, EXPANSION).items():
        assert reasons, name
        assert "more than 20 times" in reasons[0] or "may unpack to anything" in reasons[0], (name, reasons)
        assert rows * ENTRY < max(1 << 20, EXPANSION * (tmp_path / name).stat().st_size) * 1.1, name
        assert parts <= ROWS, name
    for name in BOMBS.keys() - PACKED:  # the negative control: without the bound there is not enough memory
        (tmp_path / name).unlink()
    for name, (_, _, reasons) in read_in_a_child(tmp_path, 10**9).items():
        assert reasons, name
        assert "cannot be read" in reasons[0] or "can be read" in reasons[0], (name, reasons)


@pytest.mark.parametrize("name", ["looked up.parquet", "prefixes.parquet", "looked up.arrow"])
def test_with_a_larger_bound_the_same_rows_are_read(name: str, tmp_path: Path) -> None:
    BOMBS[name](tmp_path / name)
    kind, expected = Parquet() if name.endswith("parquet") else Arrow(), noise().encode()
    reading = ReadingSpec(most_expansion=2 * ROWS)
    with open(tmp_path / name, "rb") as stream:
        (cut, *more) = kind.cuts(stream, 10**9, reading)
        assert not more
        count = 0
        for _, row in kind.rows(stream, cut, ["text"], reading):
            assert not isinstance(row, Broken)
            text = row["text"]
            assert (text if isinstance(text, bytes) else text.encode()) == expected
            count += 1
    assert count == ROWS


@pytest.mark.parametrize(
    "name", ["pages.parquet", "lists.parquet", "buffers.arrow", "stream.arrow", "dictionary.arrow"]
)
def test_tables_of_images_and_of_predictions_are_held_to_the_same_bound(name: str, tmp_path: Path) -> None:
    BOMBS[name](tmp_path / name)
    with pytest.raises(DataError, match="more than 100 times"), read_table(tmp_path / name, 10) as table:
        next(table.batches)
    arrow(pa.array(["a few rows"] * 3), tmp_path / "a.arrow", "zstd")  # the negative control
    with read_table(tmp_path / "a.arrow", 10) as table:
        assert next(table.batches) == [{"text": "a few rows"}] * 3


@pytest.mark.parametrize("compression", ["none", "zstd", "snappy"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_pages_are_counted_as_the_footer_states_them(compression: str, version: str, dictionary: bool) -> None:
    sink, texts = io.BytesIO(), [noise(200 + number % 50) * (number % 9) for number in range(3000)]
    table = pa.table({"text": texts, "tags": [["a", "b"]] * 3000})
    options = {"data_page_version": version, "data_page_size": 20_000, "row_group_size": 1100}
    pq.write_table(table, sink, compression=compression, use_dictionary=dictionary, **options)
    facts = pq.ParquetFile(sink).metadata
    for group in (facts.row_group(number) for number in range(facts.num_row_groups)):
        for chunk in (group.column(number) for number in range(group.num_columns)):
            pages = column_pages(sink, chunk)
            assert pages.values == chunk.num_values
            headers = chunk.total_compressed_size - pages.packed  # both totals hold the headers, too
            assert 0 < headers < 0.2 * chunk.total_compressed_size + 500
            assert pages.unpacked == chunk.total_uncompressed_size - headers
            assert (pages.largest > 0) is dictionary
    with pytest.raises(ValueError, match="damaged"):
        column_pages(io.BytesIO(sink.getvalue()[:200]), facts.row_group(1).column(0))


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("is_file", [True, False])
def test_batches_are_counted_as_they_unpack(compression: str | None, is_file: bool) -> None:
    sink = io.BytesIO()
    column = pa.chunked_array([pa.array([noise(300) * 50] * 20), pa.array(["b"] * 7)])
    table = pa.table({"text": column, "kind": pa.chunked_array([["x"] * 20, ["y"] * 7]).dictionary_encode()})
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=True, unify_dictionaries=is_file)
    with (pa.ipc.new_file if is_file else pa.ipc.new_stream)(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    told = expanding(sink, 1000, is_file)
    assert (len(told.packed), told.first_refused, told.damaged) == (2, False, False)
    assert told.dictionaries > 0
    assert sum(told.packed) + told.dictionaries < len(sink.getvalue())
    assert (told.packed[0] < 20 * 300 * 50 / 10) is (compression is not None)
    cut_off = io.BytesIO(sink.getvalue()[:-200])
    if not is_file:
        assert expanding(cut_off, 1000, is_file=False).damaged

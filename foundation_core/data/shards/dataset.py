"""Data sets on disk: numbered Arrow files that memory maps read, and a manifest that says they are whole.

    rows --ShardWriter--> shard-00000.arrow, shard-00001.arrow, ..., manifest.json --ShardDataset--> tables

Shards end where hashes of document ids say so (`boundaries`): of two data sets that share most documents, most shards
are the same to the byte, and the sha256s in the manifests say which. Rows that wait for their shard are known by what
decides them: a shard that somebody else has written already (`shard_units`) costs no reading of what it holds.

The manifest is written last. A folder without one is no data set, whatever else lies in it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.shards.boundaries import Cutter
from foundation_core.errors import DataError, ShardError
from foundation_core.files import committed, read_json, remove_partial, sha256_file, write_json

MANIFEST = "manifest.json"
MANIFEST_VERSION = 2
"""2: of an ingestion with `documents`, what went in and what became of it, and `corpus`, the hash of all that it made.
Manifests of version 1 have neither, and are read."""
_MADV_POPULATE_READ = 22  # Linux 5.14; Python has no name for it


def arrow_bytes(table: pa.Table) -> pa.Buffer:
    """A table as one Arrow file of one record batch: the same rows give the same bytes, however they were chunked."""
    # a slice drags parts of its parent's buffers along; rows that were taken have buffers of their own
    rows = table.combine_chunks().take(pa.array(range(len(table)), pa.int64()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue()


def read_arrow(path: Path) -> pa.Table:
    """The table of an Arrow file, memory-mapped: only what is looked at is read."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


class Shelf(Protocol):
    """Shards that lie elsewhere, and are brought here when they are asked for."""

    def expect(self, content: str, shards: Collection[Mapping[str, Any]]) -> None:
        """Make sure that there is room for the shards of a data set; each as its manifest has it."""

    def path(self, shard: Mapping[str, Any]) -> Path:
        """Where a shard lies now, compared with its sha256."""

    def bring(self, shards: Collection[Mapping[str, Any]]) -> None:
        """Several of them, side by side."""


@dataclass(frozen=True)
class Rows:
    """Rows on their way into a shard; what they hold is read when the shard is written, if it has to be.

    Args:
        known: what decides each of them, its `document` among it.
        sizes: of each, int64 in the unit of the writer's `shard_size`.
        held: the rows themselves, with the columns of the writer's schema: so many, from one on.
        first: which of the rows of `held` is the first.
    """

    known: pa.Table
    sizes: pa.Array
    held: Callable[[int, int], pa.Table]
    first: int = 0

    @staticmethod
    def of(table: pa.Table) -> Rows:
        """Rows that are decided by all that they hold."""
        return Rows(table, _sizes(table), table.slice)

    def __len__(self) -> int:
        return len(self.known)

    def slice(self, start: int, count: int) -> Rows:
        """At most so many of them, from one on."""
        known, sizes = self.known.slice(start, count), self.sizes.slice(start, count)
        return replace(self, known=known, sizes=sizes, first=self.first + start)

    def table(self) -> pa.Table:
        """The rows themselves."""
        return self.held(self.first, len(self))


class Make(Protocol):
    """Makes the file of a shard."""

    def __call__(self, path: Path, schema: pa.Schema, known: pa.Table, rows: Callable[[], pa.Table]) -> dict[str, Any]:
        """What the manifest says of the shard: `rows`, `tokens`, `bytes`, `sha256`.

        Args:
            known: what decides its rows.
            rows: the rows themselves.
        """


def write_shard(path: Path, schema: pa.Schema, known: pa.Table, rows: Callable[[], pa.Table]) -> dict[str, Any]:
    """A shard that is written, whatever others have."""
    data, facts = encoded_shard(rows())
    with committed(path) as sink:
        sink.write(data)
    return facts


def encoded_shard(table: pa.Table) -> tuple[pa.Buffer, dict[str, Any]]:
    """The bytes of a shard, and what the manifest says of it."""
    data = arrow_bytes(table)
    digest = hashlib.sha256(data).hexdigest()
    return data, {"rows": len(table), "tokens": _tokens(table), "bytes": data.size, "sha256": digest}


class ShardWriter:
    """Writes rows to numbered shards; the folder becomes a data set when the block ends well, and not before.

    Args:
        source: where the rows come from, for people; it is not part of the content hash.
        tokenizer: sha256 of the tokenizer file, where the rows hold tokens.
        schema: has a column `document`.
        shard_size: of an average shard, in bytes of values; in tokens for rows that have tokens and no values; in bytes
            of text for rows that have `bytes` and neither; in rows otherwise. None has more than twice as much, unless
            one row has.
        make: the files, or finds that they were made.

    Raises:
        DataError: the folder already holds a finished data set.
        SetupError: the disk is full.
    """

    def __init__(
        self, folder: Path, schema: pa.Schema, *, source: Mapping[str, Any], tokenizer: str = "", shard_size: int,
        make: Make = write_shard,
    ) -> None:  # fmt: skip
        self.folder, self.schema = folder, schema
        self.source, self.tokenizer = dict(source), tokenizer
        self._cutter, self._make = Cutter(shard_size), make
        self._waiting = deque[Rows]()
        self._shards: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        if (self.folder / MANIFEST).exists():
            raise DataError(f"{self.folder} already holds a finished data set", fix="name an empty folder")
        remove_dataset(self.folder)
        return self

    def write(self, rows: pa.Table) -> None:
        """Append rows of the writer's schema."""
        self.add(Rows.of(rows.select(self.schema.names).cast(self.schema)))

    def add(self, rows: Rows) -> None:
        """Append rows that are looked at later."""
        self._waiting.append(rows)
        for document, size in zip(rows.known["document"].to_pylist(), rows.sizes.to_pylist(), strict=True):
            for count in self._cutter.add(document, size):
                self._end_shard(count)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        if waiting := sum(map(len, self._waiting)):
            self._end_shard(waiting)
        manifest = {
            "version": MANIFEST_VERSION,
            "rows": sum(shard["rows"] for shard in self._shards),
            "tokens": sum(shard["tokens"] for shard in self._shards),
            "bytes": sum(shard["bytes"] for shard in self._shards),
            "schema": str(self.schema),
            "source": self.source,
            "tokenizer": self.tokenizer,
        }
        content = _content(manifest["schema"], self.tokenizer, self._shards)
        write_json(self.folder / MANIFEST, {**manifest, "content": content, "shards": self._shards})

    def _end_shard(self, count: int) -> None:
        """Make a shard of the first rows that wait."""
        taken = list[Rows]()
        while count:
            first = self._waiting.popleft()
            taken.append(first.slice(0, count))
            if len(first) > count:
                self._waiting.appendleft(first.slice(count, len(first) - count))
            count -= len(taken[-1])
        name, known = f"shard-{len(self._shards):05d}.arrow", pa.concat_tables([rows.known for rows in taken])
        facts = self._make(
            self.folder / name, self.schema, known, lambda: pa.concat_tables([self._whole(rows) for rows in taken])
        )
        self._shards.append({"file": name, **facts})

    def _whole(self, rows: Rows) -> pa.Table:
        return rows.table().select(self.schema.names).cast(self.schema)


class ShardDataset:
    """A finished data set: its manifest, and its shards as memory-mapped tables.

    Sizes are compared with the manifest now, and a shard's sha256 when the shard is first asked for (1.8 GB/s): what
    nobody reads costs nothing. Processes of one machine that read the same files share the sizes among them: a thousand
    ranks that each asked for a hundred thousand files would be a load that file servers break down under.

    Args:
        verify: whether to compare sha256s at all.
        shelf: where the shards come from, where only the manifest lies in the folder.
        share: (i, n): of n processes of this machine this is the i-th, and compares every n-th size.

    Raises:
        DataError: there is no manifest, a newer version wrote it, or a file is not what the manifest says.
    """

    def __init__(
        self, folder: Path, verify: bool = True, shelf: Shelf | None = None, share: tuple[int, int] = (0, 1)
    ) -> None:
        self.folder, self.shelf = folder, shelf
        self.manifest = _read_manifest(folder)
        self.rows: int = self.manifest["rows"]
        self.tokens: int = self.manifest["tokens"]
        self.content: str = self.manifest["content"]
        self.tokenizer: str = self.manifest["tokenizer"]
        self._tables: dict[int, pa.Table] = {}
        self._unverified = set(range(self.shards)) if verify else set[int]()
        if shelf is not None:
            shelf.expect(self.content, self.manifest["shards"])
            return
        for shard in self.manifest["shards"][share[0] :: share[1]]:
            _check_size(folder, shard)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self.manifest["shards"])

    def table(self, shard: int) -> pa.Table:
        """One shard.

        Raises:
            DataError: it is not what was written.
        """
        if shard in self._unverified:
            if self.shelf is None:  # what a shelf brings is compared there
                known = self.manifest["shards"][shard]
                _check_sha256(self.folder / known["file"], known)
            self._unverified.discard(shard)
            _map_pages(self.unverified(shard))
        return self.unverified(shard)

    def prepare(self, shards: Collection[int]) -> None:
        """Have several shards here that are soon asked for: from a shelf they come side by side."""
        if self.shelf is not None:
            self.shelf.bring([self.manifest["shards"][shard] for shard in shards if shard not in self._tables])

    def unverified(self, shard: int) -> pa.Table:
        """One shard as it lies there: for what is counted before the first row is read.

        Raises:
            DataError: it is no Arrow file.
        """
        if shard not in self._tables:
            known = self.manifest["shards"][shard]
            path = self.folder / known["file"] if self.shelf is None else self.shelf.path(known)
            try:
                self._tables[shard] = read_arrow(path)
            except (OSError, pa.ArrowInvalid) as error:
                raise _damaged(path, f"it is no Arrow file; {_expected(known)}") from error
        return self._tables[shard]

    def state(self, **facts: Any) -> None:
        """Write facts into the manifest, for people: they have no part in the content."""
        self.manifest |= facts
        shards = self.manifest.pop("shards")
        self.manifest["shards"] = shards  # at the end, as they may be many
        write_json(self.folder / MANIFEST, self.manifest)

    def close(self, shard: int) -> None:
        """Let go of a shard; its memory map goes with the last tensor over it. It opens again when it is asked for."""
        self._tables.pop(shard, None)

    def verify(self) -> None:
        """Compare every shard that nobody has read yet with its sha256.

        Raises:
            DataError: one is not what was written.
        """
        for shard in range(self.shards):
            self.table(shard)

    def tables(self) -> Iterator[pa.Table]:
        """Every shard, in order; one that was not open before is closed behind its turn."""
        for shard in range(self.shards):
            was_open = shard in self._tables
            yield self.table(shard)
            if not was_open:
                self._tables.pop(shard, None)


def remove_dataset(folder: Path) -> None:
    """Remove a data set, finished or not: the manifest first, so that no half of it can be read."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for shard in folder.glob("shard-*.arrow"):
        shard.unlink()
    remove_partial(folder)


def _map_pages(table: pa.Table) -> None:
    """Map the pages of a shard that was read just now: one call for all of them saves a fault for each."""
    for buffer in (found for column in table.columns for chunk in column.chunks for found in chunk.buffers()):
        if buffer is not None and buffer.size >= mmap.PAGESIZE:
            before = buffer.address % mmap.PAGESIZE
            start, size = ctypes.c_void_p(buffer.address - before), ctypes.c_size_t(buffer.size + before)
            ctypes.CDLL(None).madvise(start, size, _MADV_POPULATE_READ)  # an older kernel does nothing


def _sizes(rows: pa.Table) -> pa.Array:
    if "values" in rows.schema.names:
        values = rows.schema.field("values").type
        return pa.repeat(pa.scalar(values.list_size * values.value_type.bit_width // 8, pa.int64()), len(rows))
    if "tokens" in rows.schema.names:
        return _token_counts(rows)
    if "bytes" in rows.schema.names:
        return rows["bytes"]
    return pa.repeat(pa.scalar(1, pa.int64()), len(rows))


def _tokens(table: pa.Table) -> int:
    return int(pc.sum(_token_counts(table)).as_py()) if "tokens" in table.schema.names else 0


def _token_counts(rows: pa.Table) -> pa.Array:
    return pc.cast(pc.list_value_length(rows["tokens"]), pa.int64())


def _content(schema: str, tokenizer: str, shards: list[dict[str, Any]]) -> str:
    """Hex sha256 of the canonical JSON of [schema, tokenizer, [[rows, sha256], ...]].

    It is put together as text: lists of lists for 100,000 shards cost a second, most of it to collect them again.
    """
    pairs = ",".join([f'[{shard["rows"]},"{shard["sha256"]}"]' for shard in shards])
    return hashlib.sha256(f"[{json.dumps(schema)},{json.dumps(tokenizer)},[{pairs}]]".encode()).hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.exists():
        raise DataError(f"{folder} is not a finished data set: it has no {MANIFEST}", fix="run the ingest stage again")
    manifest: dict[str, Any] = read_json(path)
    if manifest["version"] > MANIFEST_VERSION:
        raise DataError(
            f"{path} has version {manifest['version']}",
            allowed=f"versions up to {MANIFEST_VERSION}",
            fix="upgrade foundation-pipeline, or run the ingest stage again with this version",
        )
    content = _content(manifest["schema"], manifest["tokenizer"], manifest["shards"])
    if content != manifest["content"]:
        raise _damaged(path, f"it was edited: its content is {content[:12]}, it says {manifest['content'][:12]}")
    return manifest


def _check_size(folder: Path, shard: Mapping[str, Any]) -> None:
    try:
        size = os.stat(f"{folder}/{shard['file']}").st_size  # no Path: of 100,000 shards these take most of a start
    except FileNotFoundError as error:
        raise _damaged(folder / shard["file"], f"it is not there; {_expected(shard)}") from error
    if size != shard["bytes"]:
        raise _damaged(folder / shard["file"], f"it is {size} bytes long; {_expected(shard)}")


def _check_sha256(path: Path, shard: Mapping[str, Any]) -> None:
    if (found := sha256_file(path)) != shard["sha256"]:
        raise _damaged(path, f"it was edited: its sha256 is {found}; {_expected(shard)}")


def _expected(shard: Mapping[str, Any]) -> str:
    return f"the manifest says {shard['bytes']} bytes with sha256 {shard['sha256']}"


def _damaged(path: Path, what: str) -> ShardError:
    return ShardError(
        f"{path} is damaged: {what}", fix="remove the folder of this result and run the ingest stage again"
    )

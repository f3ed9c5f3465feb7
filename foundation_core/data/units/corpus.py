"""What an ingestion knows of its documents, without what they hold: where each is, and why others are not in it.

    read units --Part.of--> parts --dropping, with_splits--> parts: a small file each, of the rows that stay
                                  `--> dropped-*.arrow, a file for each part and step that lost documents

Nothing here goes with the number of documents: of a part only the names of its files are held, and whatever is asked
of it is read from them. Only one part, or the losses of a few, are looked at at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, groupby, islice, pairwise
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.rules.filters import DROPPED
from foundation_core.data.shards.dataset import read_arrow
from foundation_core.data.sources.modalities import QUARANTINED
from foundation_core.data.units.work import DROPPED_FILE, KEPT_FILE, QUARANTINED_FILE, Unit, kept_documents
from foundation_core.files import full_disk_said

_MERGED_ROWS = 4096


@dataclass(frozen=True)
class Part:
    """What a read unit gives to the corpus.

    Args:
        beside: where its files are, with what their names begin with. Not in the unit, which others may use too.
        rows_file: of the rows of the unit's documents that stay, and their splits. None: all of them.
        dropped_files: of the documents that do not.
        quarantined_file: of the documents that could not be read.
    """

    read: Unit
    beside: Path
    rows_file: Path | None = None
    dropped_files: tuple[Path, ...] = ()
    quarantined_file: Path | None = None

    @staticmethod
    def of(read: Unit, beside: Path) -> Part:
        """All documents that a unit kept, and those that it dropped."""
        dropped, quarantined = read.folder / DROPPED_FILE, read.folder / QUARANTINED_FILE
        return Part(
            read, beside, dropped_files=(dropped,) if dropped.exists() else (),
            quarantined_file=quarantined if quarantined.exists() else None,
        )  # fmt: skip

    def rewritten(self, by: Unit) -> Part:
        """The same documents as another unit has them: none else."""
        return Part(by, self.beside, dropped_files=self.dropped_files, quarantined_file=self.quarantined_file)

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def index(self) -> pa.Table:
        """Document, group, bytes, sha256, row and, once it is known, split of each document that stays."""
        chosen = self._chosen
        index = self.read.table(KEPT_FILE).select(["document", "group", "bytes", "sha256"])
        if self.rows_file is not None:
            index = index.take(chosen["row"])
        for name in chosen.schema.names:
            index = index.append_column(name, chosen[name])
        return index

    @property
    def _chosen(self) -> pa.Table:
        if self.rows_file is not None:
            return read_arrow(self.rows_file)
        return pa.table({"row": pa.array(range(len(self.read.table(KEPT_FILE))), pa.int64())})

    def rows(self, split: str | None = None) -> pa.Array:
        """Rows of the unit's kept documents that stay, of one split or of all."""
        chosen = self._chosen if split is None else self._chosen.filter(pc.field("split") == split)
        return chosen["row"].combine_chunks()

    def documents(self, split: str | None = None) -> pa.Table:
        """The documents that stay, of one split or of all."""
        return kept_documents(self.read, self.rows(split))

    def dropped(self) -> pa.Table:
        """The documents that do not stay, sorted by document."""
        return pa.concat_tables([DROPPED.empty_table(), *map(read_arrow, self.dropped_files)]).sort_by("document")

    def without(self, step: str, gone: pa.Array, dropped: pa.Table) -> Part:
        """The part without some documents, which are written beside it.

        Args:
            step: that drops them; its name is part of the files' names.
            gone: for each document that stayed so far, whether it does not any longer.
            dropped: the same documents, as rows of `DROPPED`.
        """
        if not len(dropped):
            return self
        path = self._file(f"dropped-{step}")
        _write(path, dropped.cast(DROPPED))
        stay = self._written(step, self._chosen.filter(pc.invert(gone)))
        return replace(stay, dropped_files=(*self.dropped_files, path))

    def quarantined(self) -> pa.Table:
        """The documents that could not be read."""
        return read_arrow(self.quarantined_file) if self.quarantined_file is not None else QUARANTINED.empty_table()

    def set_aside(self, step: str, documents: pa.Array, reasons: pa.Table) -> Part:
        """The part with some documents among those that could not be read, whatever became of them before.

        Args:
            step: that finds them; its name is part of the files' names.
            reasons: what is said of them, as rows of `QUARANTINED`; under names of their own.
        """

        def others(table: pa.Table) -> pa.Table:
            return table.filter(pc.invert(pc.is_in(table["document"], documents)))

        dropped, quarantined = self._file(f"dropped-{step}"), self._file(f"quarantined-{step}")
        _write(dropped, others(self.dropped()))
        _write(quarantined, pa.concat_tables([others(self.quarantined()), reasons.cast(QUARANTINED)]))
        gone = pc.is_in(self.index["document"], documents)
        stay = self._written(step, self._chosen.filter(pc.invert(gone)))
        return replace(stay, dropped_files=(dropped,), quarantined_file=quarantined)

    def with_splits(self, splits: Sequence[str]) -> Part:
        """The part, with the split of each document that stays."""
        return self._written("split", self._chosen.append_column("split", pa.array(splits, pa.string())))

    def _written(self, step: str, chosen: pa.Table) -> Part:
        path = self._file(f"rows-{step}")
        _write(path, chosen)
        return replace(self, rows_file=path)

    def _file(self, name: str) -> Path:
        return self.beside.with_name(f"{self.beside.name}-{name}.arrow")


def _write(path: Path, table: pa.Table) -> None:
    """Write what every start writes anew, and nobody trusts after an interruption: without a hash, without a sync."""
    try:
        path.unlink(missing_ok=True)  # an earlier one may be mapped
        with full_disk_said(path), open(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


class Places:
    """Where the documents of parts are, counted over all parts in their order."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.starts = list(accumulate(map(self._count, parts), initial=0))

    @property
    def documents(self) -> int:
        """Documents of all parts."""
        return self.starts[-1]

    def each(self) -> Iterator[tuple[Part, pa.Array]]:
        """Every part with the rows of its documents, among all."""
        for part, (first, last) in zip(self.parts, pairwise(self.starts), strict=True):
            yield part, pa.array(range(first, last), pa.int64())

    def of(self, row: int) -> tuple[int, int]:
        """The number of a document's part, and its place in it."""
        number = bisect_right(self.starts, row) - 1
        return number, row - self.starts[number]

    def names(self, rows: pa.ChunkedArray) -> pa.ChunkedArray:
        """The ids of some documents; rows may repeat."""
        wanted = pc.unique(rows).sort()
        names = []
        for number, places in groupby(map(self.of, wanted.to_pylist()), key=itemgetter(0)):
            inside = pa.array([place for _, place in places], pa.int64())
            names.append(self._names(self.parts[number], inside))
        return pa.chunked_array([chunk for some in names for chunk in some.chunks], pa.string()).take(
            pc.index_in(rows, wanted)
        )

    def _count(self, part: Part) -> int:
        return len(part)

    def _names(self, part: Part, inside: pa.Array) -> pa.ChunkedArray:
        return part.read.table(KEPT_FILE)["document"].take(part.rows().take(inside))


class Removed(NamedTuple):
    """How many repeated paragraphs were removed, their characters, and from how many documents."""

    paragraphs: int = 0
    characters: int = 0
    documents: int = 0


@dataclass(frozen=True)
class Corpus:
    """All that is known of the documents but for what they hold.

    Args:
        reads: the units that were read; the parts may come of others by now.
        cleaned: how often each step changed something.
        read_in: how many readable documents were in each language, where that is kept.
        cut: how many readable documents are longer than their values.
    """

    parts: Sequence[Part]
    reads: Sequence[Unit] = ()
    removed: Removed | None = None
    cleaned: Mapping[str, int] = field(default_factory=dict)
    read_in: Mapping[str, int] = field(default_factory=dict)
    cut: int = 0

    def indices(self) -> Iterator[pa.Table]:
        """Document, group, bytes, sha256, row and split of every document that stays, part by part."""
        return (part.index for part in self.parts)

    def dropped(self) -> Iterator[pa.Table]:
        """The documents that were dropped, sorted by document, some at a time."""
        return _merged([part for part in self.parts if part.dropped_files])

    def quarantined(self) -> Iterator[pa.Table]:
        """The documents that could not be read, unit by unit."""
        return (part.quarantined() for part in self.parts)

    def quarantined_first(self, count: int) -> list[dict[str, str]]:
        """The first of them."""
        rows = (row for table in self.quarantined() for row in table.slice(0, count).to_pylist())
        return list(islice(rows, count))

    def counts(self) -> dict[str, int]:
        """How many documents were kept, dropped and quarantined."""
        return {
            "kept": sum(map(len, self.parts)),
            "dropped": sum(self.dropped_by_rule.values()),
            "quarantined": sum(map(len, self.quarantined())),
        }

    def encodings(self) -> dict[str, int]:
        """How many of the texts were read in each encoding, most first."""
        return _counted(part.read.table(KEPT_FILE)["encoding"].take(part.rows()) for part in self.parts)

    def languages(self) -> dict[str, dict[str, int]]:
        """How many documents of each language were read and how many are kept, most first; none where none is known."""
        if not self.read_in:
            return {}
        kept = _counted(part.read.table(KEPT_FILE)["language"].take(part.rows()) for part in self.parts)
        most_first = sorted(self.read_in.items(), key=lambda row: (-row[1], row[0]))
        return {code: {"read": count, "kept": kept.get(code, 0)} for code, count in most_first}

    @cached_property
    def dropped_by_rule(self) -> dict[str, int]:
        """How many documents each rule dropped, most first."""
        return _counted(read_arrow(file)["rule"] for part in self.parts for file in part.dropped_files)

    @cached_property
    def quarantined_by_reason(self) -> dict[str, int]:
        """How many documents could not be read for each reason, most first."""
        return _counted(table["reason"] for table in self.quarantined())


def _merged(parts: Sequence[Part]) -> Iterator[pa.Table]:
    """What parts dropped, sorted. Parts follow each other by id, but for sources that order theirs in another way."""
    ranges = sorted(((*ends, part) for part in parts if (ends := _ends(part))), key=itemgetter(0, 1))
    at = 0
    while at < len(ranges):
        first, last = at, ranges[at][1]
        while at < len(ranges) and ranges[at][0] <= last:
            last, at = max(last, ranges[at][1]), at + 1
        group = [part for _, _, part in ranges[first:at]]
        yield from [group[0].dropped()] if len(group) == 1 else _interleaved(group)


def _ends(part: Part) -> tuple[str, str] | None:
    """The first and the last id of what a part dropped, if it dropped something."""
    ids = [some for file in part.dropped_files if len(some := read_arrow(file)["document"])]
    ends = [pc.min_max(some).as_py() for some in ids]
    return (min(one["min"] for one in ends), max(one["max"] for one in ends)) if ends else None


def _interleaved(parts: Sequence[Part]) -> Iterator[pa.Table]:
    """What parts dropped whose ids lie between each other's, some at a time: only the ids of all are held at once."""
    files = [file for part in parts for file in part.dropped_files]
    ids = [read_arrow(file)["document"] for file in files]
    numbers = [pa.repeat(number, len(some)) for number, some in enumerate(ids)]
    rows = [pa.array(range(len(some)), pa.int64()) for some in ids]
    places = pa.table({
        "document": pa.chunked_array(chunk for some in ids for chunk in some.chunks),
        "file": pa.chunked_array(numbers), "row": pa.chunked_array(rows),
    }).sort_by("document")  # fmt: skip
    for start in range(0, len(places), _MERGED_ROWS):
        some = places.slice(start, _MERGED_ROWS)
        tables = [
            read_arrow(files[number]).take(some.filter(pc.equal(some["file"], number))["row"])
            for number in sorted(set(some["file"].to_pylist()))
        ]
        yield pa.concat_tables(tables).sort_by("document")


def _counted(columns: Iterable[pa.ChunkedArray]) -> dict[str, int]:
    counts = Counter[str]()
    for column in columns:
        counts.update({row["values"]: row["counts"] for row in column.value_counts().to_pylist()})
    return dict(sorted(counts.items(), key=lambda row: (-row[1], row[0])))

"""What an ingestion knows of its documents, without what they hold: where each is, and why others are not in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.units import KEPT_FILE, Unit, kept_documents


@dataclass(frozen=True)
class Part:
    """What a read unit gives to the corpus: document, group, bytes, split and row of each document that stays."""

    read: Unit
    index: pa.Table

    @staticmethod
    def of(read: Unit) -> Part:
        """All documents that a unit kept."""
        kept = read.table(KEPT_FILE).select(["document", "group", "bytes", "sha256"])
        return Part(read, kept.append_column("row", pa.array(range(len(kept)), pa.int64())))

    def rows(self, split: str | None = None) -> pa.Array:
        """Rows of the unit's kept documents that stay, of one split or of all."""
        index = self.index if split is None else self.index.filter(pc.field("split") == split)
        return index["row"].combine_chunks()

    def documents(self, split: str | None = None) -> pa.Table:
        """The documents that stay, of one split or of all."""
        return kept_documents(self.read, self.rows(split))


def staying(parts: Sequence[Part], stays: pa.Array) -> list[Part]:
    """The parts with the documents that stay.

    Args:
        stays: for each document of all parts, in their order.
    """
    starts = accumulate((len(part.index) for part in parts), initial=0)
    return [
        Part(part.read, part.index.filter(stays.slice(start, len(part.index))))
        for part, start in zip(parts, starts, strict=False)
    ]


class Removed(NamedTuple):
    """How many repeated paragraphs were removed, their characters, and from how many documents."""

    paragraphs: int = 0
    characters: int = 0
    documents: int = 0


@dataclass(frozen=True)
class Corpus:
    """All that is known of the documents but for what they hold."""

    parts: Sequence[Part]
    dropped: pa.Table
    quarantined: pa.Table
    removed: Removed | None = None
    cleaned: Mapping[str, int] = field(default_factory=dict)

    @property
    def index(self) -> pa.Table:
        """Document, group, bytes, split and row of every document that stays."""
        return pa.concat_tables(part.index for part in self.parts)

    def encodings(self) -> dict[str, int]:
        """How many of the texts were read in each encoding, most first."""
        columns = (part.read.table(KEPT_FILE)["encoding"].take(part.rows()) for part in self.parts)
        return _counted(pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()))

    def dropped_by_rule(self) -> dict[str, int]:
        """How many documents each rule dropped, most first."""
        return _counted(self.dropped["rule"])

    def quarantined_by_reason(self) -> dict[str, int]:
        """How many documents could not be read for each reason, most first."""
        return _counted(self.quarantined["reason"])


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    counts = column.value_counts().to_pylist()
    return {row["values"]: row["counts"] for row in sorted(counts, key=lambda row: (-row["counts"], row["values"]))}

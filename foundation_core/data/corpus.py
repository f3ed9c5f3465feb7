"""What an ingestion knows of its documents, without what they hold: where each is, and why others are not in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.units import Unit, kept_documents


@dataclass(frozen=True)
class Part:
    """What a read unit gives to the corpus: document, group, bytes, split and row of each document that stays."""

    read: Unit
    index: pa.Table

    def rows(self, split: str | None = None) -> pa.Array:
        """Rows of the unit's kept documents that stay, of one split or of all."""
        index = self.index if split is None else self.index.filter(pc.field("split") == split)
        return index["row"].combine_chunks()

    def documents(self, split: str | None = None) -> pa.Table:
        """The documents that stay, of one split or of all."""
        return kept_documents(self.read, self.rows(split))


@dataclass(frozen=True)
class Corpus:
    """All that is known of the documents but for what they hold."""

    parts: Sequence[Part]
    dropped: pa.Table
    quarantined: pa.Table

    @property
    def index(self) -> pa.Table:
        """Document, group, bytes, split and row of every document that stays."""
        return pa.concat_tables(part.index for part in self.parts)

    def dropped_by_rule(self) -> dict[str, int]:
        """How many documents each rule dropped, most first."""
        return _counted(self.dropped["rule"])

    def quarantined_by_reason(self) -> dict[str, int]:
        """How many documents could not be read for each reason, most first."""
        return _counted(self.quarantined["reason"])


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    counts = column.value_counts().to_pylist()
    return {row["values"]: row["counts"] for row in sorted(counts, key=lambda row: (-row["counts"], row["values"]))}

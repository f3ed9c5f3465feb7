"""Which documents were dropped as copies of which, and how both begin."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.rules.filters import DROPPED
from foundation_core.pages.reading import Corpus, texts_of, whole

SHOWN, COPIES_SHOWN, CHARACTERS = 5, 2, 280


@dataclass(frozen=True)
class Copy:
    """A document that was dropped as a copy.

    Args:
        text: how it begins, or None where its text is no longer beside the result.
    """

    document: str
    rule: str
    value: float | None
    text: str | None


@dataclass(frozen=True)
class Cluster:
    """Documents that say the same, or nearly.

    Args:
        copies: how many were dropped.
        examples: some of them.
        text: how the one that stays begins, if it has a text.
    """

    survivor: str
    copies: int
    examples: tuple[Copy, ...]
    text: str | None


@dataclass(frozen=True)
class Duplicates:
    """All clusters in figures, and the biggest ones."""

    clusters: int
    copies: int
    biggest: tuple[Cluster, ...]


def duplicates(corpus: Corpus) -> Duplicates:
    """The clusters of an ingestion."""
    dropped = whole(corpus.dropped, pa.schema([DROPPED.field(name) for name in ("document", "rule", "value", "kept")]))
    copies = dropped.filter(pc.fill_null(pc.not_equal(dropped["kept"], ""), False))  # a null names nothing either
    copies = copies.set_column(3, "kept", _survivors(copies))
    sizes = copies.group_by("kept", use_threads=False).aggregate([("document", "count")])
    sizes = sizes.sort_by([("document_count", "descending"), ("kept", "ascending")])
    chosen = sizes.slice(0, SHOWN).to_pylist()
    examples = {
        row["kept"]: copies.filter(pc.equal(copies["kept"], row["kept"])).slice(0, COPIES_SHOWN).to_pylist()
        for row in chosen
    }
    wanted = [*examples, *(copy["document"] for some in examples.values() for copy in some)]
    texts = texts_of(corpus, wanted, CHARACTERS)
    biggest = tuple(
        Cluster(
            row["kept"],
            row["document_count"],
            tuple(
                Copy(copy["document"], copy["rule"], copy["value"], texts.get(copy["document"]))
                for copy in examples[row["kept"]]
            ),
            texts.get(row["kept"]),
        )
        for row in chosen
    )
    return Duplicates(len(sizes), len(copies), biggest)


def _survivors(copies: pa.Table) -> pa.ChunkedArray:
    """What stays in place of each copy: where that is a copy itself, which a later step dropped, what stays for it."""
    kept, documents = copies["kept"], copies["document"].combine_chunks()
    for _ in range(pc.count_distinct(copies["rule"]).as_py()):  # a step drops no copy of what it dropped itself
        further = pc.index_in(kept, documents)
        kept = pc.if_else(pc.is_valid(further), copies["kept"].take(further), kept)
    return kept

"""Where a document is: the data set, shard and row of an id; if it was lost, why; if there is none, what is near."""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.errors import DataError
from foundation_core.pages.reading import DROPPED, QUARANTINED, Corpus

_ALIKE, _SHOWN, _AROUND = 3, 5, 500


@dataclass(frozen=True)
class Place:
    """Where a row of a document is.

    Args:
        dataset: its name below the result.
        file: of the shard.
        row: of the shard, from 0.
        values: the row itself.
    """

    dataset: str
    shard: int
    file: str
    row: int
    values: dict[str, Any]


def places(corpus: Corpus, document: str) -> list[Place]:
    """Every row of a document: in the documents and in what models are trained on, or among what was lost.

    Raises:
        DataError: no data set has it; the message names ids that are near.
    """
    found = [place for name, dataset in corpus.datasets().items() for place in _in(name, dataset, document)]
    if not found:
        near = _near(corpus, document)
        raise DataError(
            f"{corpus.folder} has no document {document!r}",
            allowed=f"for instance {', '.join(near)}" if near else "",
            fix="give the id as `foundation peek` shows it: the source's name and the path below its root",
        )
    return found


def _in(name: str, dataset: ShardDataset, document: str) -> Iterator[Place]:
    for shard, table in enumerate(dataset.tables()):
        row = pc.index(table["document"], document).as_py()
        if row >= 0:
            file = dataset.manifest["shards"][shard]["file"]
            yield Place(name, shard, file, row, table.slice(row, 1).to_pylist()[0])


def chosen(corpus: Corpus, count: int, seed: int) -> list[str]:
    """Ids of some of the documents, drawn by a seed."""
    rows = random.Random(seed).sample(range(corpus.documents.rows), min(count, corpus.documents.rows))
    ids = []
    for row in rows:
        shard = 0
        while row >= (size := corpus.documents.manifest["shards"][shard]["rows"]):
            row, shard = row - size, shard + 1
        ids.append(corpus.documents.table(shard)["document"][row].as_py())
    return ids


def neighbours(corpus: Corpus, document: str) -> list[dict[str, Any]]:
    """Dropped rows near a document: its own copies, then those whose ids come next to it."""
    copies, others = list[dict[str, Any]](), list[dict[str, Any]]()
    for table in corpus.dropped.tables():
        if "kept" in table.schema.names and len(copies) < _SHOWN:
            copies += table.filter(pc.equal(table["kept"], document)).slice(0, _SHOWN - len(copies)).to_pylist()
        others += _around(table.filter(pc.not_equal(table["document"], document)), document, _SHOWN)
    others.sort(key=lambda row: -_shared_characters(row["document"], document))
    known = {row["document"] for row in copies}
    return [*copies, *(row for row in others if row["document"] not in known)][:_SHOWN]


def _shared_characters(first: str, second: str) -> int:
    """With how many characters both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _around(table: pa.Table, document: str, count: int) -> list[dict[str, Any]]:
    """The rows whose ids come directly before and behind an id; both sides together are twice the count."""
    ids = table["document"]
    before = table.filter(pc.less(ids, document))
    return [*before.slice(max(0, len(before) - count)).to_pylist(),
            *table.filter(pc.greater_equal(ids, document)).slice(0, count).to_pylist()]  # fmt: skip


def _near(corpus: Corpus, document: str) -> list[str]:
    """Ids like one that is not there: those that hold it, or else the most alike of its neighbours in the order."""
    holding, around = list[str](), list[str]()
    last_part = document.rpartition("/")[2]
    for name, dataset in corpus.datasets().items():
        if name.startswith(("documents", DROPPED, QUARANTINED)):
            for table in dataset.tables():
                ids = table.select(["document"])
                hits = ids.filter(pc.match_substring(ids["document"], last_part)) if last_part else ids.slice(0, 0)
                holding += hits.slice(0, _AROUND)["document"].to_pylist()
                around += [row["document"] for row in _around(ids, document, _AROUND)]
    found = difflib.get_close_matches(document, holding, _ALIKE, cutoff=0) if holding else []
    return found or difflib.get_close_matches(document, around, _ALIKE, cutoff=0.4)

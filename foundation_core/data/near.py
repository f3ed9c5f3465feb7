"""Fuzzy deduplication: a text that says nearly the same as one that stays is dropped.

    texts, those that rather stay first --equal keys--> texts that stay --shingle by shingle--> dropped | stays too

No two texts that stay are copies of each other, as far as their keys tell, and each dropped one is a copy of a text
that stays: a chain of small changes does not take its far end along.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foundation_core.data.corpus import Part
from foundation_core.data.filters import DROPPED
from foundation_core.data.minhash import Sketch, similarity
from foundation_core.data.repetition import Hashes
from foundation_core.data.units import KEPT_FILE, SKETCHES_FILE
from foundation_core.specs import FuzzyDedupSpec

_SHINGLES_KEPT = 4096
"""Texts whose shingles are kept, as texts of one key are compared with each other."""


class Copy(NamedTuple):
    """A row that is a near copy, the row that stays in its place, and their similarity."""

    row: int
    survivor: int
    similarity: float


def near_copies(
    index: pa.Table, keys: pa.ChunkedArray, text_of: Callable[[int], str], spec: FuzzyDedupSpec
) -> tuple[pa.Array, pa.Table]:
    """Which rows stay, as a mask, and the others as dropped documents that name what stays in their place.

    Args:
        index: document, group and bytes of every document, sorted by document.
        keys: of each document's bands (`Sketch`).
        text_of: the text of a row.
    """
    order = np.arange(len(index))
    if spec.survivor == "longest":
        order = np.argsort(-index["bytes"].to_numpy(), kind="stable")
    copies = sorted(_copies(order, keys, text_of, spec))
    stays = np.ones(len(index), np.bool_)
    stays[[copy.row for copy in copies]] = False
    rows = pa.array([copy.row for copy in copies], pa.int64())
    dropped = pa.table(
        {
            "document": index["document"].take(rows),
            "group": index["group"].take(rows),
            "rule": pa.repeat(near_rule(spec), len(copies)),
            "value": pa.array([copy.similarity for copy in copies], pa.float64()),
            "kept": index["document"].take(pa.array([copy.survivor for copy in copies], pa.int64())),
        },
        schema=DROPPED,
    )
    return pa.array(stays), dropped


def near_copies_of(parts: Sequence[Part], spec: FuzzyDedupSpec) -> tuple[pa.Array, pa.Table]:
    """`near_copies` of the documents of all parts, whose units hold sketches and texts."""
    keys = pa.chunked_array(
        [part.read.table(SKETCHES_FILE)["keys"].take(part.rows()).combine_chunks() for part in parts]
    )
    ends = list(accumulate(len(part.index) for part in parts))

    def text_of(row: int) -> str:
        number = bisect_right(ends, row)
        part = parts[number]
        place = part.index["row"][row - (ends[number] - len(part.index))].as_py()
        text: str = part.read.table(KEPT_FILE)["text"][place].as_py()
        return text

    return near_copies(pa.concat_tables(part.index for part in parts), keys, text_of, spec)


def near_rule(spec: FuzzyDedupSpec) -> str:
    """Rule under which a near copy is dropped; its value is its similarity to what stays."""
    return f"similarity < {spec.similarity:g}"


def _copies(
    order: NDArray[np.int64], keys: pa.ChunkedArray, text_of: Callable[[int], str], spec: FuzzyDedupSpec
) -> Iterator[Copy]:
    sketch = Sketch.of(spec)
    shingles = lru_cache(_SHINGLES_KEPT)(lambda row: sketch.shingles(text_of(row)))
    shared = _shared_keys(keys)
    stay = defaultdict[tuple[int, int], list[int]](list)
    for row in order.tolist():
        met = dict.fromkeys(other for key in shared.get(row, ()) for other in stay[key])
        likeness = {other: _similarity(shingles(row), shingles(other), spec.similarity) for other in met}
        best = max(likeness, key=likeness.__getitem__, default=row)
        if likeness.get(best, 0) >= spec.similarity:
            yield Copy(row, best, likeness[best])
        else:
            for key in shared.get(row, ()):
                stay[key].append(row)


def _shared_keys(keys: pa.ChunkedArray) -> dict[int, list[tuple[int, int]]]:
    """Of each row the keys that other rows have too, each with the number of its band; most rows have none."""
    known = np.flatnonzero(keys.is_valid().to_numpy())
    shared = defaultdict[int, list[tuple[int, int]]](list)
    if len(known):
        flat = keys.drop_null().combine_chunks().flatten().to_numpy()
        for band, column in enumerate(flat.reshape(len(known), -1).T):
            _, place, count = np.unique(column, return_inverse=True, return_counts=True)
            for at in np.flatnonzero(count[place] > 1):
                shared[int(known[at])].append((band, int(column[at])))
    return shared


def _similarity(first: Hashes, second: Hashes, least: float) -> float:
    """Of two texts; 0 where their lengths alone rule out that it is enough."""
    if min(len(first), len(second)) < least * max(len(first), len(second)):
        return 0.0
    return similarity(first, second)

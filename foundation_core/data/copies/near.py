"""Fuzzy deduplication: a text that says nearly the same as one that stays is dropped.

    sketches --by band and range of keys--> keys that several texts have --by rank--> texts that rather stay first
    texts in this order --lists of those that stay, by key--> candidates --shingle by shingle--> a loss | stays too

No two texts that stay are copies of each other, as far as their keys tell, and each dropped one is a copy of a text
that stays: a chain of small changes does not take its far end along.

Keys, ranks and lists lie on disk: what is held at a time is a range of keys, a range of ranks, the pages of the lists
that were touched last, and the shingles that were compared last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foundation_core.data.copies.losses import LOSS, Losses
from foundation_core.data.copies.minhash import Sketch, similarity
from foundation_core.data.copies.spill import Lists, Partitions, Scratch, repeats
from foundation_core.data.rules.repetition import Hashes
from foundation_core.data.units.corpus import Part, Places
from foundation_core.data.units.work import KEPT_FILE, SKETCHES_FILE
from foundation_core.errors import DataError
from foundation_core.specs import FuzzyDedupSpec

_KEY = pa.schema({"key": pa.uint64(), "rank": pa.uint64()})
"""A key of a document, in partitions that hold keys of one band each."""
_SHARED = pa.schema({"rank": pa.uint64(), "list": pa.int64()})
"""A key that several documents have, as the number of the list of those that stay, and one of these documents."""
_LENGTH = pa.schema({"length": pa.int64()})
_SAMPLE = 1 << 16
_PARTS_OPEN, _COPIES_AT_ONCE = 8, 4096
_SHINGLE_SHARE, _LIST_SHARE = 4, 8
"""Memory is divided by so much for the shingles of texts that were compared last, and for the pages of lists."""


class Copy(NamedTuple):
    """A row that is a near copy, the row that stays in its place, and their similarity."""

    row: int
    survivor: int
    similarity: float


def near_copies(parts: Sequence[Part], spec: FuzzyDedupSpec, scratch: Scratch) -> Losses:
    """The near copies in parts, each with the document that stays in its place.

    Args:
        parts: in the order of document ids; their units hold sketches and texts.
        scratch: an open folder, and the memory to look for copies in.
    """
    places = Places(parts)
    ranks = Ranks.of(places, spec)
    shared, lengths = _shared_keys(_keys(places, ranks, spec, scratch), scratch)
    losses = Losses(places, scratch)
    copies = _copies(spec, _by_rank(shared, scratch), lengths, ranks, Texts(places, spec, scratch))
    while some := list(islice(copies, _COPIES_AT_ONCE)):
        losses.add(pa.table(list(map(pa.array, zip(*some, strict=True))), schema=LOSS))
    return losses


class Ranks(NamedTuple):
    """How much each document would rather stay: one number, out of which its row can be read.

    Args:
        largest: bytes of the largest document; 0 if the first stay.
        row_bits: that the number of a row takes.
    """

    largest: int
    row_bits: int

    @staticmethod
    def of(places: Places, spec: FuzzyDedupSpec) -> Ranks:
        """The ranks of the documents of parts."""
        largest = 0
        if spec.survivor == "longest":
            largest = max((int(np.max(part.index["bytes"].to_numpy(), initial=0)) for part in places.parts), default=0)
        ranks = Ranks(largest, places.documents.bit_length())
        if largest.bit_length() + ranks.row_bits > 64:
            raise DataError(
                f"{places.documents} documents of up to {largest} bytes cannot be ranked by length in 64 bits",
                fix='set ingest.fuzzy_dedup.survivor to "first"',
            )
        return ranks

    def __call__(self, rows: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The ranks of some rows, which rather stay the smaller these are."""
        lead = (self.largest - sizes).astype(np.uint64) if self.largest else np.zeros(len(rows), np.uint64)
        return np.asarray(lead << np.uint64(self.row_bits) | rows.astype(np.uint64), np.uint64)

    def row(self, rank: int) -> int:
        """The row of a rank."""
        return rank & ((1 << self.row_bits) - 1)


def _keys(places: Places, ranks: Ranks, spec: FuzzyDedupSpec, scratch: Scratch) -> Partitions:
    """The keys of all documents: the partitions of the first band, then those of the second, and so on."""
    ranges = scratch.parts_of(places.documents, _KEY)
    found = scratch.partitions("keys", _KEY, spec.bands * ranges)
    for part, rows in places.each():
        keys = part.read.table(SKETCHES_FILE)["keys"].take(part.rows()).combine_chunks()
        rank = ranks(rows.to_numpy(), part.index["bytes"].to_numpy())[keys.is_valid().to_numpy(zero_copy_only=False)]
        flat = keys.drop_null().flatten().to_numpy()
        in_band = ((flat >> np.uint64(32)) * np.uint64(ranges) >> np.uint64(32)).astype(np.int64)
        numbers = in_band + np.tile(np.arange(spec.bands) * ranges, len(rank))
        found.add(pa.table([flat, np.repeat(rank, spec.bands)], schema=_KEY), pa.array(numbers))
    return found


def _shared_keys(keys: Partitions, scratch: Scratch) -> tuple[Partitions, Partitions]:
    """The keys that several documents have, numbered, with these documents; and how many each has."""
    shared, lengths = scratch.partitions("shared", _SHARED, 1), scratch.partitions("lengths", _LENGTH, 1)
    for number in range(keys.count):
        count, found = repeats(keys, number, "rank")
        for some in found:
            lists = pc.add(pc.cast(some.key, pa.int64()), lengths.records)
            shared.add(pa.table([some.records["rank"], lists], schema=_SHARED))
        lengths.add(pa.table([count], schema=_LENGTH))
        keys.remove(number)
    return shared, lengths


def _by_rank(shared: Partitions, scratch: Scratch) -> Iterator[tuple[int, list[int]]]:
    """Each rank, in order, with the numbers of its lists, in their order, which is that of the bands."""
    count, every = scratch.parts_of(shared.records, _SHARED), max(1, shared.records // _SAMPLE)
    seen = [np.empty(0, np.uint64), *(some["rank"].to_numpy()[::every] for some in shared.chunks(0))]
    sample = np.sort(np.concatenate(seen))
    bounds = sample[[len(sample) * part // count for part in range(1, count)]] if len(sample) else sample
    ranges = scratch.partitions("ranks", _SHARED, count)
    for some in shared.chunks(0):
        ranges.add(some, pa.array(np.searchsorted(bounds, some["rank"].to_numpy(), side="right")))
    shared.remove(0)
    for number in range(count):
        found = ranges.held(number).sort_by([("rank", "ascending"), ("list", "ascending")])
        rank, lists = (found[name].to_numpy() for name in _SHARED.names)
        begins = np.flatnonzero(np.diff(rank, prepend=~rank[:1]))
        for first, last in pairwise([*begins.tolist(), len(rank)]):
            yield int(rank[first]), lists[first:last].tolist()
        ranges.remove(number)


class Texts:
    """The shingles of documents; those that were asked for last are held, within bounds of memory."""

    def __init__(self, places: Places, spec: FuzzyDedupSpec, scratch: Scratch) -> None:
        self.scratch = scratch
        self._places, self._sketch = places, Sketch.of(spec)
        self._open = lru_cache(_PARTS_OPEN)(lambda number: (places.parts[number].rows(), _texts(places.parts[number])))
        self._held, self._held_bytes = OrderedDict[int, Hashes](), 0

    def shingles(self, row: int) -> Hashes:
        """The different shingles of a document, sorted."""
        found = self._held.pop(row, None)
        if found is None:
            number, place = self._places.of(row)
            rows, texts = self._open(number)
            found = self._sketch.shingles(texts[rows[place].as_py()].as_py())
            self._held_bytes += found.nbytes
        self._held[row] = found
        while self._held_bytes > self.scratch.memory_bytes // _SHINGLE_SHARE and len(self._held) > 1:
            self._held_bytes -= self._held.popitem(last=False)[1].nbytes
        return found


def _texts(part: Part) -> pa.ChunkedArray:
    return part.read.table(KEPT_FILE)["text"]


def near_rule(spec: FuzzyDedupSpec) -> str:
    """Rule under which a near copy is dropped; its value is its similarity to what stays."""
    return f"similarity < {spec.similarity:g}"


def _copies(
    spec: FuzzyDedupSpec, ranked: Iterator[tuple[int, list[int]]], lengths: Partitions, ranks: Ranks, texts: Texts
) -> Iterator[Copy]:
    """The near copies, in the order of ranks.

    Args:
        ranked: each rank with the numbers of its lists.
        lengths: of the lists of documents that stay, by key.
    """
    stay = Lists(lengths.folder / "lists", lengths, texts.scratch.memory_bytes // _LIST_SHARE)
    for rank, lists in ranked:
        row = ranks.row(rank)
        met = dict.fromkeys(other for number in lists for other in stay.of(number))
        likeness = {other: _similarity(texts.shingles(row), texts.shingles(other), spec.similarity) for other in met}
        best = max(likeness, key=likeness.__getitem__, default=row)
        if likeness.get(best, 0) >= spec.similarity:
            yield Copy(row, best, likeness[best])
        else:
            for number in lists:
                stay.append(number, row)


def _similarity(first: Hashes, second: Hashes, least: float) -> float:
    """Of two texts; 0 where their lengths alone rule out that it is enough."""
    if min(len(first), len(second)) < least * max(len(first), len(second)):
        return 0.0
    return similarity(first, second)

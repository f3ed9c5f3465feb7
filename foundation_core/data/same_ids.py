"""Ids that documents of several units bring along: the first document stays, the others are quarantined.

places of all units --by a range of digests--> ids that are there twice --by unit--> set aside, with both places
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.corpus import LOSS, Part, Places
from foundation_core.data.ids import PLACES, PLACES_FILE, said_of_same_id
from foundation_core.data.spill import Scratch, repeats

_DIGEST = pa.schema({"key": pa.binary(32), "row": pa.int64()})
_FIRST_BITS = struct.Struct(">I28x")


class _Brought(Places):
    """Where the documents of parts are that brought ids along, whatever became of them."""

    def _count(self, part: Part) -> int:
        return len(_places(part))

    def _names(self, part: Part, inside: pa.Array) -> pa.ChunkedArray:
        return _places(part)["place"].take(inside)


def _places(part: Part) -> pa.Table:
    there = (part.read.folder / PLACES_FILE).exists()
    return part.read.table(PLACES_FILE) if there else PLACES.empty_table()


def without_same_ids(parts: Sequence[Part], scratch: Scratch) -> list[Part]:
    """The parts without documents whose id an earlier one has; these are quarantined.

    Args:
        parts: as their units were read, in the order of units; of each, ids are different ones already.
        scratch: an open folder, and the memory to look for ids in.
    """
    places = _Brought(parts)
    digests = scratch.partitions("ids", _DIGEST, scratch.parts_of(places.documents, _DIGEST))
    for part, rows in places.each():
        data = b"".join(hashlib.sha256(name.encode()).digest() for name in _places(part)["document"].to_pylist())
        keys = pa.FixedSizeBinaryArray.from_buffers(_DIGEST.field("key").type, len(rows), [None, pa.py_buffer(data)])
        ranges = [first * digests.count >> 32 for (first,) in _FIRST_BITS.iter_unpack(data)]
        digests.add(pa.table([keys, rows], schema=_DIGEST), pa.array(ranges, pa.int64()))
    count = min(len(parts), scratch.parts_of(places.documents, LOSS)) or 1
    firsts = [len(parts) * number // count for number in range(count)]
    bounds = [places.starts[first] for first in firsts[1:]]
    losses = scratch.partitions("same-ids", LOSS, count)
    for number in range(digests.count):
        for some in repeats(digests, number, "row")[1]:
            same = pa.table({"row": some.records["row"], "survivor": some.first,
                             "value": pc.cast(some.count, pa.float64())})  # fmt: skip
            same = same.filter(pc.not_equal(same["row"], same["survivor"]))
            numbers = [bisect_right(bounds, row) for row in same["row"].to_pylist()]
            losses.add(same, pa.array(numbers, pa.int64()))
        digests.remove(number)
    stay = list(parts)
    for number, (first, behind) in enumerate(pairwise([*firsts, len(parts)])):
        lost = losses.held(number).sort_by("row")
        earlier, rows = places.names(lost["survivor"]), lost["row"].to_pylist()
        for at in range(first, behind):
            start, stop = (bisect_left(rows, places.starts[end]) for end in (at, at + 1))
            if start < stop:
                inside = pa.array([row - places.starts[at] for row in rows[start:stop]], pa.int64())
                stay[at] = _without(parts[at], inside, earlier.slice(start, stop - start).to_pylist())
        losses.remove(number)
    return stay


def _without(part: Part, inside: pa.Array, earlier: Sequence[str]) -> Part:
    """A part without some of the documents that brought ids along.

    Args:
        inside: which of them these are.
        earlier: the place of the first document that has the id of each.
    """
    gone = _places(part).take(inside)
    documents = gone["document"].combine_chunks()
    reasons = [said_of_same_id(name, first) for name, first in zip(documents.to_pylist(), earlier, strict=True)]
    return part.set_aside("same-ids", documents, pa.table({"document": gone["place"], "reason": reasons}))

"""Ids that documents of several units bring along: the first document stays, the others are quarantined.

places of all units --by a range of digests--> ids that are there twice --> losses --by part--> set aside
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.corpus import Part, Places
from foundation_core.data.ids import PLACES, PLACES_FILE, said_of_same_id
from foundation_core.data.losses import Losses, lost
from foundation_core.data.spill import Scratch, repeats
from foundation_core.data.units import Unit

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


def same_ids(parts: Sequence[Part], scratch: Scratch) -> Losses:
    """The documents of parts whose id an earlier one has, each with this one.

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
    losses = Losses(places, scratch)
    for number in range(digests.count):
        for some in repeats(digests, number, "row")[1]:
            same = pa.table({"row": some.records["row"], "survivor": some.first,
                             "value": pc.cast(some.count, pa.float64())})  # fmt: skip
            losses.add(same.filter(pc.not_equal(same["row"], same["survivor"])))
        digests.remove(number)
    return losses


def without_same_ids(parts: Sequence[Part], unit: Unit) -> list[Part]:
    """The parts without documents whose id an earlier one has; these are quarantined, with both places.

    Args:
        parts: the same as when they were found.
        unit: what was found.
    """
    stay = list(parts)
    for found in lost(_Brought(parts), unit):
        gone = _places(parts[found.number]).take(found.inside)
        documents = gone["document"].combine_chunks()
        pairs = zip(documents.to_pylist(), found.kept.to_pylist(), strict=True)
        reasons = pa.table({"document": gone["place"], "reason": [said_of_same_id(*pair) for pair in pairs]})
        stay[found.number] = parts[found.number].set_aside("same-ids", documents, reasons)
    return stay

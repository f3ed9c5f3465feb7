"""Exact deduplication: of documents with the same normalised text one stays, the one with the smallest id.

digests of the texts --by a range of digests--> those that are there twice --> losses, each with what stays
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.corpus import Part, Places
from foundation_core.data.losses import Losses
from foundation_core.data.spill import Scratch, repeats

RULE = "copies <= 1"
"""Rule under which a copy is dropped; its value is the number of copies, the one that stays included."""
_DIGEST = pa.schema({"key": pa.binary(32), "row": pa.int64()})
_FIRST_BITS = struct.Struct(">I28x")


def exact_copies(parts: Sequence[Part], scratch: Scratch) -> Losses:
    """The exact copies in parts, each with the document that stays.

    Args:
        parts: in the order of document ids.
        scratch: an open folder, and the memory to look for copies in.
    """
    places = Places(parts)
    digests = scratch.partitions("digests", _DIGEST, scratch.parts_of(places.documents, _DIGEST))
    for part, rows in places.each():
        data = bytes.fromhex("".join(part.index["sha256"].to_pylist()))
        keys = pa.FixedSizeBinaryArray.from_buffers(_DIGEST.field("key").type, len(rows), [None, pa.py_buffer(data)])
        ranges = [first * digests.count >> 32 for (first,) in _FIRST_BITS.iter_unpack(data)]
        digests.add(pa.table([keys, rows], schema=_DIGEST), pa.array(ranges, pa.int64()))
    losses = Losses(places, scratch)
    for number in range(digests.count):
        _, found = repeats(digests, number, "row")
        for some in found:
            copies = pa.table({"row": some.records["row"], "survivor": some.first, "value": some.count})
            losses.add(copies.filter(pc.not_equal(copies["row"], copies["survivor"])))
        digests.remove(number)
    return losses

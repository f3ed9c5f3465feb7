"""Documents that a step takes out of the corpus for the sake of others: found once, kept as a unit.

    what a step finds --by a range of parts--> partitions on disk --commit--> a unit: a file a range, sorted by row
    a unit --lost--> what each part loses, and the names of what stays

To find copies among all documents takes long, and no piece of it is worth keeping alone. What was found does not go
with the documents but with the copies: a start after an interruption, or another tokenizer, takes it from there.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.copies.spill import Scratch, repeats
from foundation_core.data.rules.filters import DROPPED
from foundation_core.data.shards.dataset import arrow_bytes
from foundation_core.data.units.corpus import Part, Places
from foundation_core.data.units.work import Unit

LOSS = pa.schema({"row": pa.int64(), "survivor": pa.int64(), "value": pa.float64()})
"""A document that goes: its row among all documents, that of the one that stays, and the value."""
_DIGEST = pa.schema({"key": pa.binary(32), "row": pa.int64()})
_FIRST_BITS = struct.Struct(">I28x")


class Losses:
    """What a step finds, on disk until all is known."""

    def __init__(self, places: Places, scratch: Scratch) -> None:
        count = min(len(places.parts), scratch.parts_of(places.documents, LOSS)) or 1
        self._places = places
        self._firsts = [len(places.parts) * number // count for number in range(count)]
        self._records = scratch.partitions("losses", LOSS, count)

    def add(self, losses: pa.Table) -> None:
        """Some of it, as rows of `LOSS`."""
        bounds = [self._places.starts[first] for first in self._firsts[1:]]
        numbers = [bisect_right(bounds, row) for row in losses["row"].to_pylist()]
        self._records.add(losses, pa.array(numbers, pa.int64()))

    def commit(self, unit: Unit) -> None:
        """Keep it as a unit; one range of parts is held at a time."""
        files = ((_file(number), arrow_bytes(self._range(number))) for number in range(len(self._firsts)))
        unit.commit(files, firsts=self._firsts)

    def _range(self, number: int) -> pa.Table:
        found = self._records.held(number).sort_by("row")
        self._records.remove(number)
        return found


def same_digests(places: Places, digests_of: Callable[[Part], bytes], scratch: Scratch) -> Losses:
    """The documents whose digest an earlier one has, each with this one; the value is how many have it.

    Args:
        digests_of: 32 bytes for each document of a part, as `places` counts them.
        scratch: an open folder, and the memory to look for them in: a range of digests at a time.
    """
    digests = scratch.partitions("digests", _DIGEST, scratch.parts_of(places.documents, _DIGEST))
    for part, rows in places.each():
        data = digests_of(part)
        keys = pa.FixedSizeBinaryArray.from_buffers(_DIGEST.field("key").type, len(rows), [None, pa.py_buffer(data)])
        ranges = [first * digests.count >> 32 for (first,) in _FIRST_BITS.iter_unpack(data)]
        digests.add(pa.table([keys, rows], schema=_DIGEST), pa.array(ranges, pa.int64()))
    losses = Losses(places, scratch)
    for number in range(digests.count):
        for some in repeats(digests, number, "row")[1]:
            same = pa.table({"row": some.records["row"], "survivor": some.first, "value": some.count})
            losses.add(same.filter(pc.not_equal(same["row"], same["survivor"])))
        digests.remove(number)
    return losses


class Lost(NamedTuple):
    """What a part loses.

    Args:
        number: of the part.
        inside: the places of the documents that go, among those of the part.
        kept: the names of those that stay in their place.
    """

    number: int
    inside: pa.Array
    kept: pa.ChunkedArray
    value: pa.ChunkedArray


def lost(places: Places, unit: Unit) -> Iterator[Lost]:
    """What each part loses that loses something, in the order of parts.

    Args:
        places: the same as when it was found.
        unit: a finished one.
    """
    for number, (first, behind) in enumerate(pairwise([*unit.facts()["firsts"], len(places.parts)])):
        found = unit.table(_file(number))
        kept, rows = places.names(found["survivor"]), found["row"].to_pylist()
        cuts = [bisect_left(rows, start) for start in places.starts[first : behind + 1]]
        for part, (start, stop) in zip(range(first, behind), pairwise(cuts), strict=True):
            if start < stop:
                some = found.slice(start, stop - start)
                inside = pc.subtract(some["row"], places.starts[part]).combine_chunks()
                yield Lost(part, inside, kept.slice(start, stop - start), some["value"])


def without_copies(parts: Sequence[Part], unit: Unit, step: str, rule: str) -> list[Part]:
    """The parts without copies, which are dropped and name what stays.

    Args:
        parts: the same as when they were found.
        unit: what was found.
        step: that found them; its name is part of the files' names.
        rule: under which they are dropped.
    """
    stay = list(parts)
    for found in lost(Places(parts), unit):
        part, inside = parts[found.number], found.inside
        dropped = part.index.select(["document", "group"]).take(inside)
        none = pa.nulls(len(inside), DROPPED.field("text").type)  # what stays has it
        columns = {"rule": pa.repeat(rule, len(inside)), "value": found.value, "kept": found.kept, "text": none}
        for name, column in columns.items():
            dropped = dropped.append_column(name, column)
        gone = pc.is_in(pa.array(range(len(part)), pa.int64()), inside)
        stay[found.number] = part.without(step, gone, dropped)
    return stay


def _file(number: int) -> str:
    return f"losses-{number:06d}.arrow"

"""Ids that documents of several units bring along: the first document stays, the others are quarantined.

digests of the ids of all units --> those that are there twice --> losses --by part--> set aside
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa

from foundation_core.data.copies.losses import Losses, lost, same_digests
from foundation_core.data.copies.spill import Scratch
from foundation_core.data.sources.ids import PLACES, PLACES_FILE, said_of_same_id
from foundation_core.data.units.corpus import Part, Places
from foundation_core.data.units.work import Unit


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
    return same_digests(_Brought(parts), _digests, scratch)


def _digests(part: Part) -> bytes:
    return b"".join(hashlib.sha256(name.encode()).digest() for name in _places(part)["document"].to_pylist())


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

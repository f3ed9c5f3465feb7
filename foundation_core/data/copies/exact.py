"""Exact deduplication: of documents with the same normalised text one stays, the one with the smallest id.

digests of the texts --> those that are there twice --> losses, each with what stays
"""

from __future__ import annotations

from collections.abc import Sequence

from foundation_core.data.copies.losses import Losses, same_digests
from foundation_core.data.copies.spill import Scratch
from foundation_core.data.units.corpus import Part, Places

RULE = "copies <= 1"
"""Rule under which a copy is dropped; its value is the number of copies, the one that stays included."""


def exact_copies(parts: Sequence[Part], scratch: Scratch) -> Losses:
    """The exact copies in parts, each with the document that stays.

    Args:
        parts: in the order of document ids.
        scratch: an open folder, and the memory to look for copies in.
    """
    return same_digests(Places(parts), _digests, scratch)


def _digests(part: Part) -> bytes:
    return bytes.fromhex("".join(part.index["sha256"].to_pylist()))

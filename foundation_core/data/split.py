"""Which split a document belongs to: decided once, by its id alone, and used by every later stage."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from foundation_core.specs import SplitSpec

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
"""Every split, the largest first."""


def place_of(document: str, key: str) -> float:
    """A number from 0 to 1 by a keyed hash of a document's id, as likely to be anywhere."""
    digest = hashlib.blake2b(document.encode(), key=key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_of(document: str, spec: SplitSpec, allowed: Sequence[Split] = SPLITS) -> Split:
    """The split of a document: a keyed hash of its id, so that no other document can move it.

    Args:
        allowed: the splits that its source leaves open, the largest first; each gets its fraction, the first the rest.
    """
    place = place_of(document, f"split/{spec.seed}")
    fractions: tuple[tuple[Split, float], ...] = (
        ("test", spec.test_fraction),  # the test comes first: another validation share leaves it as it was
        ("validation", spec.validation_fraction),
    )
    bound = 0.0
    for split, fraction in fractions:
        if split in allowed:
            bound += fraction
            if place < bound:
                return split
    return allowed[0]

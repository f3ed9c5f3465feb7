"""Which split a document belongs to: decided once, by its id alone, and used by every later stage."""

from __future__ import annotations

import hashlib
from typing import Literal

from foundation_core.specs import SplitSpec

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
"""Every split, the largest first."""


def split_of(document: str, spec: SplitSpec) -> Split:
    """The split of a document: a keyed hash of its id, so that no other document can move it."""
    digest = hashlib.blake2b(document.encode(), key=f"split/{spec.seed}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < spec.test_fraction:  # the test comes first: another validation share leaves it as it was
        return "test"
    return "validation" if place < spec.test_fraction + spec.validation_fraction else "train"

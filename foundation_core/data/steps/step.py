"""What a step is: texts go in, and the new ones come out with how often each of them was changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc


class Stepped(NamedTuple):
    """What a step made of texts.

    Args:
        texts: as many as came in, in their order; large_string.
        changes: for each kind of change, how often it was made in each text; int64.
    """

    texts: pa.Array
    changes: Mapping[str, pa.Array]


class Step(Protocol):
    """It travels to worker processes."""

    @property
    def name(self) -> str:
        """What it is called."""

    def __call__(self, texts: pa.Array) -> Stepped:
        """The texts, changed."""


def rewritten(
    texts: pa.Array, touched: pa.Array, kinds: Sequence[str], rewrite: Callable[[int, str, dict[str, int]], str]
) -> Stepped:
    """The texts, of which some go through a function in Python.

    Args:
        touched: whether each of them does.
        kinds: of changes.
        rewrite: gives the new text of (its place among the texts, itself), and adds what it changed to the counts.
    """
    places = pc.indices_nonzero(touched).to_pylist()
    found = {kind: [0] * len(texts) for kind in kinds}
    new = []
    for place, text in zip(places, texts.filter(touched).to_pylist(), strict=True):
        counts = dict.fromkeys(kinds, 0)
        new.append(rewrite(place, text, counts))
        for kind, count in counts.items():
            found[kind][place] = count
    changed = pc.replace_with_mask(texts, touched, pa.array(new, pa.large_string())) if new else texts
    return Stepped(changed, {kind: pa.array(counts, pa.int64()) for kind, counts in found.items()})

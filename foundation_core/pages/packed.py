"""Packed rows of a split: the windows that a model is trained on, and which documents each is cut from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundation_core.data.shards import ShardDataset
from foundation_core.pages.finding import Place


@dataclass(frozen=True)
class Segment:
    """The part of a document that lies in a window.

    Args:
        number: of the document in its shard, from 0.
        begins: whether it is the document's beginning, or goes on with what an earlier window ended with.
        first: its first place in the window.
        tokens: their ids.
        positions: of the first and the last token, as the model is told them.
    """

    document: str
    number: int
    begins: bool
    first: int
    tokens: list[int]
    positions: tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A packed row.

    Args:
        number: in the split, from 0.
        of: how many there are.
        padding: places behind the last token.
    """

    split: str
    number: int
    of: int
    segments: list[Segment]
    padding: int


def windows(dataset: ShardDataset, place: Place, context_tokens: int, count: int) -> list[Window]:
    """The windows of a split from that on in which a document begins.

    Args:
        place: of the document in the split.
    """
    import torch

    from foundation_core.data.packing import Windows

    packed = Windows(dataset, context_tokens)
    column = dataset.table(place.shard)["tokens"].chunk(0)  # a shard is one record batch
    starts = column.offsets.to_numpy()
    before = sum(-(-(shard["tokens"] - 1) // context_tokens) for shard in dataset.manifest["shards"][: place.shard])
    end = -(-(int(starts[-1]) - 1) // context_tokens)
    first = min(int(starts[place.row]) // context_tokens, end - 1)  # a shard's last token is a label and begins no row
    last = min(first + count, end)
    rows = packed.gather(torch.arange(before + first, before + last))
    names = dataset.table(place.shard)["document"]
    found = []
    for row, number in enumerate(range(first, last)):
        tokens, segments, positions = (rows[name][row].numpy() for name in ("tokens", "segment", "position"))
        start = number * context_tokens
        document = int(np.searchsorted(starts, start, side="right")) - 1
        cut = [
            Segment(
                document=names[document + segment].as_py(),
                number=document + segment,
                begins=bool(starts[document + segment] >= start),
                first=int(at[0]),
                tokens=tokens[at].tolist(),
                positions=(int(positions[at[0]]), int(positions[at[-1]])),
            )
            for segment, at in _apart(segments)
        ]
        split = place.dataset.rpartition("/")[2]
        found.append(Window(split, before + number, len(packed), cut, int((segments < 0).sum())))
    return found


def _apart(segments: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each segment of a window with its places; padding is none."""
    for segment in np.unique(segments[segments >= 0]).tolist():
        yield segment, np.flatnonzero(segments == segment)

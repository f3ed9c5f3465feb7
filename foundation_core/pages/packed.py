"""Packed rows of a split: the windows that a model is trained on, and which documents each is cut from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.pages.finding import Place
from foundation_core.specs.loading import Packing


@dataclass(frozen=True)
class Segment:
    """The part of a document that lies in a window.

    Args:
        number: of the document in its shard, from 0.
        skipped: tokens of the document before it, which other windows have.
        first: its first place in the window.
        tokens: their ids.
        positions: of the first and the last token, as the model is told them.
    """

    document: str
    number: int
    skipped: int
    first: int
    tokens: list[int]
    positions: tuple[int, int]

    @property
    def begins(self) -> bool:
        """Whether it is the document's beginning."""
        return self.skipped == 0


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


def windows(
    dataset: ShardDataset, place: Place, context_tokens: int, count: int, packing: Packing = "cut"
) -> list[Window]:
    """The windows of a split from that on in which a document begins; none of one that no window has.

    Args:
        place: of the document in the split.
    """
    import torch

    from foundation_core.data.loading.packing import Windows

    packed = Windows(dataset, context_tokens, packing)
    column = dataset.table(place.shard)["tokens"].chunk(0)  # a shard is one record batch
    starts = column.offsets.to_numpy()
    before, pieces = packed.pieces_of_shard(place.shard)
    counts, begin, length = (part.numpy() for part in pieces)
    ends = np.cumsum(counts)
    # the last piece that has the document's first token: where it begins a row, the row before has it as its label
    having = np.flatnonzero((begin <= starts[place.row]) & (starts[place.row] < begin + length))
    if not len(having):
        return []
    first = int(np.searchsorted(ends, having[-1], side="right"))
    last = min(first + count, len(counts))
    rows = packed.gather(torch.arange(before + first, before + last))
    names, split = dataset.table(place.shard)["document"], place.dataset.rpartition("/")[2]
    found = []
    for row, number in enumerate(range(first, last)):
        tokens, positions = rows["tokens"][row].tolist(), rows["position"][row].tolist()
        segments, at = list[Segment](), 0
        for piece in range(ends[number] - counts[number], ends[number]):
            document = int(np.searchsorted(starts, begin[piece], side="right")) - 1
            behind = at + int(length[piece])
            segments.append(
                Segment(
                    document=names[document].as_py(),
                    number=document,
                    skipped=int(begin[piece] - starts[document]),
                    first=at,
                    tokens=tokens[at:behind],
                    positions=(positions[at], positions[behind - 1]),
                )
            )
            at = behind
        found.append(Window(split, before + number, len(packed), segments, context_tokens + 1 - at))
    return found

"""Which pieces of a shard's documents make which row, by three rules that never look at another shard.

    cut            documents end to end, cut each T tokens; a row may begin and end within a document
    best_fit       no document is cut that fits into a row; several share one, and what is left is padding
    one_document   no row holds two documents

A row holds T + 1 tokens at the most. A document longer than that is cut into pieces of which each begins with the last
token of the one before: every token of a document but its first is a label exactly once. `cut` does the same with the
shard as a whole. A document of a single token has no label, and the other two leave it out.

Source of best fit on documents: Ding et al. 2024, Fewer truncations improve language modeling, section 3.

Legend: D documents, N rows, P pieces, T context tokens.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from foundation_core.spec_loading import Packing

WINDOW_DOCUMENTS = 8192
"""Documents that are packed together by best fit: what it holds in memory does not grow with the shard."""


class Documents(NamedTuple):
    """Documents of one shard: (D,) int64 each.

    Args:
        start: where they begin in the shard's tokens.
        length: their tokens.
    """

    start: Tensor
    length: Tensor


class Pieces(NamedTuple):
    """Pieces of some rows, row by row.

    Args:
        counts: (N,) pieces of each row.
        start: (P,) where they begin in the shard's tokens.
        length: (P,) their tokens.
    """

    counts: Tensor
    start: Tensor
    length: Tensor


class Plan(Protocol):
    """The rows of the documents of one shard."""

    def pieces(self, rows: Tensor) -> Pieces:
        """The pieces of the rows of those numbers."""


def row_count(tokens: int, context_tokens: int) -> int:
    """Rows that so many tokens make when they are cut end to end."""
    return -(-max(0, tokens - 1) // context_tokens)


class Cut:
    """Rows that begin each T tokens of the documents end to end."""

    def __init__(self, documents: Documents, context_tokens: int) -> None:
        self.documents, self.context_tokens = documents, context_tokens
        self._ends = documents.length.cumsum(0)
        self._begins = self._ends - documents.length  # in the documents end to end, which may have gaps in the shard

    def pieces(self, rows: Tensor) -> Pieces:
        """The pieces of the rows of those numbers."""
        begin = rows * self.context_tokens
        end = (begin + self.context_tokens + 1).clamp_(max=int(self._ends[-1]))
        first, last = torch.searchsorted(self._begins, torch.stack([begin, end - 1]), right=True) - 1
        count = last - first + 1
        document = ragged(first, count)
        begin, end = begin.repeat_interleave(count), end.repeat_interleave(count)
        skipped = (begin - self._begins[document]).clamp_(min=0)  # what an earlier row has of it
        behind = (self._ends[document] - end).clamp_(min=0)  # what a later row has
        length = self.documents.length[document] - skipped - behind
        return Pieces(count, self.documents.start[document] + skipped, length)


class Packed:
    """Rows whose pieces are written down.

    Args:
        ends: (rows,) pieces of this row and of all before it.
        start: (P,) where the pieces begin in the shard's tokens.
        length: (P,) their tokens.
    """

    def __init__(self, ends: Tensor, start: Tensor, length: Tensor) -> None:
        self.ends, self.start, self.length = ends, start, length

    def __len__(self) -> int:
        return len(self.ends)

    def pieces(self, rows: Tensor) -> Pieces:
        """The pieces of the rows of those numbers."""
        first = torch.where(rows > 0, self.ends[rows - 1], 0)
        count = self.ends[rows] - first
        which = ragged(first, count)
        return Pieces(count, self.start[which], self.length[which])


def packed(documents: Documents, context_tokens: int, packing: Packing) -> Packed:
    """The rows of documents that are cut only where they are longer than a row."""
    count = (documents.length + context_tokens - 2) // context_tokens
    part = ragged(torch.zeros_like(count), count) * context_tokens
    start = documents.start.repeat_interleave(count) + part
    length = (documents.length.repeat_interleave(count) - part).clamp_(max=context_tokens + 1)
    if packing == "one_document":
        return Packed(torch.arange(1, len(start) + 1), start, length)
    rows, row = [], 0
    windows = [int(part.sum()) for part in torch.split(count, WINDOW_DOCUMENTS)]
    for window in torch.split(length, windows):
        found, row = best_fit(window, context_tokens + 1, row)
        rows.append(found)
    row_of_piece = torch.cat([torch.empty(0, dtype=torch.int64), *rows])
    by_row = row_of_piece.argsort(stable=True)
    return Packed(torch.bincount(row_of_piece, minlength=row).cumsum(0), start[by_row], length[by_row])


def best_fit(sizes: Tensor, capacity: int, first: int = 0) -> tuple[Tensor, int]:
    """The row of each piece, the largest first, each into the fullest row that it fits into; and the next free row.

    The rows are found by what they have room for: a bit of one long number says whether there is a row with so much
    room, so that the fullest one that fits is the lowest bit above the piece's size.

    Args:
        first: number of the first row.
    """
    ordered = sizes.sort(descending=True, stable=True)
    found, rooms = list[int](), 0
    rows: list[list[int]] = [[] for _ in range(capacity + 1)]  # by the room that is left in them
    for size in ordered.values.tolist():
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = rows[room].pop()
            if not rows[room]:
                rooms ^= 1 << room
        else:
            room, row = capacity, first
            first += 1
        found.append(row)
        left = room - size
        rows[left].append(row)
        if left:
            rooms |= 1 << left
    return torch.empty_like(sizes).scatter_(0, ordered.indices, torch.tensor(found, dtype=torch.int64)), first


def ragged(first: Tensor, count: Tensor) -> Tensor:
    """first[0], first[0] + 1, ... (count[0] of them), first[1], first[1] + 1, ..."""
    ends = count.cumsum(0)
    steps = torch.arange(int(ends[-1]) if len(ends) else 0)
    return steps.add_((first - ends + count).repeat_interleave(count, output_size=len(steps)))

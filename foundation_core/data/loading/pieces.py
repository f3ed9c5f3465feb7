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

from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from foundation_core.errors import SetupError
from foundation_core.specs.loading import Packing

WINDOW_DOCUMENTS = 8192
"""Documents that are packed together by best fit: what it holds in memory does not grow with the shard."""


class Documents(NamedTuple):
    """Documents of one shard, or those of a group: int64 each.

    Args:
        start: (D,) where they begin in the shard's tokens.
        bounds: (D + 1,) where they begin, and the last one ends, when they are laid end to end.
    """

    start: Tensor
    bounds: Tensor

    @property
    def length(self) -> Tensor:
        """(D,) their tokens."""
        return self.bounds.diff()

    @property
    def tokens(self) -> int:
        """Tokens of all of them."""
        return int(self.bounds[-1] - self.bounds[0])


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

    def rows_of(self, start: int, end: int) -> Tensor:
        """The numbers of the rows that hold something of the document at these tokens of the shard, rising."""

    def arrays(self) -> tuple[Tensor, ...]:
        """All that it is made of: what a cell says to `fused`, behind the tokens."""


@cache
def machine_code() -> ModuleType | None:
    """The steps of rows as machine code; None without numba. Imported when it is first asked for: 0.1 s and 57 MB."""
    try:
        from foundation_core.data.loading import fused
    except SetupError:
        return None
    return fused


def row_count(tokens: int, context_tokens: int) -> int:
    """Rows that so many tokens make when they are cut end to end."""
    return -(-max(0, tokens - 1) // context_tokens)


class Cut:
    """Rows that begin each T tokens of the documents end to end."""

    def __init__(self, documents: Documents, context_tokens: int) -> None:
        self.documents, self.context_tokens = documents, context_tokens

    def pieces(self, rows: Tensor) -> Pieces:
        """The pieces of the rows of those numbers."""
        start, bounds = self.documents
        begin = bounds[0] + rows * self.context_tokens
        end = (begin + self.context_tokens + 1).clamp_(max=int(bounds[-1]))
        first, last = torch.searchsorted(bounds[:-1], torch.stack([begin, end - 1]), right=True) - 1
        count = last - first + 1
        document = ragged(first, count)
        begin, end = begin.repeat_interleave(count), end.repeat_interleave(count)
        from_here, until = bounds[document], bounds[document + 1]
        skipped = (begin - from_here).clamp_(min=0)  # what an earlier row has of it
        behind = (until - end).clamp_(min=0)  # what a later row has
        return Pieces(count, start[document] + skipped, until - from_here - skipped - behind)

    def rows_of(self, start: int, end: int) -> Tensor:
        """The rows that a document is in."""
        first, bounds = self.documents
        document = int(torch.searchsorted(first, start, right=True)) - 1
        if document < 0:
            return torch.empty(0, dtype=torch.int64)
        begin, until = (int(bounds[place] - bounds[0]) for place in (document, document + 1))
        if start == end or (int(first[document]), until - begin) != (start, end - start):  # empty, or of another group
            return torch.empty(0, dtype=torch.int64)
        last = min((until - 1) // self.context_tokens, row_count(self.documents.tokens, self.context_tokens) - 1)
        return torch.arange(max(0, -(-begin // self.context_tokens) - 1), last + 1)

    def arrays(self) -> tuple[Tensor, ...]:
        """(D + 1,) and (D,) int64: where the documents begin end to end, and in the shard."""
        return self.documents.bounds, self.documents.start


class Packed:
    """Rows whose pieces are written down, in int32: a shard has fewer than 2^31 tokens.

    Args:
        bounds: (N + 1,) the first piece of each row, and the number of all.
        start: (P,) where the pieces begin in the shard's tokens.
        length: (P,) their tokens.
    """

    def __init__(self, bounds: Tensor, start: Tensor, length: Tensor) -> None:
        self.bounds, self.start, self.length = bounds.int(), start.int(), length.int()

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def pieces(self, rows: Tensor) -> Pieces:
        """The pieces of the rows of those numbers."""
        first = self.bounds[rows].long()
        count = self.bounds[rows + 1] - first
        which = ragged(first, count)
        return Pieces(count, self.start[which].long(), self.length[which].long())

    def rows_of(self, start: int, end: int) -> Tensor:
        """The rows that a document is in."""
        pieces = ((self.start >= start) & (self.start < end)).nonzero().squeeze(1)
        rows: Tensor = torch.unique(torch.searchsorted(self.bounds, pieces.int(), right=True) - 1)
        return rows

    def arrays(self) -> tuple[Tensor, ...]:
        """Bounds, start and length."""
        return self.bounds, self.start, self.length


def packed(documents: Documents, context_tokens: int, packing: Packing, code: ModuleType | None = None) -> Packed:
    """The rows of documents that are cut only where they are longer than a row.

    Args:
        code: `machine_code()`, to be fast.
    """
    count = pieces_of(documents, context_tokens)
    part = ragged(torch.zeros_like(count), count) * context_tokens
    start = documents.start.repeat_interleave(count) + part
    length = _cut_lengths(documents, count, context_tokens)
    if packing == "one_document":
        return Packed(torch.arange(len(start) + 1), start, length)
    found = [rows for rows, _ in _fitted(length, count, context_tokens, code)]
    row_of_piece = torch.cat([torch.empty(0, dtype=torch.int64), *found])
    by_row = row_of_piece.argsort(stable=True)
    bounds = torch.nn.functional.pad(torch.bincount(row_of_piece).cumsum(0), (1, 0))
    return Packed(bounds, start[by_row], length[by_row])


def packed_rows(documents: Documents, context_tokens: int, packing: Packing, code: ModuleType | None = None) -> int:
    """How many rows `packed` makes: what has to be known of all shards before the first row is read."""
    count = pieces_of(documents, context_tokens)
    if packing == "one_document":
        return int(count.sum())
    if code is not None:
        *_, (_, rows) = _fitted(_cut_lengths(documents, count, context_tokens), count, context_tokens, code)
        return rows
    rows, last = 0, documents.length - (count - 1) * context_tokens
    for parts, ends in zip(torch.split(count, WINDOW_DOCUMENTS), torch.split(last, WINDOW_DOCUMENTS), strict=True):
        there = parts > 0
        sizes = torch.bincount(ends[there], minlength=context_tokens + 2)
        sizes[context_tokens + 1] += (parts[there] - 1).sum()  # what is cut off a long document fills a row
        rows += fitted_rows(sizes.tolist(), context_tokens + 1)
    return rows


def pieces_of(documents: Documents, context_tokens: int) -> Tensor:
    """(D,) pieces that each document is cut into; none of one with a single token."""
    return (documents.length + context_tokens - 2) // context_tokens


def _cut_lengths(documents: Documents, count: Tensor, context_tokens: int) -> Tensor:
    """(P,) tokens of each piece."""
    part = ragged(torch.zeros_like(count), count) * context_tokens
    return (documents.length.repeat_interleave(count) - part).clamp_(max=context_tokens + 1)


def _fitted(
    length: Tensor, count: Tensor, context_tokens: int, code: ModuleType | None
) -> Iterator[tuple[Tensor, int]]:
    """For each window of documents, the rows of its pieces, and the rows so far."""
    row = 0
    windows = [int(part.sum()) for part in torch.split(count, WINDOW_DOCUMENTS)]
    for window in torch.split(length, windows):
        found, row = best_fit(window, context_tokens + 1, row, code)
        yield found, row


def best_fit(sizes: Tensor, capacity: int, first: int = 0, code: ModuleType | None = None) -> tuple[Tensor, int]:
    """The row of each piece, the largest first, each into the fullest row that it fits into; and the next free row.

    Args:
        first: number of the first row.
        code: `machine_code()`, to be twenty times as fast.
    """
    ordered = sizes.sort(descending=True, stable=True)
    if code is None:
        rows, first = _placed(ordered.values.tolist(), capacity, first)
        found = torch.tensor(rows, dtype=torch.int64)
    else:
        found = torch.empty_like(sizes)
        first = code.best_fit(ordered.values.numpy(), capacity, first, found.numpy())
    return torch.empty_like(sizes).scatter_(0, ordered.indices, found), first


def fitted_rows(sizes: list[int], capacity: int) -> int:
    """How many rows best fit makes of so many pieces of each size.

    The fullest row that a piece fits into stays the fullest for the next one of its size, until none fits any more. So
    rows with the same room are filled together, and no piece is looked at alone. Pieces of more than half a row come
    first, and each has a row of its own.
    """
    half = capacity // 2
    large = sizes[half + 1 : capacity + 1]
    opened = sum(large)
    rows = large[::-1] + [0] * (half + 1)  # by the room that is left in them
    rooms = sum(1 << room for room, many in enumerate(rows) if many and room > 1)  # a bit for each room
    for size in range(half, 1, -1):
        left = sizes[size]
        while left:
            fitting = rooms >> size
            room = size + (fitting & -fitting).bit_length() - 1 if fitting else capacity
            each = room // size  # pieces that such a row takes
            filled, rest = divmod(left, each)
            if fitting and filled >= rows[room]:
                filled, rest = rows[room], 0
            used = filled + (rest > 0)
            if fitting:
                rows[room] -= used
                if not rows[room]:
                    rooms ^= 1 << room
            else:
                opened += used
            left -= filled * each + rest
            if filled and (remaining := room - each * size) > 1:
                rows[remaining] += filled
                rooms |= 1 << remaining
            if rest and (remaining := room - rest * size) > 1:
                rows[remaining] += 1
                rooms |= 1 << remaining
    return opened


def _placed(sizes: list[int], capacity: int, first: int) -> tuple[list[int], int]:
    """The rows of pieces that come from large to small, and the next free row.

    The rows are found by what they have room for: a bit of one long number says whether there is a row with so much
    room, so that the fullest one that fits is the lowest bit above the piece's size.
    """
    found, rooms = list[int](), 0
    rows: list[list[int]] = [[] for _ in range(capacity + 1)]  # by the room that is left in them
    for size in sizes:
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
    return found, first


def ragged(first: Tensor, count: Tensor) -> Tensor:
    """first[0], first[0] + 1, ... (count[0] of them), first[1], first[1] + 1, ..."""
    ends = count.cumsum(0)
    steps = torch.arange(int(ends[-1]) if len(ends) else 0)
    return steps.add_((first - ends + count).repeat_interleave(count, output_size=len(steps)))

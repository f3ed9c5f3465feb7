"""What stands where in rows of packed documents: the token, segment and position of each place, from pieces alone.

pieces of documents, row by row -> a piece of padding behind each row -> segments, positions, places in the shard

Legend: N rows, P pieces of documents, T context tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from foundation_core.data.loading.pieces import Pieces, ragged


class RowPlaces(NamedTuple):
    """What stands where in some rows: their pieces, and behind those of each row one piece of padding.

    Args:
        start: (P + N,) where the pieces begin in their shard's tokens.
        length: (P + N,) their tokens.
        segment: (P + N,) int32, their numbers in their rows; -1 for padding.
        padding: numbers of the padded places, of all rows end to end.
    """

    rows: int
    width: int
    start: Tensor
    length: Tensor
    segment: Tensor
    padding: Tensor

    def shard_places(self) -> Tensor:
        """(N, width) the place of each token in its shard; 0 for padding."""
        return self.fill(self._counted(self.start), 0)

    def segments(self) -> Tensor:
        """(N, width) int32 segment of each token."""
        return self._spread(self.segment)

    def positions(self) -> Tensor:
        """(N, width) int32 position of each token."""
        return self.fill(self._counted(torch.zeros_like(self.start)), 0)

    def fill(self, values: Tensor, value: int) -> Tensor:
        """The values, with another one where there is padding."""
        values.view(-1).index_fill_(0, self.padding, value)
        return values

    def _counted(self, first: Tensor) -> Tensor:
        """For each token a number that counts up from the `first` of its piece."""
        before = self.length.cumsum(0) - self.length
        counted = torch.arange(self.rows * self.width, dtype=torch.int32).view(self.rows, self.width)
        return counted.add_(self._spread((first - before).int()))

    def _spread(self, values: Tensor) -> Tensor:
        """(N, width) the value of its piece, int32, for each token."""
        there = self.length > 0
        ends, values = self.length.cumsum(0)[there].int(), values[there]
        runs = pa.RunEndEncodedArray.from_arrays(_arrow(ends), _arrow(values))
        # four times as fast as torch.repeat_interleave, which makes an index for every token on the way
        return from_dlpack(pc.run_end_decode(runs)).view(self.rows, self.width)


def padded_places(pieces: Pieces, width: int) -> RowPlaces:
    rows = len(pieces.counts)
    row = torch.arange(rows).repeat_interleave(pieces.counts, output_size=len(pieces.start))
    place = torch.arange(len(row)) + row  # a piece of padding stands behind each row before
    last = (pieces.counts + 1).cumsum(0) - 1
    length = torch.zeros(len(row) + rows, dtype=torch.int64).index_copy_(0, place, pieces.length)
    length[last] = width - torch.zeros(rows, dtype=torch.int64).index_add_(0, row, pieces.length)
    segment = ragged(torch.zeros(rows, dtype=torch.int64), pieces.counts + 1).int().index_fill_(0, last, -1)
    start = torch.zeros_like(length).index_copy_(0, place, pieces.start)
    padded = length[last]
    return RowPlaces(rows, width, start, length, segment, ragged(torch.arange(1, rows + 1) * width - padded, padded))


def in_order(pieces: Pieces, order: Tensor) -> Pieces:
    """The pieces of the same rows in another order."""
    count = pieces.counts[order]
    which = ragged((pieces.counts.cumsum(0) - pieces.counts)[order], count)
    return Pieces(count, pieces.start[which], pieces.length[which])


def _arrow(values: Tensor) -> pa.Array:
    """An int32 tensor as an Arrow array, without a copy."""
    memory = pa.foreign_buffer(values.data_ptr(), values.nbytes, base=values)
    return pa.Array.from_buffers(pa.int32(), len(values), [None, memory])

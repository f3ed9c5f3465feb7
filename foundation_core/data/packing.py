"""Token shards read as windows of equal length, cut without regard to where documents end.

    shard:      a a a | b b | c c c c |        (T = 3; each document ends with its end token)
    window 0:   a a a   b                      tokens 0..3
    window 1:           b b   c c              tokens 3..6: the last of one is the first of the next
    window 2:                 c c c .          tokens 6..9: padded

A window holds T + 1 tokens and the next begins T further on, so every token of a shard but its first is a label
exactly once. Which tokens are of one document is said beside them, so that documents need not read each other.

Legend: N windows, T context tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from foundation_core.data.shards import ShardDataset
from foundation_core.errors import DataError


class _Stream(NamedTuple):
    """A shard's tokens end to end, and where its documents begin (and the last one ends)."""

    tokens: Tensor
    starts: Tensor


class Windows:
    """Every window of a token data set, by number.

    Raises:
        DataError: the data set has too few tokens for a single label.
    """

    def __init__(self, dataset: ShardDataset, context_tokens: int) -> None:
        self.dataset, self.context_tokens = dataset, context_tokens
        labels = torch.tensor([shard["tokens"] - 1 for shard in dataset.manifest["shards"]], dtype=torch.int64)
        windows = (labels + context_tokens - 1) // context_tokens
        self._ends = windows.cumsum(0)
        self._firsts = self._ends - windows
        self._streams: dict[int, _Stream] = {}
        if len(self) == 0:
            raise DataError(
                f"{dataset.folder} holds {dataset.tokens} tokens: there is nothing to predict in it",
                fix="add documents, or give this split a larger fraction",
            )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def gather(self, indices: Tensor) -> dict[str, Tensor]:
        """The windows of those numbers, each tensor (N, T + 1) int64.

        Returns:
            tokens: token ids; 0 where there is padding.
            segment: which document of its window a token belongs to, from 0; -1 for padding.
            position: the token's place in that document's part of the window, from 0; 0 for padding.
        """
        shape = (len(indices), self.context_tokens + 1)
        batch = {name: torch.zeros(shape, dtype=torch.int64) for name in ("tokens", "segment", "position")}
        shards = torch.searchsorted(self._ends, indices, right=True)
        for shard in torch.unique(shards).tolist():
            rows = (shards == shard).nonzero().squeeze(1)
            for name, values in self._from_shard(shard, indices[rows] - self._firsts[shard]).items():
                batch[name][rows] = values
        return batch

    def _from_shard(self, shard: int, numbers: Tensor) -> dict[str, Tensor]:
        tokens, starts = self._stream(shard)
        first = (numbers * self.context_tokens).unsqueeze(1)
        place = first + torch.arange(self.context_tokens + 1)
        padding = place >= len(tokens)
        place.clamp_(max=len(tokens) - 1)
        document = torch.searchsorted(starts, place, right=True) - 1
        begin = torch.maximum(starts[document], first)  # a document that began in an earlier window begins anew here
        return {
            "tokens": tokens[place].long().masked_fill_(padding, 0),
            "segment": (document - document[:, :1]).masked_fill_(padding, -1),
            "position": (place - begin).masked_fill_(padding, 0),
        }

    def _stream(self, shard: int) -> _Stream:
        if shard not in self._streams:
            column = self.dataset.table(shard)["tokens"].chunk(0)  # a shard is one record batch
            self._streams[shard] = _Stream(from_dlpack(column.values), from_dlpack(column.offsets))
        return self._streams[shard]

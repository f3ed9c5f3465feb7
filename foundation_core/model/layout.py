"""Who may read whom: masks as data.

A `Layout` holds a few integers per token. From them one rule makes every mask there is (causal, bidirectional, prefix,
packed documents, padding), once per forward and outside the blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PADDING = -1
"""Segment of the tokens that are not there; they read only each other, and nobody reads them."""


@dataclass(frozen=True)
class Layout:
    """Where each token stands.

    Args:
        position: (B, T) place inside its document, from 0: what the position parts see.
        segment: (B, T) number of its document, `PADDING` for none. None: each row is one document, without padding.
        order: (B, T) a causal trunk reads no token of a higher order. None: the order of the row. Equal orders read
            each other both ways: give a prompt's tokens one order, and they become a prefix.
    """

    position: Tensor
    segment: Tensor | None = None
    order: Tensor | None = None

    def then(self, later: Layout) -> Layout:
        """The layout of this row with later tokens behind it; a ValueError where one says more than the other."""
        segment, order = _joined(self.segment, later.segment), _joined(self.order, later.order)
        return Layout(torch.cat([self.position, later.position], dim=1), segment, order)

    def select(self, row_B: Tensor) -> Layout:
        """The layout of these rows, in this order."""
        parts = (self.position, self.segment, self.order)
        return Layout(*(None if part is None else part[row_B] for part in parts))  # type: ignore[arg-type]


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if (first is None) != (second is None):
        raise ValueError("a row whose layout has segments, or orders, goes on with a layout that has them too")
    return None if first is None or second is None else torch.cat([first, second], dim=1)


def sequential(tokens: Tensor, start: int = 0) -> Layout:
    """The layout of rows that are one document each, the first token at position `start`."""
    rows, length = tokens.shape[:2]
    return Layout(torch.arange(start, start + length, device=tokens.device).expand(rows, length))


@dataclass(frozen=True)
class AttentionMask:
    """A layout as the attention kernels want it.

    Args:
        allowed: broadcasts to (B, H, T, S); True where the query may read the key. None: see `causal`.
        causal: without `allowed`: whether each token reads only itself and what is before it (T = S).
        bias: broadcasts to (B, H, T, S); added to the scores, and minus infinity where the key may not be read. None:
            nothing is added. Where it is there, the other two say nothing.
    """

    allowed: Tensor | None = None
    causal: bool = False
    bias: Tensor | None = None

    def written_out(self, T: int, S: int, device: torch.device) -> Tensor:
        """What is allowed, in memory also where the kernels need none."""
        if self.allowed is not None:
            return self.allowed
        everything = torch.ones(T, S, dtype=torch.bool, device=device)
        return everything.tril() if self.causal else everything

    def with_bias(self, bias_BHTS: Tensor) -> AttentionMask:
        """The same mask with an addition to the scores."""
        T, S = bias_BHTS.shape[-2:]
        allowed = self.written_out(T, S, bias_BHTS.device)
        return AttentionMask(bias=bias_BHTS.masked_fill(~allowed, float("-inf")))


def memory_mask(query: Layout, memory: Layout) -> AttentionMask:
    """The mask by which a row reads another one: a token reads what has its segment, wherever it stands.

    A token whose segment is not in the memory (padding, as a rule) reads all of it: an empty softmax is not a number.
    """
    if query.segment is None and memory.segment is None:
        return AttentionMask()
    q_BT, k_BS = (torch.zeros_like(row.position) if row.segment is None else row.segment for row in (query, memory))
    allowed_BTS = q_BT[:, :, None] == k_BS[:, None, :]
    return AttentionMask((allowed_BTS | ~allowed_BTS.any(dim=-1, keepdim=True))[:, None])


def attention_mask(query: Layout, key: Layout, *, causal: bool) -> AttentionMask:
    """The mask by which the last T of S tokens read all S.

    The rule: a token reads its own segment; in a causal trunk, only what does not come after it.
    """
    allowed_BTS = None
    if query.segment is not None and key.segment is not None:
        allowed_BTS = query.segment[:, :, None] == key.segment[:, None, :]
    if causal:
        T, S = query.position.shape[1], key.position.shape[1]
        if query.order is not None and key.order is not None:
            past = key.order[:, None, :] <= query.order[:, :, None]
        elif allowed_BTS is None and T in (1, S):  # the common cases, training and decoding, need no mask in memory
            return AttentionMask(causal=T == S)
        else:
            past = torch.ones(1, T, S, dtype=torch.bool, device=query.position.device).tril(S - T)
        allowed_BTS = past if allowed_BTS is None else allowed_BTS & past
    return AttentionMask(None if allowed_BTS is None else allowed_BTS[:, None])

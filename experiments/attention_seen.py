"""Looking into attention while a model runs, without a line in the model for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor

from foundation_core.model import attention
from foundation_core.model.layout import AttentionMask


@contextmanager
def attention_seen() -> Iterator[list[Tensor]]:
    """A list that gets the weights (B, H, T, S) of every attention that runs inside, in the order in which they run.

    Attention gives the weighted sum of its values. Where value s is 1 in feature s and 0 elsewhere, that sum is the
    weights themselves: so each call is asked once more, with these values.
    """
    seen: list[Tensor] = []
    plain = attention.attend_fast

    def seeing(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask: AttentionMask, dropout: float = 0.0) -> Tensor:
        B, K, S, _ = k_BKSE.shape
        seen.append(plain(q_BHTE, k_BKSE, torch.eye(S).expand(B, K, S, S), mask).detach())
        return plain(q_BHTE, k_BKSE, v_BKSE, mask, dropout)

    with mock.patch.object(attention, "attend_fast", seeing):
        yield seen

"""Heads: what is read off the trunk's output."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_core.model.layout import PADDING, Layout
from foundation_core.model.stems import Borrowed


class VocabularyHead(nn.Module):
    """A logit for each entry of the vocabulary, from weights of its own."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, vocabulary, bias=False)

    def forward(self, x_BTD: Tensor, layout: Layout | None = None) -> Tensor:
        """(B, T, V) logits."""
        logits_BTV: Tensor = self.out(x_BTD)
        return logits_BTV


class TiedHead(nn.Module):
    """A logit for each entry of the vocabulary: how well the output matches its embedding.

    Args:
        embed: the stem's embedding, or one that borrows it.
        transform: what the output passes first, as in BERT. None: nothing.
        bias: whether a learned number is added to each logit.

    Source: Press and Wolf 2017.
    """

    def __init__(
        self, embed: nn.Embedding | Borrowed, transform: nn.Module | None = None, *, bias: bool = False
    ) -> None:
        super().__init__()
        self._embed = (embed,)  # in a tuple, outside the module tree: the weight keeps one name
        self.transform = transform
        self.bias = nn.Parameter(torch.zeros(embed.weight.shape[0])) if bias else None

    @property
    def weight(self) -> Tensor:
        """(V, D), the stem's."""
        return self._embed[0].weight

    def forward(self, x_BTD: Tensor, layout: Layout | None = None) -> Tensor:
        """(B, T, V) logits."""
        return F.linear(x_BTD if self.transform is None else self.transform(x_BTD), self.weight, self.bias)


class PatchHead(nn.Module):
    """The values of each patch."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, values)

    def forward(self, x_BPD: Tensor, layout: Layout | None = None) -> Tensor:
        """(B, P, C x h x w), ordered as `PatchStem.patches` orders them."""
        values_BPN: Tensor = self.out(x_BPD)
        return values_BPN


Pool = Callable[[Tensor, Layout], Tensor]
"""(x_BTD, layout) -> x_BD: one vector for a row."""


def mean_of_tokens(x_BTD: Tensor, layout: Layout) -> Tensor:
    """(B, D): the mean over the tokens that are there."""
    if layout.segment is None:
        return x_BTD.mean(dim=1)
    there_BT1 = (layout.segment != PADDING)[..., None]
    return (x_BTD * there_BT1).sum(dim=1) / there_BT1.sum(dim=1).clamp(min=1)


def first_token(x_BTD: Tensor, layout: Layout) -> Tensor:
    """(B, D): the first token of the row, such as a class token."""
    return x_BTD[:, 0]


def last_token(x_BTD: Tensor, layout: Layout) -> Tensor:
    """(B, D): the last token that is there; in a causal trunk the only one that has read all others."""
    if layout.segment is None:
        return x_BTD[:, -1]
    T = x_BTD.shape[1]
    last_B = T - 1 - (layout.segment != PADDING).int().flip(1).argmax(dim=1)
    return x_BTD.take_along_dim(last_B[:, None, None], dim=1)[:, 0]


class PooledHead(nn.Module):
    """One prediction for a row: a linear layer on its pooled tokens."""

    def __init__(self, width: int, classes: int, pool: Pool = mean_of_tokens, *, bias: bool = True) -> None:
        super().__init__()
        self.pool = pool
        self.out = nn.Linear(width, classes, bias=bias)

    def forward(self, x_BTD: Tensor, layout: Layout) -> Tensor:
        """(B, classes) logits."""
        logits: Tensor = self.out(self.pool(x_BTD, layout))
        return logits

"""Objectives on values with a text beside them: tell which belong together, or write the text."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_core.model.layout import PADDING, Layout
from foundation_core.objectives.base import ALONE, IGNORE, Example, Objective, Ranks, Request, there
from foundation_core.objectives.language import summed_nats
from foundation_core.objectives.masked import place_in_segment

FORBIDDEN = float("-inf")


class Contrastive(Objective):
    """Of all texts of a batch tell the one that belongs to a picture, and of all pictures the one of a text.

    The loss of a row depends on every other row, so it is no sum over micro-batches: the joint batch is gathered over
    the ranks. Each rank computes the whole loss with its own rows alive and the others' as constants; its gradient is
    then its own part of the whole gradient, and the ranks' sum is all of it.

    Source: Radford et al. 2021, CLIP, figure 3.
    """

    decomposable = False
    unit = "pairs"

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """Values and tokens as they are; a row's label is whether it is a pair at all.

        Args:
            batch: values (N, C, H, W), tokens and segment (N, L), sample (N,).
        """
        is_pair_B, segment = there(batch), batch["segment"]
        layout = Layout(place_in_segment(segment), segment)
        inputs = {"values": batch["values"], "tokens": batch["tokens"], "layout": layout}
        return Example(inputs, torch.where(is_pair_B, 0, IGNORE), is_pair_B.sum())

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """float32 scalar: for this rank's pairs, half the nats of the right text, half those of the right picture."""
        left_BW, right_BW, scale = model(**example.inputs)
        left, right = gathered(left_BW.float(), ranks), gathered(right_BW.float(), ranks)
        is_pair = ranks.gather_over_ranks((example.labels != IGNORE).long()).flatten().bool()
        scale = scale.detach() + (scale - scale.detach()) / ranks.world  # every rank computes the whole loss
        match = (scale * left @ right.T).masked_fill(~is_pair[None, :], FORBIDDEN)
        back = (scale * right @ left.T).masked_fill(~is_pair[None, :], FORBIDDEN)
        answer = torch.where(is_pair, torch.arange(len(is_pair), device=left.device), IGNORE)
        nats = (_nats(match, answer) + _nats(back, answer)) / 2
        B = len(left_BW)
        mine = nats[ranks.rank * B : (ranks.rank + 1) * B].sum()
        return mine.detach() + (nats.sum() - nats.sum().detach())


class Captioning(Objective):
    """Write the text that belongs to values, token by token."""

    likelihood = True

    def __init__(self, start: int) -> None:
        self.start = start

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """The values as source; the text, moved by one, as input and label.

        Args:
            batch: values (N, C, H, W), tokens and segment (N, L), sample (N,).
        """
        segment, tokens = batch["segment"], batch["tokens"]
        labels = torch.where((segment != PADDING) & there(batch)[:, None], tokens, IGNORE)
        inputs = F.pad(tokens[:, :-1], (1, 0), value=self.start)
        layout = Layout(place_in_segment(segment), segment)
        return Example(
            {"source": batch["values"], "inputs": inputs, "layout": layout}, labels, (labels != IGNORE).sum()
        )

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """float32 scalar: the sum of -log p(token), in nats."""
        loss: Tensor = model(**example.inputs, finish=summed_nats(example.labels))
        return loss


def gathered(mine: Tensor, ranks: Ranks) -> Tensor:
    """(world x B, ...) the rows of all ranks in their order; a gradient passes to one's own alone."""
    others = ranks.gather_over_ranks(mine.detach())
    return torch.cat([mine if rank == ranks.rank else rows for rank, rows in enumerate(others)])


def _nats(logits: Tensor, answer: Tensor) -> Tensor:
    return F.cross_entropy(logits, answer, ignore_index=IGNORE, reduction="none")


def contrastive(request: Request) -> Contrastive:
    """The objective `contrastive`."""
    request.need_tokens()
    return Contrastive()


def captioning(request: Request) -> Captioning:
    """The objective `captioning`."""
    return Captioning(request.need_tokens().need("start"))

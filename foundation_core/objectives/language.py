"""Objectives that predict text from what stands before it: of a document, or behind a prefix that is read whole."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_core.errors import ConfigError
from foundation_core.fitting import prefix_misfit
from foundation_core.model.layout import PADDING, Layout, sequential
from foundation_core.model.transformer import Finish
from foundation_core.objectives.base import ALONE, IGNORE, Example, Objective, Ranks, Request
from foundation_core.objectives.keyed import uniform

_CHUNK_TOKENS = 512


class NextToken(Objective):
    """Predict each token from those before it.

    Args:
        separate_documents: whether documents packed into one row are hidden from each other. Either way, a document's
            first token is no label: nothing before it tells of it.
    """

    likelihood = True

    def __init__(self, separate_documents: bool = True) -> None:
        self.separate_documents = separate_documents

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """The first T tokens as input, the last T as labels; nothing here is random.

        Args:
            batch: tokens, segment (`PADDING` where there is none) and position, each (N, T + 1).
        """
        tokens, segment = batch["tokens"], batch["segment"]
        same_document = (segment[:, 1:] == segment[:, :-1]) & (segment[:, 1:] != PADDING)
        labels_BT = torch.where(same_document, tokens[:, 1:], IGNORE)
        inputs_BT = tokens[:, :-1]
        layout = sequential(inputs_BT)
        if self.separate_documents:
            layout = Layout(batch["position"][:, :-1], segment[:, :-1])
        return Example({"inputs": inputs_BT, "layout": layout}, labels_BT, same_document.sum())

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """float32 scalar: the sum of -log p(label), in nats."""
        loss: Tensor = model(**example.inputs, finish=summed_nats(example.labels))
        return loss


class Prefix(NextToken):
    """Predict the rest of each document, of which a first part is read whole: its tokens read each other both ways.

    How much of a document is its prefix is drawn for each anew, evenly. No model of its own: a prefix is an order.
    Source: Raffel et al. 2020, T5, section 3.2.1 (the prefix language model).
    """

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """As next token, with one order for a document's prefix, and labels behind it alone."""
        example = super().prepare(batch, seed)
        layout: Layout = example.inputs["layout"]
        segment_BT = layout.segment
        assert segment_BT is not None
        place_BT = torch.arange(segment_BT.shape[1], device=segment_BT.device).expand_as(segment_BT)
        begins_BT = F.pad(segment_BT[:, 1:] != segment_BT[:, :-1], (1, 0), value=True)
        first_BT = torch.where(begins_BT, place_BT, 0).cummax(dim=1).values
        length_BT = torch.zeros_like(place_BT).scatter_add(1, first_BT, torch.ones_like(place_BT)).gather(1, first_BT)
        share_BT = uniform(seed, "prefix", batch["sample"], segment_BT.shape[1]).gather(1, first_BT)
        last_BT = first_BT + (share_BT * (length_BT - 1)).long()  # of the prefix: one token at the least, not all
        order_BT = torch.where(place_BT <= last_BT, last_BT, place_BT)
        labels_BT = example.labels.masked_fill(place_BT < last_BT, IGNORE)
        prefixed = Layout(layout.position, segment_BT, order_BT)
        return Example({**example.inputs, "layout": prefixed}, labels_BT, (labels_BT != IGNORE).sum())


def next_token(request: Request) -> NextToken:
    """The objective `next_token`."""
    request.need_tokens()
    return NextToken()


def prefix(request: Request) -> Prefix:
    """The objective `prefix`."""
    request.need_tokens()
    if reason := prefix_misfit(request.model.trunk.position):
        raise ConfigError(f"prefix: {reason}", fix="choose one of these, or the objective next_token")
    return Prefix()


def summed_nats(labels: Tensor) -> Finish:
    """What a forward ends with, so that it gives the sum of -log p(label) over the labels that are not `IGNORE`.

    Logits are made and scored in pieces, which is faster and spares one tensor of all logits. Head and loss of
    2,048 tokens, vocabulary 8192, width 192, forward and backward on 2 threads: 149 ms in pieces of 512, 245 ms
    in one. Where no label is wanted, no logits are made: of masked tokens that is most of a row.
    """

    def summed(head: nn.Module, x_BTD: Tensor, layout: Layout) -> Tensor:
        wanted = labels != IGNORE
        # By the places, not by the labels: ranks that share the head's weights must call it equally often.
        pieces = ceil(labels.numel() / _CHUNK_TOKENS)
        x_pieces, label_pieces = x_BTD[wanted].tensor_split(pieces), labels[wanted].tensor_split(pieces)
        return torch.stack([_nats(head(x), label) for x, label in zip(x_pieces, label_pieces, strict=True)]).sum()

    return summed


def _nats(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels, reduction="sum")

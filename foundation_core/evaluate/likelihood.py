"""How well a language model predicts text that it has not seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from foundation_core.data.packing import Windows
from foundation_core.evaluate.metrics import LossSum
from foundation_core.objectives.base import IGNORE, Objective


def score_rows(
    model: nn.Module, objective: Objective, windows: Windows, rows: Tensor, token_bytes: Tensor, batch_rows: int = 16
) -> LossSum:
    """The summed loss over some rows; how they are batched does not change it.

    Args:
        model: as it is; the caller says whether it is in training mode.
        rows: indices into the windows.
        token_bytes: (V,) bytes of each token.
        batch_rows: rows of one forward pass.
    """
    batches = (windows.gather(chosen) for chosen in torch.split(rows, batch_rows))
    return score_batches(model, objective, batches, token_bytes)


def score_batches(
    model: nn.Module, objective: Objective, batches: Iterable[Mapping[str, Tensor]], token_bytes: Tensor
) -> LossSum:
    """The summed loss over batches of windows; rows of padding count nothing."""
    total = LossSum()
    with torch.no_grad():
        for batch in batches:
            example = objective.prepare(batch, seed=0)
            labels = example.labels[example.labels != IGNORE]
            nats = objective.loss(model, example).double().item()
            total += LossSum(nats, len(labels), int(token_bytes[labels.cpu()].sum()))
    return total

"""How well a model answers its own objective on data that it has not seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from foundation_core.data.loading.loader import Rows, on_device
from foundation_core.evaluate.metrics import LossSum
from foundation_core.objectives.base import ALONE, IGNORE, Objective, Ranks


def score_rows(
    model: nn.Module, objective: Objective, source: Rows, rows: Tensor, token_bytes: Tensor | None, batch_rows: int = 16
) -> LossSum:
    """The summed loss over some rows; how they are batched does not change it.

    Args:
        model: as it is; the caller says whether it is in training mode.
        rows: indices into the source.
        token_bytes: (V,) bytes of each token. None: there are no tokens.
        batch_rows: rows of one forward pass; all at once where the objective is not decomposable.
    """
    chosen = torch.split(rows, batch_rows if objective.decomposable else len(rows))
    batches = ({**source.gather(part), "sample": part} for part in chosen)
    return score_batches(model, objective, batches, token_bytes)


def score_batches(
    model: nn.Module,
    objective: Objective,
    batches: Iterable[Mapping[str, Tensor]],
    token_bytes: Tensor | None,
    ranks: Ranks = ALONE,
) -> LossSum:
    """The summed loss over batches of rows; rows of padding count nothing."""
    total = LossSum()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with torch.no_grad():
        for batch in batches:
            example = objective.prepare(on_device(batch, device), seed=0)
            loss = objective.loss(model, example, ranks).double().item()
            text_bytes = 0
            if objective.likelihood and token_bytes is not None:
                text_bytes = int(token_bytes[example.labels[example.labels != IGNORE].cpu()].sum())
            total += LossSum(loss, int(example.count), text_bytes)
    return total

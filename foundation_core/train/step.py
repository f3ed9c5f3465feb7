"""One optimizer step: the only place where gradients are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foundation_core.data.loader import on_device
from foundation_core.errors import DivergedError
from foundation_core.objectives.base import Objective
from foundation_core.train.engine import Engine


class StepReport(NamedTuple):
    """What a step did, summed over all ranks."""

    total: float
    labels: int
    grad_norm: float

    @property
    def loss(self) -> float:
        """Of one label."""
        return self.total / max(1, self.labels)


def train_step(
    engine: Engine, objective: Objective, batches: Sequence[Mapping[str, Tensor]], lr: float, seed: int
) -> StepReport:
    """Learn from this rank's micro-batches of one global batch.

    The loss is a sum over labels, divided once by the labels of all ranks and micro-batches. A mean of the
    micro-batches' means would weigh a label by how few others its row happened to have.

    Args:
        batches: this rank's micro-batches; every rank brings the same number.
        seed: keys masking and other randomness; the same on every rank, which the objective mixes with sample indices.

    Raises:
        DivergedError: the loss or the gradient is not finite, on any rank; no parameter moved on any of them.
    """
    examples = [objective.prepare(on_device(batch, engine.device), seed) for batch in batches]
    labels = engine.sum_over_ranks(torch.stack([example.count for example in examples]).sum().to(torch.int64))
    total = torch.zeros((), dtype=torch.float64, device=engine.device)
    for number, example in enumerate(examples, start=1):
        loss = objective.loss(engine.model, example, engine)
        whole = loss + objective.penalty(engine.model, example, engine)
        engine.backward(whole / labels.clamp(min=1), last=number == len(examples))
        total += loss.detach()
    total = engine.sum_over_ranks(total)
    if not math.isfinite(total.item()):
        raise DivergedError(
            f"the training loss is {total.item()}",
            fix="lower the learning rate, or look for documents that the objective cannot digest",
        )
    return StepReport(total.item(), int(labels.item()), engine.step(lr))

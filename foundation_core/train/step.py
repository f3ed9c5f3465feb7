"""One optimizer step: the only place where gradients are made.

    batches -> losses -> [ finite? no leap? ] -> gradients over all ranks -> [ finite? ] -> the optimizer moves

Both questions are answered by sums over all ranks, so that all ranks answer alike; a step that fails leaves no trace.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foundation_core.data.loading.loader import on_device
from foundation_core.errors import DivergedError, SpikeError
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
    engine: Engine,
    objective: Objective,
    batches: Sequence[Mapping[str, Tensor]],
    lr: float,
    seed: int,
    most_loss: float = math.inf,
) -> StepReport:
    """Learn from this rank's micro-batches of one global batch.

    The loss is a sum over labels, divided once by the labels of all ranks and micro-batches. A mean of the
    micro-batches' means would weigh a label by how few others its row happened to have.

    Args:
        batches: this rank's micro-batches; every rank brings the same number.
        seed: keys masking and other randomness; the same on every rank, which the objective mixes with sample indices.
        most_loss: of one label, from which nothing is learned.

    Raises:
        DivergedError: the loss or the gradient is not finite, on any rank; no parameter moved on any of them, and no
            gradient is kept.
        SpikeError: the loss is larger than it may be; the same holds.
    """
    examples = [objective.prepare(on_device(batch, engine.device), seed) for batch in batches]
    labels = engine.sum_over_ranks(torch.stack([example.count for example in examples]).sum().to(torch.int64))
    total = torch.zeros((), dtype=torch.float64, device=engine.device)
    for number, (batch, example) in enumerate(zip(batches, examples, strict=True), start=1):
        _seed_dropout(seed, batch)
        loss = objective.loss(engine.model, example, engine)
        whole = loss + objective.penalty(engine.model, example, engine)
        engine.backward(whole / labels.clamp(min=1), last=number == len(examples))
        total += loss.detach()
    report = StepReport(engine.sum_over_ranks(total).item(), int(labels.item()), 0.0)
    if not math.isfinite(report.total):
        engine.discard()
        raise DivergedError(
            f"the training loss is {report.total}",
            fix="lower the learning rate, or look for documents that the objective cannot digest",
        )
    if report.loss > most_loss:
        engine.discard()
        raise SpikeError(
            f"the training loss leapt to {report.loss:.4g}, above {most_loss:.4g}",
            fix="lower the learning rate, or set pretrain.recovery.spike to rewind or skip",
        )
    return report._replace(grad_norm=engine.step(lr))


def _seed_dropout(seed: int, batch: Mapping[str, Tensor]) -> None:
    """Key torch's own random numbers by the samples: the same micro-batch drops the same, whenever and wherever."""
    sample = int(batch["sample"][0]) if "sample" in batch else 0
    digest = hashlib.blake2b(f"{seed}/dropout/{sample}".encode(), digest_size=7).digest()
    torch.manual_seed(int.from_bytes(digest, "little"))

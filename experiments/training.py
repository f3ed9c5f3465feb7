"""The training loop of the experiments: the library's own engine and schedule, without shards or checkpoints."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from foundation_core.specs import OptimizerSpec
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.schedule import lr_at

SumAndCount = tuple[Tensor, int]
"""The summed nats of some labels, and how many they are."""


def learn(model: nn.Module, loss: Callable[[int], SumAndCount], steps: int, optimizer: OptimizerSpec) -> list[float]:
    """Nats per label of each step, while the model learned; it ends in evaluation mode.

    Args:
        loss: of a step's batch; which batch that is, it decides by the step alone.
    """
    engine = TorchEngine(model.train(), EngineRequest(optimizer))
    losses = []
    for step in range(steps):
        total, count = loss(step)
        engine.backward(total / count, last=True)
        engine.step(lr_at(step, steps, optimizer))
        losses.append(total.item() / count)
    model.eval()
    return losses

"""A training step of ours beside the best plain loop with theirs: same weights, same batch, same optimizer.

    step     our `train_step` in a `TorchEngine`, as the trainer runs it; theirs: forward, loss, backward, clip, AdamW
    layers   forward and backward of the model without the head over the vocabulary, loss and optimizer

Both sides make their example by the objective's `prepare`: somebody has to mask theirs too. A row is void unless the
outputs of the layers, the losses and the norms of the gradients are those of the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.core.timing import Clock, Comparison, compare
from foundation_core.interop.mapping import Table, to_ours
from foundation_core.objectives.base import Example, Objective
from foundation_core.specs import OptimizerSpec
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.optimizer import build_optimizer
from foundation_core.train.step import StepReport, train_step

BAR = 1.05
TOLERANCE = 1e-5
"""Of a difference, by the size of what differs; measured: 1.2e-6 at the most."""
SEED, LR = 0, 1e-4
OPTIMIZER = OptimizerSpec(lr=LR)


@dataclass(frozen=True)
class Size:
    """How large the models and batches are."""

    width: int = 256
    depth: int = 4
    heads: int = 4
    tokens: int = 128
    rows: int = 8
    vocabulary: int = 8192


TINY = Size(width=32, depth=1, heads=2, tokens=16, rows=2, vocabulary=64)


def output_of_layers(model: Any, example: Example) -> Tensor:
    """What our trunk says of each token, before the head."""
    output: Tensor = model(**example.inputs, finish=lambda head, x, layout: x)
    return output


@dataclass(frozen=True)
class Pair:
    """A model of theirs, the same of ours, and what they are trained for.

    Args:
        table: their weights under our names.
        their_loss: (model, example) -> mean loss of a label; if there are penalties, (1 + penalties,) with these.
        their_layers: (model, example) -> what `our_layers` gives.
    """

    name: str
    theirs: nn.Module
    ours: nn.Module
    table: Table
    objective: Objective
    batch: Mapping[str, Tensor]
    their_loss: Callable[[Any, Example], Tensor]
    their_layers: Callable[[Any, Example], Tensor]
    our_layers: Callable[[Any, Example], Tensor] = output_of_layers


class Row(NamedTuple):
    """A line of the table.

    Args:
        difference: the worst relative difference of outputs, losses and gradients.
    """

    name: str
    layers: Comparison
    step: Comparison
    difference: float

    @property
    def met(self) -> bool:
        """Whether the step is within the bar, and the two sides are the same model."""
        return self.step.ratio <= BAR and not self.void

    @property
    def void(self) -> bool:
        """Whether the sides do different things."""
        return not self.difference <= TOLERANCE

    def line(self) -> str:
        """As it is printed."""
        low, high = self.step.quartiles
        verdict = "VOID" if self.void else "met" if self.met else "MISSED"
        times = f"{_milliseconds(self.step.ours)} {_milliseconds(self.step.theirs)}"
        return (
            f"{self.name:<34} {times} {self.step.ratio:6.2f} ({low:.2f} to {high:.2f})  "
            f"{self.layers.ratio:6.2f}  {self.difference:8.1e}  {verdict}"
        )


HEADER = (
    f"{'training step':<34} {'ours':>8} {'theirs':>8} {'ratio':>6} {'(quartiles)':<15} {'layers':>6}  {'differs':>8}"
    f"  bar {BAR}"
)


def measure(pair: Pair, pairs: int, clock: Clock) -> Row:
    """The line of a pair."""
    pair.ours.load_state_dict(to_ours(pair.theirs.state_dict(), pair.table))
    pair.ours.train()
    pair.theirs.train()
    layers, apart = _layers(pair, pairs, clock)
    optimizer = build_optimizer(pair.theirs, OPTIMIZER)
    engine = TorchEngine(pair.ours, EngineRequest(OPTIMIZER))

    def ours() -> StepReport:
        return train_step(engine, pair.objective, [pair.batch], LR, SEED)

    def theirs() -> StepReport:
        example = pair.objective.prepare(pair.batch, SEED)
        loss, *_ = losses = pair.their_loss(pair.theirs, example).view(-1)
        losses.sum().backward()
        norm = nn.utils.clip_grad_norm_(pair.theirs.parameters(), OPTIMIZER.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return StepReport(loss.item(), 1, norm.item())

    first, their_first = ours(), theirs()
    apart = max(apart, _relative(first.loss, their_first.loss), _relative(first.grad_norm, their_first.grad_norm))
    return Row(pair.name, layers, compare(ours, theirs, pairs, clock), apart)


def _layers(pair: Pair, pairs: int, clock: Clock) -> tuple[Comparison, float]:
    """Times of the layers alone, and how far their outputs are apart."""
    example = pair.objective.prepare(pair.batch, SEED)
    with torch.no_grad():
        found, expected = pair.our_layers(pair.ours, example), pair.their_layers(pair.theirs, example)
    gradient = torch.randn(found.shape, generator=torch.Generator().manual_seed(SEED))

    def once(model: nn.Module, layers: Callable[[Any, Example], Tensor]) -> None:
        layers(model, example).backward(gradient)
        model.zero_grad(set_to_none=True)

    times = compare(
        lambda: once(pair.ours, pair.our_layers), lambda: once(pair.theirs, pair.their_layers), pairs, clock
    )
    return times, ((found - expected).abs().max() / expected.abs().max()).item()


def _relative(found: float, expected: float) -> float:
    return abs(found - expected) / abs(expected)


def _milliseconds(seconds: list[float]) -> str:
    return f"{sorted(seconds)[len(seconds) // 2] * 1e3:6.1f}ms"

"""One optimizer step: a sum and a count, divided once; and nothing moves when a number is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from foundation_core.data.loading.loader import Loader, on_device
from foundation_core.data.loading.order import Order
from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.errors import DivergedError
from foundation_core.objectives.base import ALONE, Example, Ranks
from foundation_core.objectives.language import NextToken
from foundation_core.specs import OptimizerSpec
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.step import train_step
from tests.support.training import MODEL, InfiniteGradient, tiny_model, weights_sha256

ROWS = 12
Batches = Sequence[dict[str, Tensor]]


class Recording(TorchEngine):
    """The torch engine, which also keeps the gradient that a step was made with."""

    def step(self, lr: float) -> float:
        """Keep the gradient, then step."""
        self.gradient = torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None]).clone()
        return super().step(lr)


def _engine() -> Recording:
    return Recording(tiny_model(), EngineRequest(OptimizerSpec(clip_norm=1e9)))


@pytest.fixture(scope="module")
def windows(token_corpus: Path) -> Windows:
    return Windows(ShardDataset(token_corpus), MODEL.context_tokens)


def _batches(windows: Windows, micro_batch_rows: int) -> Batches:
    batches = Loader(windows, Order(len(windows), 0), ROWS, micro_batch_rows).micro_batches(0)
    return [on_device(batch, torch.device("cpu")) for batch in batches]


def _gradient(batches: Batches) -> Tensor:
    engine = _engine()
    train_step(engine, NextToken(), batches, 1e-3, seed=0)
    return engine.gradient


def _mean_of_means(batches: Batches) -> Tensor:
    """The gradient of what many trainers do: the mean of each micro-batch's mean loss."""
    engine, objective = _engine(), NextToken()
    for number, batch in enumerate(batches, start=1):
        example = objective.prepare(batch, seed=0)
        mean = objective.loss(engine.model, example) / example.count.clamp(min=1)
        engine.backward(mean / len(batches), last=number == len(batches))
    engine.step(1e-3)
    return engine.gradient


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("micro_batch_rows", [1, 2, 5])
def test_the_gradient_does_not_depend_on_micro_batching(windows: Windows, micro_batch_rows: int) -> None:
    whole, parts = _batches(windows, ROWS), _batches(windows, micro_batch_rows)
    assert len(whole) == 1
    assert len(parts) == math.ceil(ROWS / micro_batch_rows)
    # Measured: 1.8e-7 at the most. The control beside it: 0.23 at the least, 0.60 in rows of one.
    assert _difference(_gradient(parts), _gradient(whole)) < 2e-6
    assert _difference(_mean_of_means(parts), _gradient(whole)) > 0.1


def test_the_rows_of_that_batch_have_very_unequal_numbers_of_labels(windows: Windows) -> None:
    counts = [int(NextToken().prepare(batch, seed=0).count) for batch in _batches(windows, 1)]
    assert max(counts) >= 3 * min(counts)


def test_the_report_is_the_sum_and_the_count_whatever_the_micro_batches(windows: Windows) -> None:
    whole = train_step(_engine(), NextToken(), _batches(windows, ROWS), 1e-3, seed=0)
    parts = train_step(_engine(), NextToken(), _batches(windows, 1), 1e-3, seed=0)
    assert parts.labels == whole.labels == sum(int(NextToken().prepare(b, 0).count) for b in _batches(windows, 5))
    assert parts.total == pytest.approx(whole.total, rel=1e-6)
    assert whole.loss == whole.total / whole.labels
    assert whole.loss == pytest.approx(math.log(48), rel=0.1)  # a fresh model knows nothing of its 48 tokens


def test_the_norm_that_is_reported_is_the_one_before_clipping(windows: Windows) -> None:
    free, clipped = _engine(), _engine()
    clipped.clip_norm = 1e-3
    reports = [train_step(engine, NextToken(), _batches(windows, 4), 1e-3, seed=0) for engine in (free, clipped)]
    assert reports[0].grad_norm == reports[1].grad_norm == pytest.approx(float(free.gradient.norm()), rel=1e-5)
    assert reports[0].grad_norm > clipped.clip_norm


def test_a_batch_without_a_label_is_a_step_of_loss_zero(windows: Windows) -> None:
    (batch,) = _batches(windows, ROWS)
    batch["segment"].fill_(-1)
    report = train_step(_engine(), NextToken(), [batch], 1e-3, seed=0)
    assert (report.total, report.labels, report.loss, report.grad_norm) == (0.0, 0, 0.0, 0.0)


class InfiniteLoss(NextToken):
    """An objective whose loss is not a number from the second micro-batch on."""

    calls = 0

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The real loss once, then NaN."""
        self.calls += 1
        return super().loss(model, example, ranks) * (1.0 if self.calls == 1 else float("nan"))


@pytest.mark.parametrize(
    ("objective", "message"), [(InfiniteLoss(), "training loss is nan"), (InfiniteGradient(), "gradient norm is nan")]
)
def test_a_number_that_is_not_finite_stops_the_training_before_a_parameter_moves(
    windows: Windows, objective: NextToken, message: str
) -> None:
    engine = _engine()
    train_step(engine, NextToken(), _batches(windows, 4), 1e-2, seed=0)  # so that the optimizer has its moments
    before = weights_sha256(engine.weights())
    with pytest.raises(DivergedError, match=message):
        train_step(engine, objective, _batches(windows, 4), 1e-2, seed=0)
    assert weights_sha256(engine.weights()) == before
    assert all(bool(torch.isfinite(weights).all()) for weights in engine.weights().values())

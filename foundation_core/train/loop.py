"""The training loop: the page to read first.

    restore -> [ step -> log -> validate? -> save? -> stop? ] x steps -> best weights

The n-th batch is a function of n, the learning rate is a function of n, randomness is keyed by sample: the loop's
whole state is the step, the labels seen and the best validation so far. That is why resuming is arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from foundation_core.errors import Stopped
from foundation_core.events import EventLog
from foundation_core.objectives.base import Objective
from foundation_core.specs import OptimizerSpec
from foundation_core.tracking.base import Tracker
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import Engine
from foundation_core.train.schedule import lr_at
from foundation_core.train.step import StepReport, train_step


class Batches(Protocol):
    """Gives this rank's micro-batches of any step."""

    def micro_batches(self, step: int) -> list[dict[str, Tensor]]:
        """The micro-batches of optimizer step `step`, from 0."""


class Scores(Protocol):
    """What a validation found."""

    @property
    def loss(self) -> float:
        """Nats per label."""

    @property
    def bits_per_byte(self) -> float:
        """The tokenizer-free loss."""


@dataclass(frozen=True)
class Plan:
    """How long to train, and how often to look and to save."""

    steps: int
    optimizer: OptimizerSpec
    seed: int
    validate_every_steps: int
    checkpoint_every_steps: int


@dataclass
class Progress:
    """The loop's whole state, beside the engine's."""

    step: int = 0
    labels: int = 0
    best_step: int = 0
    best_bits_per_byte: float = float("inf")
    step_seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Surroundings:
    """Where the loop reports and whom it asks."""

    tracker: Tracker
    events: EventLog
    stop_requested: Callable[[], bool]
    keep_best: Callable[[int], None]
    """Called on every rank when the validation is the best so far, with the step."""
    validate: Callable[[], Scores]


def train(
    engine: Engine, objective: Objective, batches: Batches, plan: Plan, checkpoints: Checkpoints, around: Surroundings
) -> Progress:
    """Train to the last step, from the newest checkpoint if there is one.

    Raises:
        Stopped: somebody asked; a checkpoint of the last whole step was saved first.
        DivergedError: the loss or gradient is not finite; the last checkpoint is from before.
    """
    progress = _restored(checkpoints)
    if progress.step:
        around.events.say(f"continuing from the checkpoint of step {progress.step}")
    while progress.step < plan.steps:
        lr = lr_at(progress.step, plan.steps, plan.optimizer)
        start = time.perf_counter()
        engine.model.train()
        report = train_step(engine, objective, batches.micro_batches(progress.step), lr, plan.seed)
        progress.step_seconds.append(time.perf_counter() - start)
        progress.step += 1
        progress.labels += report.labels
        _log(around, progress, plan, report, lr)

        last = progress.step == plan.steps
        stop = _any_rank_wants_to_stop(engine, around)
        if last or progress.step % plan.validate_every_steps == 0:
            _validate(engine, around, progress)
        if last or stop or progress.step % plan.checkpoint_every_steps == 0:
            checkpoints.save(progress.step, _state(progress))
        if stop and not last:
            raise Stopped(f"training stopped after step {progress.step} of {plan.steps}, saved")
    return progress


def _validate(engine: Engine, around: Surroundings, progress: Progress) -> None:
    engine.model.eval()
    with torch.no_grad():
        scores = around.validate()
    around.tracker.metrics(
        {"validation/loss_nats": scores.loss, "validation/bits_per_byte": scores.bits_per_byte}, progress.step
    )
    if scores.bits_per_byte < progress.best_bits_per_byte:
        progress.best_step, progress.best_bits_per_byte = progress.step, scores.bits_per_byte
        around.keep_best(progress.step)


def _log(around: Surroundings, progress: Progress, plan: Plan, report: StepReport, lr: float) -> None:
    around.tracker.metrics(
        {
            "train/loss_nats": report.loss,
            "train/lr": lr,
            "train/grad_norm": report.grad_norm,
            "train/tokens": progress.labels,
            "train/tokens_per_second": report.labels / progress.step_seconds[-1],
        },
        progress.step,
    )
    around.events.progress(progress.step, plan.steps, "steps", f"loss {report.loss:.3f}")


def _any_rank_wants_to_stop(engine: Engine, around: Surroundings) -> bool:
    """Ranks must agree, or some would wait for ever in the next exchange of gradients."""
    vote = torch.tensor(float(around.stop_requested()), device=engine.device)
    return bool(engine.sum_over_ranks(vote).item())


def _state(progress: Progress) -> dict[str, float | int | None]:
    best = progress.best_bits_per_byte
    return {
        "labels": progress.labels,
        "best_step": progress.best_step,
        "best_bits_per_byte": best if best != float("inf") else None,
    }


def _restored(checkpoints: Checkpoints) -> Progress:
    found = checkpoints.restore()
    if found is None:
        return Progress()
    step, state = found
    best = state["best_bits_per_byte"]
    return Progress(step, state["labels"], state["best_step"], float("inf") if best is None else best)

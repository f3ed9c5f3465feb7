"""The training loop: the page to read first.

    restore -> [ step -> log -> validate? -> save? -> stop? ] x steps (or until a budget is spent) -> best weights
                  |          asked to stop? saved at once, and validated when the training goes on
                  failed? again, or left out, or begun anew without what made it fail: recovery.py

The n-th batch is a function of n, the learning rate is a function of n, randomness is keyed by sample: the loop's
whole state is the step, the labels and seconds used, the best validation so far and whether one is still owed. That is
why resuming is arithmetic.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch

from foundation_core.errors import DivergedError, Stopped
from foundation_core.events import EventLog
from foundation_core.objectives.base import Objective
from foundation_core.specs import OptimizerSpec
from foundation_core.specs.recovery import RecoverySpec
from foundation_core.tracking.base import Tracker
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import Engine
from foundation_core.train.goodput import SAVE_SECONDS, STEP_SECONDS, TOKENS, VALIDATION_SECONDS
from foundation_core.train.ledger import Ledger
from foundation_core.train.recovery import Batches, Faults, Recovery
from foundation_core.train.schedule import lr_at
from foundation_core.train.step import StepReport
from foundation_core.train.votes import agree
from foundation_core.train.watch import Unwatched, Watch

_BUDGETS = ("max_tokens", "max_seconds")


class Scores(Protocol):
    """What a validation found."""

    @property
    def loss(self) -> float:
        """Of one label: by it the best is chosen."""

    def named(self, unit: str) -> dict[str, float]:
        """The figures by the last part of a metric's name."""


@dataclass(frozen=True)
class Plan:
    """How long to train, and how often to look and to save."""

    steps: int
    optimizer: OptimizerSpec
    seed: int
    validate_every_steps: int
    checkpoint_every_steps: int
    max_seconds: float | None = None
    max_tokens: int | None = None
    recovery: RecoverySpec = field(default_factory=RecoverySpec)
    checkpoint_every_minutes: float | None = None

    def is_late(self, progress: Progress) -> bool:
        """Whether the last checkpoint is so long ago that it is time for one between two regular ones."""
        minutes = (progress.seconds - progress.saved_seconds) / 60
        return self.checkpoint_every_minutes is not None and minutes >= self.checkpoint_every_minutes

    def spent_budget(self, progress: Progress) -> str:
        """The budget that the progress has used up, by the name of its field; empty while none is."""
        if self.max_tokens is not None and progress.labels >= self.max_tokens:
            return "max_tokens"
        if self.max_seconds is not None and progress.seconds >= self.max_seconds:
            return "max_seconds"
        return ""


@dataclass
class Progress:
    """The loop's whole state, beside the engine's.

    Args:
        best_scores: what the best validation found, by the last part of a metric's name.
        seconds: of steps, validations and saves, earlier tries included as far as their last checkpoint.
        ended_by: the budget that ended the training before its last step, or empty.
        faults: what went wrong so far.
        saved_seconds: what `seconds` was at the last checkpoint.
        owes_validation: whether `step` is still to be validated: somebody asked to stop, and saving came first.
    """

    step: int = 0
    labels: int = 0
    best_step: int = 0
    best_loss: float = float("inf")
    best_scores: dict[str, float] = field(default_factory=dict)
    step_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0
    ended_by: str = ""
    faults: Faults = field(default_factory=Faults)
    saved_seconds: float = 0.0
    owes_validation: bool = False


@dataclass(frozen=True)
class Surroundings:
    """Where the loop reports and whom it asks."""

    tracker: Tracker
    events: EventLog
    stop_requested: Callable[[], bool]
    keep_best: Callable[[int], None]
    """Called on every rank when the validation is the best so far, with the step."""
    validate: Callable[[int], Scores]
    """Is given the most rows of a forward pass."""
    validation_rows: int
    """Rows of a validation that fall to this rank."""
    watch: Watch = field(default_factory=Unwatched)
    clock: Callable[[], float] = time.perf_counter
    """Seconds since some moment: what `max_seconds` is measured by."""
    ledger: Ledger | None = None
    """Names documents that make steps fail; None where they have no names."""


def train(
    engine: Engine, objective: Objective, batches: Batches, plan: Plan, checkpoints: Checkpoints, around: Surroundings
) -> Progress:
    """Train to the last step or to the end of a budget, from the newest checkpoint if there is one.

    Raises:
        Stopped: somebody asked; a checkpoint of the last whole step was saved first, before any validation.
        DivergedError: the loss or gradient is not finite, and the last checkpoint is from before; or no validation was.
        RewindError: documents were found out; begun again with a new engine, the training goes on without them.
    """
    around.watch.begins("restore", 0)
    if around.ledger:
        checkpoints.forget(around.ledger.allows)
    own = around.watch.own
    batches, objective = own.counted(batches, "micro_batches"), own.counted(objective, "loss")
    progress = _restored(checkpoints, plan)
    recovery = Recovery(
        engine, objective, batches, plan.recovery, around.events, progress.faults, around.watch.begins, around.ledger
    )
    if progress.step:
        around.events.say(f"continuing from the checkpoint of step {progress.step}")
    began = around.clock() - progress.seconds
    while progress.step < plan.steps and not progress.ended_by:
        if progress.owes_validation:  # of the step that the training was asked to stop at
            _validate(engine, objective.unit, around, progress, recovery)
        lr = lr_at(progress.step, plan.steps, plan.optimizer)
        start = time.perf_counter()
        engine.model.train()
        report = recovery.step(progress.step, lr, plan.seed, progress.best_step)
        progress.step_seconds.append(time.perf_counter() - start)
        progress.step += 1
        if report is not None:
            progress.labels += report.labels
            _log(around, progress, plan, report, f"train/loss_{objective.unit}", lr)

        progress.seconds = around.clock() - began
        stop, progress.ended_by, late = _agreed(engine, around, plan, progress, checkpoints)
        last, loss = progress.step == plan.steps or bool(progress.ended_by), None
        progress.owes_validation = last or progress.step % plan.validate_every_steps == 0
        if progress.owes_validation and not stop:  # who asks to stop may have seconds, and a save is worth more
            loss = _validate(engine, objective.unit, around, progress, recovery)
        regular = last or late or progress.step % plan.checkpoint_every_steps == 0
        if regular or stop:
            progress.seconds = progress.saved_seconds = around.clock() - began
            _save(checkpoints, around, progress, loss, ephemeral=not regular)
        if stop:
            _finish(checkpoints, around, progress)
            if not last:
                raise Stopped(f"training stopped after step {progress.step} of {plan.steps}, saved")
    if progress.owes_validation:  # of the last step
        _validate(engine, objective.unit, around, progress, recovery)
        progress.seconds = around.clock() - began
    _finish(checkpoints, around, progress)
    around.watch.begins("end", progress.step)
    if not progress.best_scores:
        raise DivergedError("no validation was finite: there are no best weights", fix="lower the learning rate")
    if progress.ended_by:
        limit = getattr(plan, progress.ended_by)
        around.events.say(f"{progress.ended_by}={limit} is used up: ended after step {progress.step} of {plan.steps}")
    return progress


def _validate(engine: Engine, unit: str, around: Surroundings, progress: Progress, recovery: Recovery) -> float:
    start = time.perf_counter()
    engine.model.eval()
    with torch.no_grad():
        scores = recovery.validation(around.validate, around.validation_rows, progress.step - 1)
    found = {f"validation/{name}": value for name, value in scores.named(unit).items()}
    if not math.isfinite(scores.loss):  # told, and not fatal: nothing learns from it, and it is never the best
        around.events.say(f"the validation loss of step {progress.step} is {scores.loss}: it is not counted")
    elif scores.loss < progress.best_loss:
        progress.best_step, progress.best_loss, progress.best_scores = progress.step, scores.loss, scores.named(unit)
        around.keep_best(progress.step)
    progress.owes_validation = False
    finite = {name: value for name, value in found.items() if math.isfinite(value)}
    around.tracker.metrics({**finite, VALIDATION_SECONDS: time.perf_counter() - start}, progress.step)
    return scores.loss


def _save(
    checkpoints: Checkpoints, around: Surroundings, progress: Progress, loss: float | None, *, ephemeral: bool
) -> None:
    start = time.perf_counter()
    around.watch.begins("finish", progress.step)
    checkpoints.finish()  # the one before, which a disk may take long for
    around.watch.begins("save", progress.step)
    checkpoints.save(progress.step, _state(progress), loss=loss, ephemeral=ephemeral)
    around.tracker.metrics({SAVE_SECONDS: time.perf_counter() - start}, progress.step)


def _finish(checkpoints: Checkpoints, around: Surroundings, progress: Progress) -> None:
    """Wait for the checkpoint that is being written: on disk, and in the store."""
    start = time.perf_counter()
    around.watch.begins("store", progress.step)  # said once: it has the time of a first one
    checkpoints.finish(everywhere=True)
    around.tracker.metrics({SAVE_SECONDS: time.perf_counter() - start}, progress.step)


def _log(around: Surroundings, progress: Progress, plan: Plan, report: StepReport, loss: str, lr: float) -> None:
    around.tracker.metrics(
        {
            loss: report.loss,
            "train/lr": lr,
            "train/grad_norm": report.grad_norm,
            TOKENS: progress.labels,
            STEP_SECONDS: progress.step_seconds[-1],
            "train/tokens_per_second": report.labels / progress.step_seconds[-1],
        },
        progress.step,
    )
    around.events.progress(progress.step, plan.steps, "steps", f"loss {report.loss:.3f}")


class _Agreed(NamedTuple):
    stop: bool
    ended_by: str
    late: bool


def _agreed(engine: Engine, around: Surroundings, plan: Plan, progress: Progress, checkpoints: Checkpoints) -> _Agreed:
    """Whether any rank was asked to stop, whether by the clock of rank 0 a budget is spent or a checkpoint late."""
    spent = plan.spent_budget(progress) if engine.rank == 0 and progress.step < plan.steps else ""
    votes = {"stop": around.stop_requested(), **{budget: spent == budget for budget in _BUDGETS}}
    votes["late"] = engine.rank == 0 and plan.is_late(progress)
    sums = agree(engine, {**votes, **checkpoints.votes(), **around.watch.votes()}, engine.device)
    checkpoints.hear(sums)
    around.watch.agreed(sums, progress.step)
    return _Agreed(bool(sums["stop"]), next((budget for budget in _BUDGETS if sums[budget]), ""), bool(sums["late"]))


def _state(progress: Progress) -> dict[str, Any]:
    return {
        "labels": progress.labels,
        "best_step": progress.best_step,
        "best_loss": progress.best_loss if progress.best_scores else None,
        "best_scores": progress.best_scores,
        "seconds": progress.seconds,
        "ended_by": progress.ended_by,
        "faults": progress.faults.to_json(),
        "owes_validation": progress.owes_validation,
    }


def _restored(checkpoints: Checkpoints, plan: Plan) -> Progress:
    """The progress of the newest checkpoint; one that a budget ended is over, unless the plan has a larger one now."""
    found = checkpoints.restore()
    if found is None:
        return Progress()
    step, state = found
    best = float("inf") if state["best_loss"] is None else state["best_loss"]
    progress = Progress(step, state["labels"], state["best_step"], best, state["best_scores"])
    progress.seconds = state.get("seconds", 0.0)  # checkpoints of before there were budgets have none
    progress.faults = Faults(**state.get("faults", {}))
    progress.saved_seconds = progress.seconds
    progress.owes_validation = state.get("owes_validation", False)  # those of before it could be owed owe none
    progress.ended_by = plan.spent_budget(progress) if state.get("ended_by") else ""
    return progress

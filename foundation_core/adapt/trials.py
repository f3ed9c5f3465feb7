"""Trials: one task model each, trained on one thread, so that many run side by side and each gives the same numbers.

    train -> trials/<name>.safetensors -> trials/<name>.json (answers on validation)
    test, only if asked                -> tests/<name>.json  (answers on the test)

The test is scored apart from the training, by whoever has made his choice on validation. What is written is never done
again: a stage that was interrupted calls the same trials and gets at once what is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from foundation_core.adapt.tasks import Budget, Tally, Task, TaskData, TaskRows, find_task, load_task
from foundation_core.adapt.transfer import Pretrained, freeze
from foundation_core.data.loading.order import Order
from foundation_core.events import EventLog
from foundation_core.files import read_json, write_json
from foundation_core.specs import FinetuneSpec
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.schedule import lr_at
from foundation_core.train.step import train_step
from foundation_core.train.threads import one_thread
from foundation_core.weights import load_weights, save_weights


class Arm(NamedTuple):
    """One side of the comparison: where the trunk starts, and how many labels it learns from."""

    pretrained: bool
    labels: Budget

    @property
    def name(self) -> str:
        """pretrained-few, scratch-few, pretrained-all or scratch-all."""
        return f"{'pretrained' if self.pretrained else 'scratch'}-{self.labels}"


def arms_of(task: Task) -> tuple[Arm, ...]:
    """Every side of a task's comparison."""
    return tuple(Arm(pretrained, labels) for labels in task.budgets for pretrained in (True, False))


@dataclass(frozen=True)
class Trial:
    """One training of an arm.

    Args:
        lr: peak learning rate.
        seed: of the head, of a fresh trunk, of the order of the rows, and of which rows are the few.
    """

    arm: Arm
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """The stem of the trial's files."""
        return f"{self.arm.name}-lr{self.lr:g}-seed{self.seed}"


@dataclass(frozen=True)
class TrialPiece:
    """A trial, and all that a process needs to run it.

    Args:
        folder: where the task lies and trials are written.
        test: whether the choice is made, so that the test may be scored.
    """

    trial: Trial
    spec: FinetuneSpec
    trunk: Pretrained
    folder: Path
    test: bool

    def __str__(self) -> str:
        """What is trained."""
        return f"trial {self.trial.name}"

    @property
    def trained_file(self) -> Path:
        """What commits the training."""
        return self.folder / "trials" / f"{self.trial.name}.json"

    @property
    def tested_file(self) -> Path:
        """What commits the score on the test."""
        return self.folder / "tests" / f"{self.trial.name}.json"

    @property
    def weights_file(self) -> Path:
        """The trained task model."""
        return self.folder / "trials" / f"{self.trial.name}.safetensors"


@dataclass(frozen=True)
class TrialResult:
    """What a trial found.

    Args:
        losses: training loss of each step, that of one label.
        test: None while the choice is not made.
    """

    trial: Trial
    losses: list[float]
    validation: Tally
    test: Tally | None


def run_trial(piece: TrialPiece) -> TrialResult:
    """The result of a trial, from its files as far as they are there."""
    with one_thread():
        if not piece.trained_file.exists():
            _train_and_commit(piece)
        if piece.test and not piece.tested_file.exists():
            _test_and_commit(piece)
    trained = read_json(piece.trained_file)
    test = read_json(piece.tested_file) if piece.test else None
    return TrialResult(piece.trial, trained["losses"], trained["validation"], test)


def _train_and_commit(piece: TrialPiece) -> None:
    task, data = find_task(piece.spec.task), load_task(piece.folder)
    model = task.model(piece.trunk, data.facts, piece.trial.seed)
    if piece.trial.arm.pretrained:
        task.take_over(model, piece.trunk.weights())
    freeze(model, piece.spec.adapt)
    EventLog(piece.folder).write("trial", name=piece.trial.name)
    losses = _train(model, task, data, piece)
    digest = save_weights(piece.weights_file, model.state_dict(), {"trial": piece.trial.name})
    body = {"trial": piece.trial.name, "weights": digest, "losses": losses}
    write_json(piece.trained_file, {**body, "validation": task.answer(model, data.validation, data.facts)})


def _test_and_commit(piece: TrialPiece) -> None:
    task, data = find_task(piece.spec.task), load_task(piece.folder)
    model = task.model(piece.trunk, data.facts, piece.trial.seed)
    model.load_state_dict(load_weights(piece.weights_file, read_json(piece.trained_file)["weights"]))
    write_json(piece.tested_file, task.answer(model, data.test, data.facts))


def training_rows(task: Task, data: TaskData, labels: Budget, seed: int) -> TaskRows:
    """What an arm learns from."""
    return data.train if labels == "all" else data.train.select(task.few(data, seed))


def _train(model: nn.Module, task: Task, data: TaskData, piece: TrialPiece) -> list[float]:
    """Train in place; the loss of each step."""
    trial, spec = piece.trial, piece.spec
    rows = training_rows(task, data, trial.arm.labels, trial.seed)
    optimizer = spec.optimizer.model_copy(update={"lr": trial.lr})
    engine = TorchEngine(model, EngineRequest(optimizer, "float32", spec.batch_rows))
    objective, order = task.objective(piece.trunk, data.facts), Order(len(rows), trial.seed)
    model.train()
    losses = []
    for step in range(spec.steps):
        first = step * spec.batch_rows
        chosen, number = order.take(first, spec.batch_rows), torch.arange(first, first + spec.batch_rows)
        batch = {**rows.batch(chosen), "sample": number}  # a row that comes again is another sample to what is random
        report = train_step(engine, objective, [batch], lr_at(step, spec.steps, optimizer), trial.seed)
        losses.append(report.loss)
    return losses

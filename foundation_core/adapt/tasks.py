"""Tasks: what a pretrained model is asked to learn, on labelled data made from a corpus, on the corpus's own split.

    corpus --Task.data--> TaskData --Task.model, Task.objective--> a trained model --Task.answer--> Tally --> scores

A task is found by name (`foundation.tasks`) and called without arguments. It is one object that says all that a stage
must know of it; a stage asks it and never asks which one it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from foundation_core import plugins
from foundation_core.adapt.scores import Score
from foundation_core.adapt.transfer import Pretrained
from foundation_core.data.loading.order import Order
from foundation_core.data.split import SPLITS, Split
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE, load_tokenizer
from foundation_core.errors import ConfigError
from foundation_core.files import committed, read_json, write_json
from foundation_core.objectives.base import Objective
from foundation_core.specs import FinetuneSpec
from foundation_core.weights import load_weights, save_weights

TASK_FILE, ROWS_FILE = "task.json", "rows.safetensors"
TASK_VERSION = 2
_ROWS_AT_ONCE = 16

Budget = Literal["few", "all"]
Tally = Mapping[str, Any]
"""Sums and counts of what a model answered, as JSON has them; they add up to scores."""
Reply = dict[str, Any]
"""What a served task model says of one item, by column."""


@dataclass(frozen=True)
class Facts:
    """What a task model must know beside its weights.

    Args:
        classes: their names; a label is an index into them. Empty where answers are no classes.
        tokenizer: of the corpus; None where it has no text.
        names: the class that a text names, as an index; of use to scores alone.
    """

    spec: FinetuneSpec
    classes: list[str]
    tokenizer: Tokenizer | None = None
    names: Mapping[str, int] = field(default_factory=dict)

    @property
    def text(self) -> Tokenizer:
        """The tokenizer of a task that reads or writes text.

        Raises:
            ConfigError: the corpus has no text.
        """
        if self.tokenizer is None:
            raise ConfigError(
                f"the task {self.spec.task} is about text, and the corpus has none",
                fix="choose a task on values, or ingest a source of texts or captions",
            )
        return self.tokenizer


@dataclass(frozen=True)
class TaskRows:
    """The rows of one split.

    Args:
        tensors: what the objective's batches hold, (N, ...) each; "labels" among them where answers are classes.
        documents: id of the document that each row comes from.
        prompts: what a person would be shown of each row; empty where that is its tensors.
        references: the text that each row's answer should be; empty where answers are no texts.
    """

    tensors: Mapping[str, Tensor]
    documents: list[str]
    prompts: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def labels(self) -> Tensor:
        """Index of the class: (N,), or (N, F) where each token has one."""
        return self.tensors["labels"]

    def select(self, rows: Tensor) -> TaskRows:
        """Some of the rows."""
        numbers = rows.tolist()
        texts = ([side[row] for row in numbers] if side else [] for side in (self.prompts, self.references))
        return TaskRows(self.batch(rows), [self.documents[row] for row in numbers], *texts)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """The tensors of some rows."""
        return {name: tensor[rows] for name, tensor in self.tensors.items()}


@dataclass(frozen=True)
class TaskData:
    """A task's rows, and what is known of all of them."""

    facts: Facts
    train: TaskRows
    validation: TaskRows
    test: TaskRows

    @property
    def classes(self) -> list[str]:
        """Their names."""
        return self.facts.classes

    def split(self, name: Split) -> TaskRows:
        """The rows of a split."""
        rows: TaskRows = getattr(self, name)
        return rows


class Baseline(Protocol):
    """What a task model is measured by: an answer that needs no pretrained model."""

    label: str

    def answer(self, task: Task, data: TaskData, train: TaskRows, trunk: Pretrained) -> Tally:
        """What it answers to the test, having learned from no more than `train` and the validation rows.

        Args:
            trunk: of the models that it is set beside; of use for the shapes that they work on.
        """


class Task(ABC):
    """What is asked of a model, and how the answers are scored."""

    scored: ClassVar[Mapping[str, Score]]
    """Its scores by name. The first one decides: learning rates, seeds and arms are chosen by it, on validation."""
    budgets: ClassVar[tuple[Budget, ...]] = ("few", "all")
    """How many rows its arms learn from."""
    reads: ClassVar[Literal["text", "values"]]
    """What an item of it is."""
    ability: ClassVar[str]
    """What a served model is asked for: classify, write, predict."""
    columns: ClassVar[Mapping[str, str]]
    """What its replies hold: the type of each column."""
    baseline: ClassVar[Baseline]

    @property
    def deciding(self) -> str:
        """The name of the score that decides."""
        return next(iter(self.scored))

    def value(self, tally: Tally) -> float:
        """The deciding score, so that more is better."""
        return self.scored[self.deciding].signed(self.scores(tally)[self.deciding])

    @abstractmethod
    def data(self, corpus: Path, spec: FinetuneSpec, seed: int = 0) -> TaskData:
        """The rows: a pure function of the corpus, the spec and the seed.

        Args:
            corpus: folder of an ingest result.

        Raises:
            ConfigError: the corpus cannot fill it, with the counts.
        """

    def few(self, data: TaskData, seed: int) -> Tensor:
        """Numbers of the training rows of the arms with few labels."""
        return Order(len(data.train), seed).take(0, min(data.facts.spec.few_labels, len(data.train)))

    @abstractmethod
    def objective(self, trunk: Pretrained, facts: Facts) -> Objective:
        """What is minimised."""

    @abstractmethod
    def model(self, trunk: Pretrained, facts: Facts, seed: int) -> nn.Module:
        """A task model with fresh weights."""

    @abstractmethod
    def take_over(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Put pretrained weights into a task model, by name.

        Raises:
            CheckpointError: the weights are of another model.
        """

    @abstractmethod
    def answer(self, model: nn.Module, rows: TaskRows, facts: Facts) -> Tally:
        """What a model answers to rows, in evaluation mode. Holds `nats` (or squares): the summed loss of it."""

    def written(self, model: nn.Module, rows: TaskRows, facts: Facts) -> list[str]:
        """The text that a model writes for each row; of a task whose answers are texts."""
        raise NotImplementedError(f"{type(self).__name__} writes no texts")

    @abstractmethod
    def scores(self, tally: Tally) -> dict[str, float]:
        """The scores by name; and `loss`, that of one label."""

    def reply(self, model: nn.Module, item: str | Tensor, facts: Facts) -> Reply:
        """What a served model says of one item; of a task whose answers are no texts.

        Args:
            item: a text, normalised as the documents were; or values, (C, H, W), as the corpus has them.
        """
        raise NotImplementedError(f"{type(self).__name__} answers with texts")


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ConfigError: nothing installed has it.
    """
    task: Task = plugins.find("tasks", name)()
    return task


def balanced(labels: Tensor, per_class: int, classes: int, seed: int) -> Tensor:
    """Numbers of so many rows of each class, chosen by the seed, class after class."""
    chosen = []
    for number in range(classes):
        rows = (labels == number).nonzero().squeeze(1)
        chosen.append(rows[Order(len(rows), seed).take(0, per_class)])
    return torch.cat(chosen)


def corpus_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of an ingest result, or of a task; None where it has none."""
    path = folder / TOKENIZER_FILE
    return load_tokenizer(path) if path.exists() else None


def save_task(folder: Path, data: TaskData) -> None:
    """Write a task; `task.json` comes last and makes it one."""
    rows = {split: data.split(split) for split in SPLITS}
    tensors = {f"{split}.{name}": tensor for split in SPLITS for name, tensor in rows[split].tensors.items()}
    digest = save_weights(folder / ROWS_FILE, tensors)
    texts = {
        split: {"documents": of.documents, "prompts": of.prompts, "references": of.references}
        for split, of in rows.items()
    }
    if data.facts.tokenizer is not None:
        with committed(folder / TOKENIZER_FILE) as sink:
            sink.write(data.facts.tokenizer.to_str(pretty=True).encode())
    body = {"version": TASK_VERSION, "rows": digest, "texts": texts}
    write_json(folder / TASK_FILE, {**body, **describe(data.facts)})


def load_task(folder: Path) -> TaskData:
    """The task that `save_task` wrote.

    Raises:
        DataError: there is none.
        CheckpointError: the rows were edited.
    """
    body = read_json(folder / TASK_FILE)
    tensors = load_weights(folder / ROWS_FILE, body["rows"])

    def of(split: Split) -> TaskRows:
        mine = {name.removeprefix(f"{split}."): each for name, each in tensors.items() if name.startswith(f"{split}.")}
        return TaskRows(mine, **body["texts"][split])

    return TaskData(facts_in(folder, body), of("train"), of("validation"), of("test"))


def describe(facts: Facts) -> dict[str, Any]:
    """The facts as JSON has them, but for the tokenizer, which is a file of its own; and for where the work ran."""
    named = {"names": dict(facts.names)} if facts.names else {}
    return {"spec": facts.spec.meaning(), "classes": facts.classes, **named}


def facts_in(folder: Path, body: Mapping[str, Any]) -> Facts:
    """The facts that `describe` made, with the tokenizer that lies in the folder, if one does."""
    spec, names = FinetuneSpec.model_validate(body["spec"]), body.get("names", {})
    return Facts(spec, list(body["classes"]), corpus_tokenizer(folder), names)


def summed_loss(model: nn.Module, objective: Objective, rows: TaskRows) -> tuple[float, int]:
    """The loss of all rows in evaluation mode, and how many labels they have."""
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for part in torch.split(torch.arange(len(rows)), _ROWS_AT_ONCE):
            example = objective.prepare({**rows.batch(part), "sample": part}, 0)
            total += objective.loss(model, example).double().item()
            count += int(example.count)
    model.train(was_training)
    return total, count

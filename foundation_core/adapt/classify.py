"""Classification: one label for a row or for each of its tokens, as a sum and a count."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_core.adapt.scores import ACCURACY, MACRO_F1, Score, accuracy, macro_f1
from foundation_core.adapt.tasks import Facts, Reply, Tally, Task, TaskRows
from foundation_core.adapt.transfer import Pretrained, load_trunk, task_model
from foundation_core.objectives.augment import augmented
from foundation_core.objectives.base import ALONE, IGNORE, Example, Objective, Ranks
from foundation_core.specs import AugmentSpec

_AS_THEY_ARE = AugmentSpec()


class Classification(Objective):
    """Cross-entropy of the class of each row, or of each token; what is labelled IGNORE does not count.

    Args:
        augment: how values differ each time that they are seen.
    """

    def __init__(self, augment: AugmentSpec = _AS_THEY_ARE) -> None:
        self.augment = augment

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """The rows, changed a little if they are values.

        Args:
            batch: "inputs", tokens (N, T) or values (N, C, H, W); "labels" (N,) or (N, T); "sample" (N,) where rows are
                to be changed.
        """
        inputs, labels = batch["inputs"], batch["labels"]
        if self.augment.changes:
            inputs = augmented(inputs, self.augment, seed, batch["sample"])
        return Example({"inputs": inputs}, labels, (labels != IGNORE).sum())

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The summed cross-entropy, in nats."""
        logits = model(**example.inputs).float()
        return F.cross_entropy(logits.flatten(0, -2), example.labels.flatten(), ignore_index=IGNORE, reduction="sum")


class ClassificationTask(Task):
    """A task whose answers are classes."""

    scored: ClassVar[Mapping[str, Score]] = {"macro_f1": MACRO_F1, "accuracy": ACCURACY}

    def objective(self, trunk: Pretrained, facts: Facts) -> Objective:
        """Cross-entropy."""
        return Classification()

    def take_over(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Stem and trunk; the head stays fresh."""
        load_trunk(model, weights)

    def answer(self, model: nn.Module, rows: TaskRows, facts: Facts) -> Tally:
        """How often each class was answered with each, and the summed cross-entropy in nats."""
        return answer(model, rows.tensors["inputs"], rows.labels, len(facts.classes))

    def scores(self, tally: Tally) -> dict[str, float]:
        """Macro-F1 and accuracy."""
        counts = torch.tensor(tally["confusion"])
        loss = tally["nats"] / counts.sum().item()
        return {"macro_f1": macro_f1(counts), "accuracy": accuracy(counts), "loss": loss}


class RowTask(ClassificationTask):
    """A task with one class for a row."""

    ability = "classify"
    columns: ClassVar[Mapping[str, str]] = {"label": "string", "probability": "double"}

    def model(self, trunk: Pretrained, facts: Facts, seed: int) -> nn.Module:
        """Stem and trunk of the family, and a head that pools a row."""
        return task_model(trunk.spec, trunk.shape, len(facts.classes), facts.spec.pool, seed)

    @abstractmethod
    def probabilities(self, model: nn.Module, item: str | Tensor, facts: Facts) -> Tensor:
        """(classes,) the probability of each class for one item; they sum to 1."""

    def reply(self, model: nn.Module, item: str | Tensor, facts: Facts) -> Reply:
        """The most probable class."""
        probabilities = self.probabilities(model, item, facts)
        best = int(probabilities.argmax())
        return {"label": facts.classes[best], "probability": probabilities[best].item()}


def answer(model: nn.Module, inputs: Tensor, labels: Tensor, classes: int, batch_rows: int = 16) -> dict[str, Any]:
    """The answers of a task model in evaluation mode: their confusion (classes, classes), and the summed nats.

    Args:
        inputs: (N, ...) rows.
        labels: true classes, (N,) or (N, T).
        batch_rows: rows of one forward pass. So few that their activations stay in the processor's cache: 264 rows of
            64 tokens on one thread take 0.95 s, and 1.3 s in passes of 64 rows.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(part).float() for part in torch.split(inputs, batch_rows)])
    model.train(was_training)
    logits, labels = logits.flatten(0, -2), labels.flatten()
    wanted = labels != IGNORE
    nats = F.cross_entropy(logits.double(), labels, ignore_index=IGNORE, reduction="sum").item()
    return {"confusion": confusion(labels[wanted], logits.argmax(-1)[wanted], classes).tolist(), "nats": nats}


def confusion(labels: Tensor, answers: Tensor, classes: int) -> Tensor:
    """(C, C) counts: how often class i (row) was answered with class j (column)."""
    return torch.bincount(labels * classes + answers, minlength=classes * classes).view(classes, classes)

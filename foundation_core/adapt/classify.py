"""Classification: one label a row, as a sum and a count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_core.objectives.base import ALONE, IGNORE, Example, Objective, Ranks


class Classification(Objective):
    """Cross-entropy of the class of each row of tokens; rows labelled IGNORE do not count."""

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """The rows as they are.

        Args:
            batch: "tokens" (N, T) and "labels" (N,).
            seed: not needed, nothing is random.
        """
        labels = batch["labels"]
        return Example({"inputs": batch["tokens"]}, labels, (labels != IGNORE).sum())

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The summed cross-entropy, in nats."""
        return F.cross_entropy(model(**example.inputs).float(), example.labels, ignore_index=IGNORE, reduction="sum")


@dataclass(frozen=True)
class Answers:
    """What a task model answered to labelled rows, as counts and a sum.

    Args:
        confusion: how often class i (row) was answered with class j (column).
        nats: summed cross-entropy.
    """

    confusion: list[list[int]]
    nats: float

    @property
    def rows(self) -> int:
        """Rows that were answered."""
        return sum(map(sum, self.confusion))


def answer(model: nn.Module, tokens: Tensor, labels: Tensor, classes: int, batch_rows: int = 16) -> Answers:
    """The answers of a task model in evaluation mode.

    Args:
        tokens: (N, T) fragments.
        labels: (N,) true classes.
        batch_rows: rows of one forward pass. So few that their activations stay in the processor's cache: 264 rows of
            64 tokens on one thread take 0.95 s, and 1.3 s in passes of 64 rows.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(part).float() for part in torch.split(tokens, batch_rows)])
    model.train(was_training)
    nats = F.cross_entropy(logits.double(), labels, reduction="sum").item()
    return Answers(confusion(labels, logits.argmax(-1), classes).tolist(), nats)


def confusion(labels: Tensor, answers: Tensor, classes: int) -> Tensor:
    """(C, C) counts: how often class i (row) was answered with class j (column)."""
    return torch.bincount(labels * classes + answers, minlength=classes * classes).view(classes, classes)

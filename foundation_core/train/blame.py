"""Which documents a step failed by: all ranks ask the same questions in the same order, and hear the same answers.

    not finite    half of the samples hidden: still?  -> ... -> one row; half of its documents hidden: still? -> ...
    a leap        every row alone -> those far above the others -> each of their documents alone

Nothing is learned meanwhile. The first way takes steps at a learning rate of 0, after which an optimizer's moments are
not what they were: who asks goes back to a checkpoint. The second way computes losses alone and leaves no trace.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from foundation_core.data.loading.loader import Batch, on_device
from foundation_core.data.loading.quarantine import without_rows, without_segments
from foundation_core.errors import DivergedError
from foundation_core.objectives.base import Objective
from foundation_core.train.engine import Engine
from foundation_core.train.ledger import Ledger
from foundation_core.train.step import train_step
from foundation_core.train.votes import agree

_DEVIATIONS_OF_MAD = 1.4826
"""Standard deviations in a median absolute deviation, of normally distributed numbers."""
_LEAST_DEVIATION = 0.01

Item = TypeVar("Item")


def leap_bound(losses: Sequence[float], deviations: float) -> float:
    """The loss above which one stands out from others: their median and so many of their standard deviations.

    The deviation is estimated from the median absolute deviation (Hampel 1974), which one leap among them cannot move.
    It counts as one hundredth of the median at the least: losses that hardly differ would leave no room at all.
    """
    median = statistics.median(losses)
    deviation = _DEVIATIONS_OF_MAD * statistics.median(abs(loss - median) for loss in losses)
    return median + deviations * max(deviation, _LEAST_DEVIATION * abs(median))


class Blame:
    """Asks about the batch of one step.

    Args:
        batches: this rank's micro-batches.
        step: its number, from 0.
        begins: told of each question.
    """

    def __init__(
        self,
        engine: Engine,
        objective: Objective,
        batches: Sequence[Batch],
        step: int,
        seed: int,
        ledger: Ledger,
        begins: Callable[[str, int], None],
    ) -> None:
        self.engine, self.objective, self.seed, self.ledger = engine, objective, seed, ledger
        self._asks = partial(begins, "step", step + 1)
        self.batches, self.samples = batches, ledger.samples(step)

    def of_not_finite(self) -> list[str]:
        """The documents without which the step is finite, sorted.

        None if it is not finite without any, or if most of the rows fail: then the model is broken, and not they. Where
        only several together fail, all of them are named. Of k rows among N it takes about k log N steps.
        """
        if self._fails_with([]):
            return []
        found = set[str]()
        for sample in _culprits(self.samples, self._fails_with, max(1, len(self.samples) // 2)):
            documents, alone = self.ledger.documents_of(sample), self._only(sample)
            fails = partial(self._fails_with_segments, alone, len(documents))
            for segment in _culprits(range(len(documents)), fails, len(documents)):
                found.add(documents[segment])
        return sorted(found)

    def of_leap(self, deviations: float) -> list[str]:
        """The documents whose own loss stands out from those of the batch's rows, sorted; none if none does."""
        rows = self._losses_of_rows()
        if len(rows) < 2:
            return []
        bound = leap_bound(list(rows.values()), deviations)
        found = set[str]()
        for sample in sorted(sample for sample, loss in rows.items() if loss > bound):
            documents = self.ledger.documents_of(sample)
            losses = self._losses_of_segments(sample, len(documents))
            found.update(name for name, loss in zip(documents, losses, strict=True) if loss > bound)
        return sorted(found)

    def _fails_with(self, samples: Sequence[int]) -> bool:
        return self._fails([without_rows(batch, ~_among(batch, samples)) for batch in self.batches])

    def _fails_with_segments(self, row: Sequence[Batch], count: int, segments: Sequence[int]) -> bool:
        return self._fails(_kept(row, segments, count))

    def _fails(self, batches: Sequence[Batch]) -> bool:
        self._asks()
        try:
            train_step(self.engine, self.objective, batches, 0.0, self.seed)
        except DivergedError:
            return True
        return False

    def _only(self, sample: int) -> list[Batch]:
        """This rank's micro-batches without all other samples."""
        return [without_rows(batch, ~_among(batch, [sample])) for batch in self.batches]

    def _losses_of_rows(self) -> dict[int, float]:
        """The loss of each sample alone, of one label, for those that have labels."""
        votes = {f"{kind}/{sample}": 0.0 for sample in self.samples for kind in ("loss", "labels")}
        for row in _rows(self.batches):
            loss, labels = self._loss([row])
            if (sample := int(row["sample"])) >= 0:
                votes |= {f"loss/{sample}": loss, f"labels/{sample}": labels}
        sums = agree(self.engine, votes, self.engine.device)
        return {s: sums[f"loss/{s}"] / labels for s in self.samples if (labels := sums[f"labels/{s}"])}

    def _losses_of_segments(self, sample: int, segments: int) -> list[float]:
        """The loss of each segment of a sample's row alone, of one label; 0 for those without labels."""
        row = self._only(sample)
        alone = [row] if segments == 1 else [_kept(row, [segment], segments) for segment in range(segments)]
        votes: dict[str, float] = {}
        for number, kept in enumerate(alone):
            loss, labels = self._loss(kept)
            votes |= {f"loss/{number}": loss, f"labels/{number}": labels}
        sums = agree(self.engine, votes, self.engine.device)
        return [sums[f"loss/{number}"] / max(1.0, sums[f"labels/{number}"]) for number in range(segments)]

    def _loss(self, batches: Sequence[Batch]) -> tuple[float, float]:
        """This rank's loss and labels of some batches, by the weights as they are."""
        self._asks()
        self.engine.model.eval()  # no dropout: documents are compared
        total, labels = 0.0, 0
        with torch.no_grad():
            for batch in batches:
                example = self.objective.prepare(on_device(batch, self.engine.device), self.seed)
                total += float(self.objective.loss(self.engine.model, example, self.engine))
                labels += int(example.count)
        self.engine.model.train()
        return total, float(labels)


def _culprits(items: Sequence[Item], fails: Callable[[Sequence[Item]], bool], most: int) -> list[Item]:
    """Those among items that fail together which fail by themselves; all of a set that fails only as a whole.

    Args:
        most: where more fail than these, none is returned.
    """
    found, waiting = list[Item](), [items]
    while waiting and len(found) <= most:
        part = waiting.pop()
        middle = len(part) // 2
        halves = [half for half in (part[middle:], part[:middle]) if half and fails(half)] if middle else []
        waiting += halves
        found += [] if halves else part
    return found if len(found) <= most else []


def _among(batch: Batch, samples: Sequence[int]) -> Tensor:
    return torch.isin(batch["sample"], torch.tensor(list(samples), dtype=batch["sample"].dtype))


def _kept(batches: Sequence[Batch], segments: Sequence[int], count: int) -> list[Batch]:
    """The batches with some segments of their rows alone."""
    hidden = [segment for segment in range(count) if segment not in set(segments)]
    return [without_segments(batch, [hidden] * len(batch["segment"])) for batch in batches]


def _rows(batches: Sequence[Mapping[str, Tensor]]) -> list[Batch]:
    """Each row as a batch of its own."""
    return [
        {name: values[row : row + 1] for name, values in batch.items()}
        for batch in batches
        for row in range(len(batch["sample"]))
    ]

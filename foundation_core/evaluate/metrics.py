"""Scores from sums and counts. A mean is taken once, at the end, over everything that was counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class LossSum:
    """The loss of a model over some data, as sums that can be added.

    Args:
        total: of the losses of all labels; of a text, its negative log-likelihood in nats.
        labels: what was predicted: tokens, values of patches, pairs.
        bytes: UTF-8 bytes that predicted tokens stand for, special tokens for none; 0 where bits per byte mean nothing.
    """

    total: float = 0.0
    labels: int = 0
    bytes: int = 0

    def __add__(self, other: LossSum) -> LossSum:
        return LossSum(self.total + other.total, self.labels + other.labels, self.bytes + other.bytes)

    @property
    def loss(self) -> float:
        """The loss of one label."""
        return self.total / self.labels

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of text: comparable between tokenizers, which nats per token are not."""
        return self.total / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        """The number of equally probable tokens that would be as hard to guess between."""
        return math.exp(self.loss)

    def named(self, unit: str) -> dict[str, float]:
        """The figures by the last part of a metric's name: `loss_<unit>`, and `bits_per_byte` where there are bytes."""
        bits = {"bits_per_byte": self.bits_per_byte} if self.bytes else {}
        return {f"loss_{unit}": self.loss, **bits}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, smallest and largest of the seeds' scores, and the scores themselves, in the order of the seeds."""
    return {"mean": fmean(values), "min": min(values), "max": max(values), "values": list(values)}


def gain(pretrained: Sequence[float], scratch: Sequence[float], *, higher_is_better: bool = True) -> dict[str, Any]:
    """What pretraining adds to a score: beyond the spread of seeds where its worst seed beats the best from scratch."""
    worst, best = (min, max) if higher_is_better else (max, min)
    ahead = worst(pretrained) - best(scratch)
    return {
        "mean_difference": fmean(pretrained) - fmean(scratch),
        "worst_pretrained": worst(pretrained),
        "best_scratch": best(scratch),
        "beyond_spread": ahead > 0 if higher_is_better else ahead < 0,
    }

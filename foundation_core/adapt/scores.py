"""Scores of task models, each from sums and counts; a mean is taken once, over everything that was counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Score(NamedTuple):
    """What a score is called, and which way is better."""

    label: str
    higher_is_better: bool = True

    def signed(self, value: float) -> float:
        """The value, so that more is better."""
        return value if self.higher_is_better else -value


MACRO_F1, ACCURACY = Score("macro-F1"), Score("accuracy")
CHRF = Score("chrF")
CLASS_NAMED = Score("class named")
EXACT_MATCH = Score("exact match")
WORD_ERRORS = Score("word error rate", higher_is_better=False)
BITS_PER_BYTE = Score("bits per byte", higher_is_better=False)
SQUARED_ERROR = Score("mean squared error", higher_is_better=False)

_ORDERS, _BETA = 6, 2


def accuracy(confusion_CC: Tensor) -> float:
    """The share of answers that are right, from a matrix of counts (truth by answer)."""
    return (confusion_CC.diagonal().sum() / confusion_CC.sum()).item()


def f1_by_class(confusion_CC: Tensor) -> Tensor:
    """F1 of each class, (C,) float64, from a matrix of counts (truth by answer); 0 for a class that nobody named."""
    counts = confusion_CC.double()
    right = counts.diagonal()
    named_or_true = counts.sum(0) + counts.sum(1)
    return torch.where(named_or_true > 0, 2 * right / named_or_true, 0.0)


def macro_f1(confusion_CC: Tensor) -> float:
    """The mean of the classes' F1: a rare class weighs as much as a frequent one."""
    return f1_by_class(confusion_CC).mean().item()


def letter_counts(text: str, reference: str) -> list[list[int]]:
    """For 1 to 6 letters in a row, without white space: how many a text has, how many its reference, how many both.

    Where the reference is too short to have any, the text's do not count.
    """
    return [
        [sum(mine.values()) if theirs else 0, sum(theirs.values()), sum((mine & theirs).values())]
        for mine, theirs in ((_runs(text, order), _runs(reference, order)) for order in range(1, _ORDERS + 1))
    ]


def chrf(counts: Sequence[Sequence[int]]) -> float:
    """chrF2 from 0 to 100, from `letter_counts` summed over all texts; lengths that a side lacks are left out.

    Source: Popovic 2015, equation 1, with means of precision and recall over the lengths; sacrebleu's definition.
    """
    shares = [(both / mine, both / theirs) for mine, theirs, both in counts if mine and theirs]
    if not shares:
        return 0.0
    precision, recall = (math.fsum(side) / len(shares) for side in zip(*shares, strict=True))
    if precision + recall == 0:
        return 0.0
    return 100 * (1 + _BETA**2) * precision * recall / (_BETA**2 * precision + recall)


def word_errors(text: str, reference: str) -> int:
    """The fewest words that have to be put in, taken out or replaced so that a text becomes its reference."""
    words = text.split()
    row = list(range(len(words) + 1))
    for number, wanted in enumerate(reference.split(), start=1):
        before, row[0] = row[0], number
        for place, word in enumerate(words, start=1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (word != wanted))
    return row[-1]


def _runs(text: str, letters: int) -> Counter[str]:
    joined = "".join(text.split())
    return Counter(joined[start : start + letters] for start in range(len(joined) - letters + 1))

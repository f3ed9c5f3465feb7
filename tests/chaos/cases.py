"""Which faults are tried at which moments: every pair that can be, and a covering set drawn from them by a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

MOMENTS = ("ingest", "step", "save", "validation", "publish")
TRAINING = ("step", "save", "validation")
ALWAYS = MOMENTS
LOCAL = ("ingest", "publish")

FAULTS: Mapping[str, tuple[str, ...]] = {
    "worker killed": TRAINING,
    "raylet killed": TRAINING,
    "head's raylet killed": TRAINING,
    "ray head killed": TRAINING,
    "driver killed": TRAINING,
    "stage process killed": LOCAL,
    "flow killed": ALWAYS,
    "runner killed": ALWAYS,
    "prefect killed": ALWAYS,
    "mlflow killed": ALWAYS,
    "worker stopped": TRAINING,
    "SIGTERM": TRAINING,
    "disk full": ("ingest", "save", "step"),
    "shard truncated": TRAINING,
    "checkpoint truncated": TRAINING,
    "out of memory": ("step", "validation"),
    "transient NaN": ("step",),
    "network cut": TRAINING,
    "node killed": ("ingest", *TRAINING),
    "document of NaN": ("step",),
}
"""Faults, and the moments at which each can happen. Training is everything between the first step and the last.

A loss that is no number belongs to a step by nature: a validation's changes nothing, and a save computes none.
"""


class Case(NamedTuple):
    """One fault at one moment."""

    fault: str
    moment: str


def every_case() -> list[Case]:
    """All pairs that can be."""
    return [Case(fault, moment) for fault, moments in FAULTS.items() for moment in moments]


def covering(seed: int) -> list[Case]:
    """A set in which every fault happens once, and every moment as evenly as the faults allow.

    The seed decides the order, and which moment each fault gets among those that have the fewest faults so far.
    """
    draw = random.Random(seed)
    used = dict.fromkeys(MOMENTS, 0)
    cases = []
    # Faults that are tied to one moment come first: the others fill up what is left.
    for fault in sorted(draw.sample(list(FAULTS), len(FAULTS)), key=lambda fault: len(FAULTS[fault])):
        least = min(used[moment] for moment in FAULTS[fault])
        moment = draw.choice([moment for moment in FAULTS[fault] if used[moment] == least])
        used[moment] += 1
        cases.append(Case(fault, moment))
    draw.shuffle(cases)
    return cases

"""Which checkpoints stay: a pure function of what was saved and of the policy.

saved    10  20  30  40  50  57(ephemeral)
newest 2             x   x
best 1       x
not passed by a regular one     x
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Saved(NamedTuple):
    """A checkpoint, as far as its stay depends on it.

    Args:
        seconds: of training before it, over all tries.
        loss: of the validation at its step; None if there was none.
        ephemeral: saved because the training was asked to leave, and of no use once a regular one is later.
    """

    step: int
    seconds: float = 0.0
    loss: float | None = None
    ephemeral: bool = False


@dataclass(frozen=True)
class Retention:
    """What stays; the newest of all always does.

    Args:
        newest: how many of the newest regular ones; at least 1.
        best: how many of those with the least validation loss.
        each_minutes: the first of each so many minutes of training. None: none for that.
    """

    newest: int = 2
    best: int = 0
    each_minutes: float | None = None


def kept(saved: Iterable[Saved], policy: Retention) -> set[int]:
    """The steps of the checkpoints that stay."""
    by_step = sorted(saved, key=lambda one: one.step)
    regular = [one for one in by_step if not one.ephemeral]
    last = regular[-1].step if regular else -1
    staying = (
        regular[-policy.newest :] + [one for one in by_step if one.ephemeral and one.step > last][-policy.newest :]
    )
    scored = [one for one in regular if one.loss is not None]
    staying += sorted(scored, key=lambda one: (one.loss, one.step))[: policy.best]
    if policy.each_minutes is not None:
        first_of: dict[int, Saved] = {}
        for one in regular:
            first_of.setdefault(int(one.seconds / 60 // policy.each_minutes), one)
        staying += first_of.values()
    return {one.step for one in staying}

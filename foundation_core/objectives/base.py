"""The Objective: how a batch becomes an example, and an example a loss.

A loss is a sum, and beside it stands a count; whoever trains divides once, over all micro-batches and ranks. A mean of
means would weigh a label more where fewer labels stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

IGNORE = -100
"""Label of a place that is not scored."""


@dataclass(frozen=True)
class Example:
    """What a model is asked, and what it should answer.

    Args:
        inputs: the keyword arguments of the model's forward.
        labels: the answers, `IGNORE` where none is wanted.
        count: int64 scalar, how many labels are wanted: what the loss is divided by, once, in the end.
    """

    inputs: Mapping[str, Any]
    labels: Tensor
    count: Tensor


class Objective(Protocol):
    """Found by name (`foundation.objectives`) and built without arguments."""

    decomposable: bool
    """Whether the loss is a sum over rows, so that how rows are grouped in micro-batches and ranks cannot matter."""

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """The example of a batch: a pure function of both, so that any rank makes the same one."""

    def loss(self, model: nn.Module, example: Example) -> Tensor:
        """float32 scalar: the sum of the losses of the example's labels."""

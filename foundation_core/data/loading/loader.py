"""Batches by step: what each rank reads is arithmetic on the step, so the loader's whole state is one integer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from foundation_core.data.loading.order import Ahead, SampleOrder

PADDING_VALUES = {"segment": -1, "sample": -1}
"""What a row of padding holds; 0 where nothing is said here."""


Batch = dict[str, Tensor]


class Rows(Protocol):
    """Rows by number: windows over tokens, or samples of images, audio and series."""

    def __len__(self) -> int:
        """How many there are."""

    def gather(self, indices: Tensor) -> Batch:
        """The rows of those numbers, each tensor (N, ...)."""


class Loader:
    """Gives one rank its share of every global batch: the same global order for any number of ranks.

    Args:
        batch_rows: rows of a global batch, over all ranks.
        micro_batch_rows: rows of one forward pass of one rank, at the most.
        change: what is done to this rank's rows, once they have their numbers.
        hide: takes the numbers of rows and the rows, and gives them without what nobody may read.
    """

    def __init__(
        self,
        rows: Rows,
        order: SampleOrder,
        batch_rows: int,
        micro_batch_rows: int,
        rank: int = 0,
        world: int = 1,
        change: Callable[[Batch], Batch] | None = None,
        hide: Callable[[Tensor, Batch], Batch] | None = None,
    ) -> None:
        self.rows, self.order, self.change, self.hide = rows, Ahead(order), change, hide
        self.batch_rows, self.micro_batch_rows = batch_rows, micro_batch_rows
        share, remainder = divmod(batch_rows, world)
        self._first_row = rank * share + min(rank, remainder)
        self._share = share + (rank < remainder)
        self._padded_rows = share + (remainder > 0)  # every rank makes as many forward passes as the fullest one

    def micro_batches(self, step: int) -> list[Batch]:
        """This rank's rows of global samples [step * batch_rows, (step + 1) * batch_rows), in order.

        Returns:
            The rows as `Rows.gather` gives them, and `sample` (N,): the global number of each row's sample, -1 for a
            row that is padding throughout.
        """
        first = step * self.batch_rows + self._first_row
        indices = self.order.take(first, self._share)
        batch = self.rows.gather(indices)
        batch["sample"] = torch.arange(first, first + self._share)
        batch = self.change(batch) if self.change else batch
        batch = self.hide(indices, batch) if self.hide else batch
        missing = self._padded_rows - self._share
        if missing:
            batch = {name: _with_rows(values, missing, PADDING_VALUES.get(name, 0)) for name, values in batch.items()}
        parts = {name: torch.split(values, self.micro_batch_rows) for name, values in batch.items()}
        return [dict(zip(parts, rows, strict=True)) for rows in zip(*parts.values(), strict=True)]


def on_device(batch: Mapping[str, Tensor], device: torch.device) -> Batch:
    """The batch where a model reads it; what came as int32, to be half as large on the way, as int64."""
    moved = {name: values.to(device, non_blocking=True) for name, values in batch.items()}
    return {name: values.long() if values.dtype == torch.int32 else values for name, values in moved.items()}


def _with_rows(values: Tensor, rows: int, value: int) -> Tensor:
    behind_the_last_row = [0, 0] * (values.dim() - 1) + [0, rows]
    return pad(values, behind_the_last_row, value=value)

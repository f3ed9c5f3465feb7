"""Values moved by a few rows and columns: a sample that comes again is seen anew."""

from __future__ import annotations

import torch
from torch import Tensor

from foundation_core.objectives.keyed import uniform


def moved(values: Tensor, most: tuple[int, int], seed: int, sample_N: Tensor) -> Tensor:
    """(N, C, H, W) values, each sample moved as far as its number says.

    Args:
        most: rows and columns, either way.
        sample_N: global numbers of the samples.
    """
    return shifted(values, most, uniform(seed, "shift", sample_N, 2))


def shifted(values: Tensor, most: tuple[int, int], draw_N2: Tensor) -> Tensor:
    """(N, C, H, W) values moved by whole rows and columns; what comes in at a border repeats the border.

    Args:
        most: rows and columns, either way.
        draw_N2: how far each row of the batch goes, 0 to 1.
    """
    count, _, H, W = values.shape
    rows, columns = ((draw_N2[:, side] * (2 * most[side] + 1)).long() - most[side] for side in (0, 1))
    y_NH = (torch.arange(H) + rows[:, None]).clamp(0, H - 1)
    x_NW = (torch.arange(W) + columns[:, None]).clamp(0, W - 1)
    number = torch.arange(count)[:, None, None]
    return values.transpose(0, 1)[:, number, y_NH[:, :, None], x_NW[:, None, :]].transpose(0, 1)

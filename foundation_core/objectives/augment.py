"""Values that are seen anew each time: moved, turned, stretched and sheared a little, as seed and sample say."""

from __future__ import annotations

from math import radians
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from foundation_core.objectives.keyed import uniform
from foundation_core.specs import AugmentSpec


def augmented(values: Tensor, spec: AugmentSpec, seed: int, sample_N: Tensor) -> Tensor:
    """(N, C, H, W) values, each sample changed as its number says.

    Args:
        sample_N: global numbers of the samples.
    """
    draw_N6 = 2 * uniform(seed, "augment", sample_N, 6) - 1
    turn, higher, wider, lean, down, right = draw_N6.unbind(dim=1)
    angle, higher, wider = radians(spec.rotate_degrees) * turn, 1 + spec.scale * higher, 1 + spec.scale * wider
    source_N23 = torch.stack(
        [
            torch.stack([angle.cos() * higher, angle.sin() * wider, spec.shift[0] * down], dim=-1),
            torch.stack([spec.shear * lean - angle.sin() * higher, angle.cos() * wider, spec.shift[1] * right], dim=-1),
        ],
        dim=1,
    )
    if spec.outside == "border":
        return warped(values, source_N23, "border")
    lowest_N111 = values.amin(dim=(1, 2, 3), keepdim=True)
    return warped(values - lowest_N111, source_N23, "zeros") + lowest_N111


def warped(values: Tensor, source_N23: Tensor, outside: Literal["border", "zeros"]) -> Tensor:
    """(N, C, H, W) values read at other places, and between places by their neighbours.

    Args:
        source_N23: where the value of a place (row, column), counted from the middle, comes from: two rows of what is
            multiplied with (row, column, 1).
    """
    H, W = values.shape[-2:]
    row_H1, column_W = torch.arange(H)[:, None] - (H - 1) / 2, torch.arange(W) - (W - 1) / 2
    by_row, by_column, plus = source_N23[..., None, None].unbind(dim=2)
    place_N2HW = by_row * row_H1 + by_column * column_W + plus
    share_N2HW = place_N2HW * torch.tensor([2 / H, 2 / W])[:, None, None]
    columns_first_NHW2 = share_N2HW.flip(1).permute(0, 2, 3, 1)
    return F.grid_sample(values, columns_first_NHW2, padding_mode=outside, align_corners=False)

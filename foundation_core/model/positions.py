"""How a token knows its place: positions become a vector to add, angles to turn by, or a number added to a score."""

from __future__ import annotations

from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Rotation(NamedTuple):
    """The angles of a row of tokens, (B, 1, T, E) each; the sines of the first half of the features are negative."""

    cos: Tensor
    sin: Tensor


class Rotary(nn.Module):
    """Turns pairs of features by angles that grow with the position: the match of two tokens depends on their distance.

    It holds no buffers: a cast of the model to bfloat16 would round the angles of far positions to noise.

    Args:
        head_width: E, even.
        base: wavelength of the slowest pair, over 2 pi.

    Source: Su et al. 2021, RoFormer, equation 34; features i and i + E/2 form a pair.
    """

    def __init__(self, head_width: int, base: float = 10_000.0) -> None:
        super().__init__()
        self.head_width, self.base = head_width, base

    def forward(self, position_BT: Tensor) -> Rotation:
        """The rotation of each token; computed once per forward and used by every block."""
        exponent_E = torch.arange(0, self.head_width, 2, device=position_BT.device) / self.head_width
        angle_BTE = position_BT[..., None] * self.base**-exponent_E
        cos, sin = angle_BTE.cos()[:, None], angle_BTE.sin()[:, None]
        return Rotation(torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1))


def rotate(x_BHTE: Tensor, rotation: Rotation | None) -> Tensor:
    """Queries or keys, turned; norms and number format stay as they are. Without a rotation all does."""
    if rotation is None:
        return x_BHTE
    cos, sin = rotation.cos.to(x_BHTE.dtype), rotation.sin.to(x_BHTE.dtype)
    return x_BHTE * cos + x_BHTE.roll(x_BHTE.shape[-1] // 2, dims=-1) * sin


class Learned(nn.Module):
    """One trained vector per position, added to the token's.

    Args:
        context_tokens: positions there are; a higher one is an error.
    """

    def __init__(self, context_tokens: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(context_tokens, width)

    def forward(self, position_BT: Tensor) -> Tensor:
        """(B, T, D) to add to the tokens."""
        x_BTD: Tensor = self.table(position_BT)
        return x_BTD


class Sinusoidal(nn.Module):
    """Fixed waves of geometric wavelengths, added to the token's vector.

    Args:
        width: D, even.
        amplitude: of each wave. Of the size of a fresh token vector, so that neither drowns the other.

    Source: Vaswani et al. 2017, section 3.5; sines in the first half of the features, cosines in the second.
    """

    def __init__(self, width: int, amplitude: float, base: float = 10_000.0) -> None:
        super().__init__()
        self.width, self.amplitude, self.base = width, amplitude, base

    def forward(self, position_BT: Tensor) -> Tensor:
        """(B, T, D) to add to the tokens."""
        exponent_D = torch.arange(0, self.width, 2, device=position_BT.device) / self.width
        angle_BTD = position_BT[..., None] * self.base**-exponent_D
        return self.amplitude * torch.cat([angle_BTD.sin(), angle_BTD.cos()], dim=-1)


class SinusoidalGrid(nn.Module):
    """Fixed waves for places on a grid: half of the features tell the row, half the column.

    Args:
        width: D, a multiple of 4.
        columns: places in a row of the grid; they are counted row by row.
        amplitude: see `Sinusoidal`.

    Source: He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, appendix A.1.
    """

    def __init__(self, width: int, columns: int, amplitude: float) -> None:
        super().__init__()
        self.axis, self.columns = Sinusoidal(width // 2, amplitude), columns

    def forward(self, position_BT: Tensor) -> Tensor:
        """(B, T, D) to add to the patches."""
        row_BT, column_BT = position_BT // self.columns, position_BT % self.columns
        return torch.cat([self.axis(row_BT), self.axis(column_BT)], dim=-1)


class ALiBi(nn.Module):
    """Lowers a score in proportion to the distance of the tokens, in each head by another slope.

    Args:
        heads: H.

    Source: Press et al. 2022, section 3; its appendix for a number of heads that is no power of 2.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        whole = 1 << (heads.bit_length() - 1)
        first = [2 ** (-8 * number / whole) for number in range(1, whole + 1)]
        between = [2 ** (-4 * number / whole) for number in range(1, 2 * whole, 2)]
        self.slopes = (first + between)[:heads]

    def forward(self, query_BT: Tensor, key_BS: Tensor) -> Tensor:
        """(B, H, T, S) to add to the scores; B is 1 where all rows have the same positions."""
        slope_H11 = torch.tensor(self.slopes, device=key_BS.device)[:, None, None]
        return -slope_H11 * _ahead(query_BT, key_BS).abs()[:, None]


class RelativeBias(nn.Module):
    """Adds a learned number to a score, by how far ahead the key is: near distances one by one, far ones in buckets.

    Args:
        heads: H.
        both_ways: whether keys ahead have buckets of their own; without, all share that of the token itself.
        buckets: of distances, half of them single ones.
        farthest: distance from which on all share the last bucket.

    Source: Raffel et al. 2020, T5, section 2.1.
    """

    def __init__(self, heads: int, *, both_ways: bool, buckets: int = 32, farthest: int = 128) -> None:
        super().__init__()
        self.table = nn.Embedding(buckets, heads)
        self.both_ways, self.farthest = both_ways, farthest

    def forward(self, query_BT: Tensor, key_BS: Tensor) -> Tensor:
        """(B, H, T, S) to add to the scores; B is 1 where all rows have the same positions."""
        bias_BTSH: Tensor = self.table(self.bucket(_ahead(query_BT, key_BS)))
        return bias_BTSH.permute(0, 3, 1, 2)

    def bucket(self, ahead: Tensor) -> Tensor:
        """The bucket of each distance, counted from the query to the key."""
        buckets = self.table.num_embeddings // (2 if self.both_ways else 1)
        far = ahead.abs() if self.both_ways else (-ahead).clamp(min=0)
        single = buckets // 2
        share = (far.clamp(min=1).float() / single).log() / log(self.farthest / single)
        shared = (single + (share * (buckets - single)).long()).clamp(max=buckets - 1)
        side = (ahead > 0) * buckets if self.both_ways else 0
        return side + torch.where(far < single, far, shared)


def _ahead(query_BT: Tensor, key_BS: Tensor) -> Tensor:
    """(B, T, S): how far each key is ahead of the query; one row where all are views of the same one."""
    if query_BT.stride(0) == key_BS.stride(0) == 0:
        query_BT, key_BS = query_BT[:1], key_BS[:1]
    return key_BS[:, None, :] - query_BT[:, :, None]

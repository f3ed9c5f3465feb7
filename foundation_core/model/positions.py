"""How a token knows its place: three parts that turn positions into something the model can add or turn by."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Rotation(NamedTuple):
    """The angles of a row of tokens, as cosine and sine, each (B, 1, T, E/2)."""

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
        return Rotation(angle_BTE.cos()[:, None], angle_BTE.sin()[:, None])


def rotate(x_BHTE: Tensor, rotation: Rotation) -> Tensor:
    """Queries or keys, turned; norms and number format stay as they are."""
    cos, sin = rotation.cos.to(x_BHTE.dtype), rotation.sin.to(x_BHTE.dtype)
    left, right = x_BHTE.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


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

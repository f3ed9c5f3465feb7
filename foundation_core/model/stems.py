"""Stems: where raw input becomes a row of vectors, and gets a layout if it came without."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_core.model.layout import Layout, sequential
from foundation_core.shape import SampleShape


class Borrowed(nn.Module):
    """The embedding of another part. The weight keeps one name, so states, optimizers and files hold it once."""

    def __init__(self, embed: nn.Embedding) -> None:
        super().__init__()
        self._embed = (embed,)  # in a tuple: outside the module tree

    @property
    def weight(self) -> Tensor:
        """(V, D), the owner's."""
        return self._embed[0].weight

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """(B, T, D): a vector per token."""
        return F.embedding(tokens_BT, self.weight)


class TokenStem(nn.Module):
    """A vector per token of a vocabulary.

    Args:
        embed: token -> vector.
        context_tokens: tokens that the model is made to read at once.
        place: adds positions to the vectors (Learned, Sinusoidal); None where the trunk sees to them (Rotary, ALiBi).
        norm: of the sum, as BERT and BART have it.
    """

    def __init__(
        self, embed: nn.Module, context_tokens: int, place: nn.Module | None = None, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.embed, self.place, self.norm = embed, place, norm
        self.context_tokens = context_tokens

    def forward(self, tokens_BT: Tensor, layout: Layout | None = None, start: int = 0) -> tuple[Tensor, Layout]:
        """(B, T, D) and the layout; without one, the rows are documents that go on from position `start`."""
        layout = sequential(tokens_BT, start) if layout is None else layout
        x_BTD = _placed(self.embed(tokens_BT), self.place, layout)
        return (x_BTD if self.norm is None else self.norm(x_BTD)), layout


class PatchStem(nn.Module):
    """A vector per patch of anything on a grid: images, spectrograms, and series, whose height is 1.

    Args:
        shape: of one sample; patches divide its height and width.
        patch: height and width of a patch.
        width: D.
        place: adds positions to the vectors (Learned, SinusoidalGrid); None where the trunk sees to them.
        class_token: whether a learned vector stands before the patches, at position 0; they then begin at 1.
        norm: of the sum, as CLIP has it.
    """

    def __init__(
        self,
        shape: SampleShape,
        patch: tuple[int, int],
        width: int,
        place: nn.Module | None = None,
        *,
        class_token: bool = False,
        norm: nn.Module | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.patch, self.place, self.norm = patch, place, norm
        self.embed = nn.Linear(shape.channels * patch[0] * patch[1], width, bias=bias)
        self.class_token = nn.Parameter(torch.zeros(1, width)) if class_token else None
        patches = (shape.height // patch[0]) * (shape.width // patch[1])
        self.context_tokens = patches + int(class_token)

    def forward(
        self, values_BCHW: Tensor, layout: Layout | None = None, start: int = 0, visible_BP: Tensor | None = None
    ) -> tuple[Tensor, Layout]:
        """(B, P, D) and the layout, whose positions are the patches' places on the grid.

        Args:
            visible_BP: numbers of the patches that are embedded, the others are not there. None: all.
        """
        patch_BPN = patches_of(values_BCHW, self.patch)
        position_BP = sequential(patch_BPN).position if visible_BP is None else visible_BP
        if visible_BP is not None:
            patch_BPN = patch_BPN.take_along_dim(visible_BP[..., None], dim=1)
        x_BPD = self.embed(patch_BPN.to(self.embed.weight.dtype))
        if self.class_token is not None:
            x_BPD = torch.cat([self.class_token.expand(len(x_BPD), 1, -1).to(x_BPD.dtype), x_BPD], dim=1)
            position_BP = F.pad(position_BP + 1, (1, 0))
        layout = Layout(position_BP) if layout is None else layout
        x_BPD = _placed(x_BPD, self.place, layout)
        return (x_BPD if self.norm is None else self.norm(x_BPD)), layout


def patches_of(values_BCHW: Tensor, patch: tuple[int, int]) -> Tensor:
    """(B, P, C x h x w): the values of each patch, row by row of the grid."""
    (B, C, H, W), (h, w) = values_BCHW.shape, patch
    x_BCRhQw = values_BCHW.reshape(B, C, H // h, h, W // w, w)
    x_BPN: Tensor = x_BCRhQw.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return x_BPN


def _placed(x_BTD: Tensor, place: nn.Module | None, layout: Layout) -> Tensor:
    return x_BTD if place is None else x_BTD + place(layout.position).to(x_BTD.dtype)

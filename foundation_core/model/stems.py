"""Stems: where raw input becomes a row of vectors, and gets a layout if it came without."""

from __future__ import annotations

from collections.abc import Sequence

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


class Runs(nn.Module):
    """A vector for each run of tokens that ends with a token, from tables whose rows the runs share by a hash.

    It is looked up what a small model takes long to learn: which letters are a word. A row starts at 0, so that a run
    that training never met says nothing.

    Args:
        lengths: tokens of a run; each length has a table.
        rows: of a table.

    Source: Svenstrup et al. 2017, Hash Embeddings; Huang et al. 2025, Over-Tokenized Transformer, section 3.
    """

    def __init__(self, lengths: Sequence[int], rows: int, width: int) -> None:
        super().__init__()
        self.lengths, self.rows = lengths, rows
        self.tables = nn.ModuleList(nn.Embedding(rows, width) for _ in lengths)

    def forward(self, tokens_BS: Tensor, position_BT: Tensor) -> Tensor:
        """(B, T, D) to add to the last T tokens; a run does not reach beyond its document's first token."""
        S, T = tokens_BS.shape[1], position_BT.shape[1]
        key_BT, keys = torch.zeros_like(position_BT), list[Tensor]()
        for before in range(max(self.lengths)):
            token_BT = F.pad(tokens_BS, (before, 0))[:, S - T : S]
            key_BT = (key_BT + torch.where(position_BT >= before, token_BT + 1, 0)) * 0x5BD1E995 & 0xFFFFFFFF
            key_BT = key_BT ^ (key_BT >> 15)
            keys.append(key_BT % self.rows)
        found = [table(keys[length - 1]) for length, table in zip(self.lengths, self.tables, strict=True)]
        return torch.stack(found).sum(dim=0)


class TokenStem(nn.Module):
    """A vector per token of a vocabulary.

    Args:
        embed: token -> vector.
        context_tokens: tokens that the model is made to read at once.
        place: adds positions to the vectors (Learned, Sinusoidal); None where the trunk sees to them (Rotary, ALiBi).
        norm: of the sum, as BERT and BART have it.
        runs: adds what the tokens before each one say of it. None: nothing.
    """

    def __init__(
        self,
        embed: nn.Module,
        context_tokens: int,
        place: nn.Module | None = None,
        norm: nn.Module | None = None,
        runs: Runs | None = None,
    ) -> None:
        super().__init__()
        self.embed, self.place, self.norm, self.runs = embed, place, norm, runs
        self.context_tokens = context_tokens

    def forward(self, tokens_BS: Tensor, layout: Layout | None = None, start: int = 0) -> tuple[Tensor, Layout]:
        """(B, T, D) of the tokens from `start` on, and their layout; without one, rows are documents."""
        tokens_BT = tokens_BS[:, start:]
        layout = sequential(tokens_BT, start) if layout is None else layout
        x_BTD = _placed(self.embed(tokens_BT), self.place, layout)
        if self.runs is not None:
            x_BTD = x_BTD + self.runs(tokens_BS, layout.position).to(x_BTD.dtype)
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

"""Stems: where raw input becomes a row of vectors, and gets a layout if it came without."""

from __future__ import annotations

from torch import Tensor, nn

from foundation_core.model.layout import Layout, sequential


class TokenStem(nn.Module):
    """A vector per token of a vocabulary.

    Args:
        context_tokens: tokens that the model is made to read at once.
        place: adds positions to the vectors (Learned, Sinusoidal); None where the trunk turns by them (Rotary).
    """

    def __init__(self, vocabulary: int, width: int, context_tokens: int, place: nn.Module | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.place = place
        self.context_tokens = context_tokens

    def forward(self, tokens_BT: Tensor, layout: Layout | None = None, start: int = 0) -> tuple[Tensor, Layout]:
        """(B, T, D) and the layout; without one, the rows are documents that go on from position `start`."""
        layout = sequential(tokens_BT, start) if layout is None else layout
        x_BTD = self.embed(tokens_BT)
        if self.place is not None:
            x_BTD = x_BTD + self.place(layout.position).to(x_BTD.dtype)
        return x_BTD, layout

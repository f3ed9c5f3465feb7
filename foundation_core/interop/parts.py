"""Parts that models of others have and ours do without: passed in like any other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundation_core.model.layout import Layout, sequential


class QuickGELU(nn.Module):
    """x times the logistic function of 1.702 x: what CLIP takes for GELU.

    Source: Hendrycks and Gimpel 2016, section 2.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As many features as came in."""
        return x * torch.sigmoid(1.702 * x)


class LearnedAndType(nn.Module):
    """Learned positions, and the vector of BERT's first type of token: of a text that stands alone.

    Source: Devlin et al. 2019, figure 2.
    """

    def __init__(self, context_tokens: int, width: int, types: int = 2) -> None:
        super().__init__()
        self.table, self.kind = nn.Embedding(context_tokens, width), nn.Embedding(types, width)

    def forward(self, position_BT: Tensor) -> Tensor:
        """(B, T, D) to add to the tokens."""
        x_BTD: Tensor = self.table(position_BT) + self.kind.weight[0]
        return x_BTD


class ConvStem(nn.Module):
    """Whisper's stem: two convolutions along the frames of a log-mel spectrogram; the second halves their number.

    Source: Radford et al. 2022, Robust Speech Recognition via Large-Scale Weak Supervision, section 2.2.
    """

    def __init__(self, mel_bins: int, width: int, place: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv1d(mel_bins, width, kernel_size=3, padding=1)
        self.second = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.place = place

    def forward(self, values_B1FT: Tensor, layout: Layout | None = None, start: int = 0) -> tuple[Tensor, Layout]:
        """(B, T / 2, D) and the layout.

        Args:
            values_B1FT: (B, 1, mel bins, frames).
        """
        x_BDT = F.gelu(self.second(F.gelu(self.first(values_B1FT[:, 0]))))
        x_BTD = x_BDT.transpose(1, 2)
        layout = sequential(x_BTD) if layout is None else layout
        return x_BTD + self.place(layout.position), layout

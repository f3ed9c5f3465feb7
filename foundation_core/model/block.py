"""A block is two branches on a residual stream: one mixes tokens, one thinks about each of them alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from foundation_core.model.attention import Reading, Store


class Block(nn.Module):
    """What a transformer repeats.

        x ──> mix ──> feed ──> x               tokens read each other, then each one is transformed
        x ──> mix ──> read ──> feed ──> x      in a decoder, they read the encoder's output in between

    Args:
        mix: a residual around attention.
        feed: a residual around a feed-forward layer.
        read: a residual around attention over a memory. None: there is none.
    """

    def __init__(self, mix: Residual, feed: Residual, read: Residual | None = None) -> None:
        super().__init__()
        self.mix, self.read, self.feed = mix, read, feed

    def forward(
        self,
        x_BTD: Tensor,
        own: Reading,
        store: Store | None = None,
        across: Reading | None = None,
        memory_store: Store | None = None,
    ) -> Tensor:
        """(B, T, D): the tokens, one block further.

        Args:
            own: how the row reads itself.
            across: how it reads a memory.
        """
        x_BTD = self.mix(x_BTD, own, store)
        if self.read is not None:
            x_BTD = self.read(x_BTD, across, memory_store)
        x_BTD = self.feed(x_BTD)
        return x_BTD


class Residual(nn.Module):
    """A branch beside the stream, and a norm. Where the norm stands is what the subclasses differ in.

    Args:
        branch: attention or feed-forward; its last layer, which writes into the stream, is called `out`.
        dropout: probability that a feature of the branch is dropped.
    """

    def __init__(self, norm: nn.Module, branch: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm, self.branch, self.dropout = norm, branch, nn.Dropout(dropout)


class PreNorm(Residual):
    """Normalises what the branch reads: the stream itself stays untouched, and deep models train without a trick."""

    def forward(self, x_BTD: Tensor, *where: Any) -> Tensor:
        """The stream, with the branch added."""
        x_BTD = x_BTD + self.dropout(self.branch(self.norm(x_BTD), *where))
        return x_BTD


class PostNorm(Residual):
    """Normalises the sum: the form of the first transformers (Vaswani et al. 2017, BERT)."""

    def forward(self, x_BTD: Tensor, *where: Any) -> Tensor:
        """The stream, with the branch added and the sum normalised."""
        x_BTD = self.norm(x_BTD + self.dropout(self.branch(x_BTD, *where)))
        return x_BTD


class BranchNorm(Residual):
    """Normalises what the branch says, before it joins the stream: no branch can drown the others.

    Source: Liu et al. 2022, Swin Transformer V2, section 3.1 (res-post-norm).
    """

    def forward(self, x_BTD: Tensor, *where: Any) -> Tensor:
        """The stream, with the branch normalised and added."""
        x_BTD = x_BTD + self.dropout(self.norm(self.branch(x_BTD, *where)))
        return x_BTD


class FeedForward(nn.Module):
    """Two layers with an activation between them.

    Args:
        hidden: features between the layers.
        activation: any module that works feature by feature.
    """

    def __init__(self, width: int, hidden: int, activation: nn.Module, *, bias: bool = False) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=bias)
        self.activation = activation
        self.out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D): each token transformed alone."""
        x_BTD = self.out(self.activation(self.up(x_BTD)))
        return x_BTD


class GatedFeedForward(FeedForward):
    """A feed-forward layer in which an activated half gates a linear one; with SiLU it is called SwiGLU.

    Source: Shazeer 2020, equation 6.
    """

    def __init__(self, width: int, hidden: int, activation: nn.Module, *, bias: bool = False) -> None:
        super().__init__(width, hidden, activation, bias=bias)
        self.gate = nn.Linear(width, hidden, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D): each token transformed alone."""
        x_BTD = self.out(self.activation(self.gate(x_BTD)) * self.up(x_BTD))
        return x_BTD


class SquaredReLU(nn.Module):
    """The square of what is positive, 0 elsewhere. Source: So et al. 2021, Primer."""

    def forward(self, x: Tensor) -> Tensor:
        """As many features as came in."""
        return F.relu(x).square()

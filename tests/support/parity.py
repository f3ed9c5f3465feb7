"""What the comparisons with other libraries share: weights that matter, and blocks put together by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from foundation_core.interop.mapping import Joined, Rule, renamed
from foundation_core.model.attention import Attention
from foundation_core.model.block import Block, FeedForward, PreNorm
from foundation_core.model.transformer import Transformer


def with_weights_that_matter(model: nn.Module, norms: tuple[str, ...] = ("norm",), std: float = 0.3) -> nn.Module:
    """The model with random biases and gains too, and layers that differ."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = name.endswith("weight") and any(norm in name.lower() for norm in norms) and parameter.dim() == 1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std + float(gain))
    return model.eval()


def stack(
    width: int,
    heads: int,
    depth: int,
    feed: Callable[[], nn.Module],
    norm: Callable[[], nn.Module],
    *,
    reads: bool = False,
    residual: Any = PreNorm,
    **trunk: Any,
) -> Transformer:
    """A trunk of blocks with biases wherever `bias` (of `trunk`) is not off."""
    attention = partial(Attention, width, heads, trunk.pop("kv_heads", None), bias=trunk.pop("bias", True))
    end = trunk.pop("end", norm)

    def block() -> Block:
        read = residual(norm(), attention()) if reads else None
        return Block(residual(norm(), attention()), residual(norm(), feed()), read)

    return Transformer((block() for _ in range(depth)), end(), **{"causal": False, **trunk})


def plain_feed(
    width: int, hidden: int, activation: Callable[[], nn.Module], bias: bool = True
) -> Callable[[], nn.Module]:
    """Makes feed-forward layers."""
    return lambda: FeedForward(width, hidden, activation(), bias=bias)


TORCH_END = renamed("", "", {"norm": "norm"})
"""The norm behind the last layer of a stack of torch's."""


def torch_attention(theirs: str, ours: str) -> tuple[Rule, ...]:
    """The rules of an `nn.MultiheadAttention`."""
    joined = tuple(f"{ours}{part}.{{}}" for part in ("query", "key", "value"))
    return Rule(f"{theirs}in_proj_{{}}", joined, Joined(3)), *renamed(theirs, ours, {"out_proj": "out"})


def torch_layers(theirs: str, ours: str, feed_norm: int) -> tuple[Rule, ...]:
    """The rules of layers of torch's encoder (two norms) or decoder (three)."""
    theirs, ours = f"{theirs}.{{}}.", f"{ours}.{{}}."
    names = {"norm1": "mix.norm", "linear1": "feed.branch.up", "linear2": "feed.branch.out"}
    names |= {"norm2": "read.norm"} | {f"norm{feed_norm}": "feed.norm"}
    return (
        *torch_attention(f"{theirs}self_attn.", f"{ours}mix.branch."),
        *torch_attention(f"{theirs}multihead_attn.", f"{ours}read.branch."),
        *renamed(theirs, ours, names),
    )

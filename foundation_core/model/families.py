"""Families: named assemblies of parts. A new one is a function here, or in a package of yours, and an entry point."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from foundation_core import plugins
from foundation_core.model.attention import Attention
from foundation_core.model.block import Block, FeedForward, GatedFeedForward, PreNorm, SquaredReLU
from foundation_core.model.heads import TiedHead, VocabularyHead
from foundation_core.model.initialize import fresh_std
from foundation_core.model.positions import Learned, Rotary, Sinusoidal
from foundation_core.model.stems import TokenStem
from foundation_core.model.transformer import Model, Transformer
from foundation_core.specs import ModelSpec, TrunkSpec


def build(spec: ModelSpec, vocabulary: int) -> Model:
    """A model of the spec's family; its weights are not set yet (see `initialize`, `weights`)."""
    family: Callable[[ModelSpec, int], Model] = plugins.find("families", spec.family)
    return family(spec, vocabulary)


def decoder(spec: ModelSpec, vocabulary: int) -> Model:
    """A causal language model: tokens -> pre-norm blocks -> a logit for each possible next token."""
    trunk = spec.trunk
    norm, feed, place = _norm(trunk), _feed(trunk), _place(spec)

    def block() -> Block:
        attention = Attention(trunk.width, trunk.heads, trunk.kv_heads, bias=trunk.bias)
        return Block(PreNorm(norm(), attention, trunk.dropout), PreNorm(norm(), feed(), trunk.dropout))

    rotary = Rotary(trunk.width // trunk.heads) if place is None else None
    stem = TokenStem(vocabulary, trunk.width, spec.context_tokens, place)
    blocks = Transformer((block() for _ in range(trunk.depth)), norm(), causal=True, rotary=rotary)
    head = TiedHead(stem.embed) if spec.tie_embeddings else VocabularyHead(trunk.width, vocabulary)
    return Model(stem, blocks, head)


def _norm(trunk: TrunkSpec) -> Callable[[], nn.Module]:
    if trunk.norm == "rms":
        return partial(nn.RMSNorm, trunk.width, eps=1e-6)
    return partial(nn.LayerNorm, trunk.width, bias=trunk.bias)


def _feed(trunk: TrunkSpec) -> Callable[[], nn.Module]:
    if trunk.feed == "swiglu":  # its gate is a third matrix: with two thirds of the features it costs the same
        hidden = trunk.hidden or 8 * round(trunk.width / 3)
        return lambda: GatedFeedForward(trunk.width, hidden, nn.SiLU(), bias=trunk.bias)
    hidden, activation = trunk.hidden or 4 * trunk.width, SquaredReLU if trunk.feed == "relu2" else nn.GELU
    return lambda: FeedForward(trunk.width, hidden, activation(), bias=trunk.bias)


def _place(spec: ModelSpec) -> nn.Module | None:
    if spec.trunk.position == "learned":
        return Learned(spec.context_tokens, spec.trunk.width)
    if spec.trunk.position == "sinusoidal":
        return Sinusoidal(spec.trunk.width, amplitude=fresh_std(spec.trunk.width))
    return None

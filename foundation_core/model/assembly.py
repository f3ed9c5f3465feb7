"""From the names in a spec to parts: which norm, which feed-forward layer, which positions, which residual."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from foundation_core.errors import ConfigError
from foundation_core.model.attention import Attention
from foundation_core.model.block import Block, BranchNorm, FeedForward, GatedFeedForward, PostNorm, PreNorm, SquaredReLU
from foundation_core.model.experts import Experts
from foundation_core.model.heads import TiedHead, VocabularyHead
from foundation_core.model.initialize import fresh_std
from foundation_core.model.positions import ALiBi, Learned, RelativeBias, Rotary, Sinusoidal, SinusoidalGrid
from foundation_core.model.stems import Borrowed, PatchStem, Runs, TokenStem
from foundation_core.model.transformer import Transformer
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

_RESIDUALS = {"pre": PreNorm, "post": PostNorm, "branch": BranchNorm}
_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "relu2": SquaredReLU}


def trunk(spec: TrunkSpec, *, causal: bool, source_width: int | None = None) -> Transformer:
    """The blocks of a spec.

    Args:
        source_width: features of a memory that the blocks read. None: they read none.
    """
    norm, feed = _norm(spec), _feed(spec)
    residual = partial(_RESIDUALS[spec.residual], dropout=spec.dropout)
    attention = partial(Attention, spec.width, spec.heads, spec.kv_heads, bias=spec.bias)
    attention = partial(attention, qk_norm=norm if spec.qk_norm else nn.Identity, dropout=spec.attention_dropout)

    def block() -> Block:
        read = residual(norm(spec.width), attention(source_width=source_width)) if source_width else None
        return Block(residual(norm(spec.width), attention()), residual(norm(spec.width), feed()), read)

    end = nn.Identity() if spec.residual == "post" else norm(spec.width)
    rotary = Rotary(spec.width // spec.heads) if spec.position == "rotary" else None
    bias, blocks = _score_bias(spec, both_ways=not causal), (block() for _ in range(spec.depth))
    return Transformer(blocks, end, causal=causal, rotary=rotary, score_bias=bias, dropout=spec.embedding_dropout)


def token_stem(spec: ModelSpec, side: TrunkSpec, shape: SampleShape, embed: nn.Module | None = None) -> TokenStem:
    """The stem of the side of a model that reads or writes text.

    Args:
        embed: the embedding to use. None: one of its own.

    Raises:
        ConfigError: the data are no text.
    """
    if not shape.vocabulary:
        raise ConfigError(
            f"the family {spec.family} works on text, and the data set has no vocabulary",
            fix="ingest a source of texts or captions, or take another family",
        )
    embed = nn.Embedding(shape.vocabulary, side.width) if embed is None else embed
    place: nn.Module | None = None
    if side.position == "learned":
        place = Learned(spec.context_tokens, side.width)
    elif side.position == "sinusoidal":
        place = Sinusoidal(side.width, amplitude=fresh_std(side.width))
    runs = Runs(spec.runs.lengths, spec.runs.rows, side.width) if spec.runs.lengths else None
    return TokenStem(embed, spec.context_tokens, place, runs=runs)


def vocabulary_head(spec: ModelSpec, stem: TokenStem) -> nn.Module:
    """The head over the vocabulary of a stem."""
    embed: nn.Embedding | Borrowed = stem.embed  # type: ignore[assignment]
    return TiedHead(embed) if spec.tie_embeddings else VocabularyHead(embed.weight.shape[1], embed.weight.shape[0])


def patch_stem(spec: ModelSpec, shape: SampleShape) -> PatchStem:
    """The stem of a model that reads values on a grid.

    Raises:
        ConfigError: the data are on no grid, or the patch does not divide it.
    """
    if not shape.channels:
        raise ConfigError(
            f"the family {spec.family} works on images, spectrograms or series, and the data set has none",
            fix="ingest such a source, or take another family",
        )
    if shape.height % spec.patch[0] or shape.width % spec.patch[1]:
        raise ConfigError(
            f"a patch of {spec.patch[0]} x {spec.patch[1]} does not divide samples of {shape.height} x {shape.width}",
            allowed=f"a divisor of {shape.height} and one of {shape.width}",
            fix="set model.patch, or the size of the samples at ingest",
        )
    return PatchStem(shape, spec.patch, spec.trunk.width, patch_place(spec, spec.trunk, shape))


def patch_place(spec: ModelSpec, side: TrunkSpec, shape: SampleShape) -> nn.Module | None:
    """What adds the patches' places to a side's vectors; None where the trunk sees to them."""
    rows, columns = shape.height // spec.patch[0], shape.width // spec.patch[1]
    if side.position == "learned":
        return Learned(rows * columns, side.width)
    if side.position == "sinusoidal":
        return SinusoidalGrid(side.width, columns, amplitude=fresh_std(side.width))
    return None


def _norm(spec: TrunkSpec) -> Callable[[int], nn.Module]:
    if spec.norm == "rms":
        return partial(nn.RMSNorm, eps=1e-6)
    return partial(nn.LayerNorm, bias=spec.bias)


def _feed(spec: TrunkSpec) -> Callable[[], nn.Module]:
    def one() -> nn.Module:
        if spec.feed == "swiglu":  # its gate is a third matrix: with two thirds of the features it costs the same
            hidden = spec.hidden or 8 * round(spec.width / 3)
            return GatedFeedForward(spec.width, hidden, nn.SiLU(), bias=spec.bias)
        activation = _ACTIVATIONS[spec.feed]()
        return FeedForward(spec.width, spec.hidden or 4 * spec.width, activation, bias=spec.bias)

    if not spec.experts:
        return one
    return lambda: Experts(spec.width, (one() for _ in range(spec.experts)), spec.experts_per_token)


def _score_bias(spec: TrunkSpec, *, both_ways: bool) -> nn.Module | None:
    if spec.position == "alibi":
        return ALiBi(spec.heads)
    return RelativeBias(spec.heads, both_ways=both_ways) if spec.position == "relative" else None

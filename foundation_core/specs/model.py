"""The model: which family, how wide and deep, how a token knows its place: part of the pretraining's spec."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from foundation_core.specs.base import Spec


class TrunkSpec(Spec):
    """Width and depth of the transformer."""

    width: int = Field(256, ge=8)
    """Features per token, D."""
    depth: int = Field(4, ge=1)
    """Number of blocks."""
    heads: int = Field(4, ge=1)
    """Query heads, H; must divide the width."""
    kv_heads: int | None = Field(None, ge=1)
    """Key and value heads, K; must divide the query heads. Empty: as many as query heads."""
    hidden: int | None = Field(None, ge=8)
    """Width of the feed-forward layer. Empty: four times the width, or 8/3 of it when gated."""
    position: Literal["rotary", "learned", "sinusoidal", "alibi", "relative", "none"] = "rotary"
    """How a token knows its place."""
    residual: Literal["pre", "post", "branch"] = "pre"
    """What is normalised: what a branch reads, the sum after it, or what it says before it joins the sum."""
    norm: Literal["rms", "layer"] = "rms"
    """Normalisation of each branch, and of the end unless each block ends with one."""
    qk_norm: bool = False
    """Normalise queries and keys too, head by head."""
    feed: Literal["gelu", "relu", "relu2", "swiglu"] = "gelu"
    """Feed-forward layer."""
    experts: int = Field(0, ge=0)
    """Feed-forward layers in each block, of which each token passes a few; 0 is the usual one without a router."""
    experts_per_token: int = Field(2, ge=1)
    """Experts that a token passes; of no use without experts."""
    bias: bool = False
    """Biases in the linear layers and norms."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of dropping a feature on each branch."""
    embedding_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of dropping a feature of what enters the first block: embeddings with their positions."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that a token does not hear one of those that it reads: of dropping an attention weight."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width: width={self.width}, heads={self.heads}")
        if self.position == "rotary" and (self.width // self.heads) % 2:
            raise ValueError(f"rotary positions need an even head width, found {self.width // self.heads}")
        if self.position == "sinusoidal" and self.width % 4:  # sines and cosines, of rows and of columns
            raise ValueError(f"sinusoidal positions need a width that 4 divides, found {self.width}")
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads: heads={self.heads}, kv_heads={self.kv_heads}")
        if self.experts and self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token={self.experts_per_token} must not exceed experts={self.experts}")
        return self


class RunsSpec(Spec):
    """Vectors for runs of tokens, beside those of single tokens: small models of letters learn much faster with them.
    Off without lengths."""

    lengths: tuple[PositiveInt, ...] = ()
    """Tokens of a run that ends with the token, such as 2, 3, 4; each length has a table."""
    rows: int = Field(16384, ge=2)
    """Rows of each table, which the runs share by a hash."""

    @model_validator(mode="after")
    def _has_rising_lengths(self) -> Self:
        if list(self.lengths) != sorted(set(self.lengths)) or 1 in self.lengths:
            raise ValueError(f"lengths needs rising numbers of 2 or more, found {list(self.lengths)}")
        return self


class ModelSpec(Spec):
    """Which model to build."""

    family: str = "decoder"
    """Registered family: decoder, encoder, mixture, encoder_decoder, captioner, masked_autoencoder, dual_encoder."""
    trunk: TrunkSpec = TrunkSpec()
    """Width and depth."""
    second_trunk: TrunkSpec | None = None
    """Of a family with two: what writes the text, restores the patches or reads the text. Empty: like the first."""
    context_tokens: int = Field(256, ge=8)
    """Tokens that the model reads at once, T; patches are not counted."""
    patch: tuple[PositiveInt, PositiveInt] = (2, 2)
    """Height and width of a patch, in pixels, mel bins and frames, or 1 and steps. Of no use to text."""
    joint_width: int = Field(64, ge=2)
    """Features of the space that a dual encoder maps both sides to."""
    runs: RunsSpec = RunsSpec()
    """What is looked up for runs of tokens. Of no use to patches."""
    tie_embeddings: bool = True
    """Use the token embedding as the output layer too."""

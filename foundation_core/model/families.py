"""Families: named assemblies of parts. A new one is a function here, or in a package of yours, and an entry point.

The functions of `assembly` choose the parts that a spec names; what is here only puts them together.
"""

from __future__ import annotations

from collections.abc import Callable

from foundation_core import plugins
from foundation_core.errors import ConfigError
from foundation_core.model.assembly import patch_place, patch_stem, token_stem, trunk, vocabulary_head
from foundation_core.model.heads import PatchHead, PooledHead
from foundation_core.model.stems import Borrowed
from foundation_core.model.transformer import (
    DualEncoder,
    EncoderDecoder,
    MaskedAutoencoder,
    Model,
    PatchDecoder,
    Reader,
)
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec


def build(spec: ModelSpec, shape: SampleShape) -> Reader:
    """A model of the spec's family; its weights are not set yet (see `initialize`, `weights`).

    Args:
        shape: of one sample of the data that it is for.

    Raises:
        ConfigError: there is no such family, or it cannot be built for such data.
    """
    family: Callable[[ModelSpec, SampleShape], Reader] = plugins.find("families", spec.family)
    return family(spec, shape)


def decoder(spec: ModelSpec, shape: SampleShape) -> Model:
    """A causal language model: tokens -> a logit for each possible next token. A prefix is a matter of the layout."""
    stem = token_stem(spec, _single(spec).trunk, shape)
    return Model(stem, trunk(spec.trunk, causal=True), vocabulary_head(spec, stem))


def encoder(spec: ModelSpec, shape: SampleShape) -> Model:
    """A language model that reads both ways: tokens -> a logit for each token that may have stood in a place."""
    stem = token_stem(spec, _single(spec).trunk, shape)
    return Model(stem, trunk(spec.trunk, causal=False), vocabulary_head(spec, stem))


def mixture(spec: ModelSpec, shape: SampleShape) -> Model:
    """A decoder in which each token passes a few of many feed-forward layers.

    Raises:
        ConfigError: the spec names no experts.
    """
    if not spec.trunk.experts:
        raise ConfigError("a mixture needs experts", fix="set trunk.experts, or take the family decoder")
    return decoder(spec, shape)


def encoder_decoder(spec: ModelSpec, shape: SampleShape) -> EncoderDecoder:
    """Tokens read whole -> tokens written one by one. Sides of one width share their embedding."""
    stem = token_stem(spec, spec.trunk, shape)
    writer = _second(spec)
    shared = Borrowed(stem.embed) if writer.width == spec.trunk.width else None  # type: ignore[arg-type]
    target = token_stem(spec, writer, shape, shared)
    writing = trunk(writer, causal=True, source_width=spec.trunk.width)
    return EncoderDecoder(stem, trunk(spec.trunk, causal=False), Model(target, writing, vocabulary_head(spec, target)))


def captioner(spec: ModelSpec, shape: SampleShape) -> EncoderDecoder:
    """Images, spectrograms or series -> tokens written one by one."""
    writer = _second(spec)
    target = token_stem(spec, writer, shape)
    writing = trunk(writer, causal=True, source_width=spec.trunk.width)
    reading = trunk(spec.trunk, causal=False)
    return EncoderDecoder(patch_stem(spec, shape), reading, Model(target, writing, vocabulary_head(spec, target)))


def masked_autoencoder(spec: ModelSpec, shape: SampleShape) -> MaskedAutoencoder:
    """Some patches of an image, a spectrogram or a series -> the values of all."""
    stem, light = patch_stem(spec, shape), _second(spec)
    places, place = stem.context_tokens, patch_place(spec, light, shape)
    restore = PatchDecoder(spec.trunk.width, light.width, places, trunk(light, causal=False), place)
    head = PatchHead(light.width, stem.embed.in_features)
    return MaskedAutoencoder(stem, trunk(spec.trunk, causal=False), restore, head)


def dual_encoder(spec: ModelSpec, shape: SampleShape) -> DualEncoder:
    """Images, spectrograms or series, and texts -> vectors in one space."""
    second = _second(spec)
    text = Model(
        token_stem(spec, second, shape),
        trunk(second, causal=False),
        PooledHead(second.width, spec.joint_width, bias=False),
    )
    head = PooledHead(spec.trunk.width, spec.joint_width, bias=False)
    return DualEncoder(patch_stem(spec, shape), trunk(spec.trunk, causal=False), head, text)


def _second(spec: ModelSpec) -> TrunkSpec:
    return spec.second_trunk or spec.trunk


def _single(spec: ModelSpec) -> ModelSpec:
    if spec.second_trunk is not None:
        raise ConfigError(f"the family {spec.family} has one trunk", fix="remove model.second_trunk")
    return spec

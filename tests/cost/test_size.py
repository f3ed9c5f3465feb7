"""A model's size by arithmetic is the size of the model that is built."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from foundation_core.cost.flops import counted
from foundation_core.cost.size import size_of
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

SHAPE = SampleShape(vocabulary=300)
GRID = list(
    itertools.product(
        ("gelu", "relu2", "swiglu"), ("rms", "layer"), (False, True), (None, 2), ("rotary", "learned", "sinusoidal")
    )
)


@pytest.mark.parametrize(("feed", "norm", "bias", "kv_heads", "position"), GRID)
def test_it_equals_the_count_of_the_built_model(
    feed: Any, norm: Any, bias: bool, kv_heads: int | None, position: Any
) -> None:
    trunk = TrunkSpec(width=48, depth=3, heads=4, feed=feed, norm=norm, bias=bias, kv_heads=kv_heads, position=position)
    for tied, hidden in itertools.product((False, True), (None, 80)):
        spec = ModelSpec(trunk=trunk.model_copy(update={"hidden": hidden}), context_tokens=40, tie_embeddings=tied)
        assert size_of(spec, SHAPE) == counted(spec, SHAPE)


@pytest.mark.parametrize("family", ["decoder", "encoder", "mixture"])
@pytest.mark.parametrize("residual", ["pre", "post", "branch"])
@pytest.mark.parametrize("experts_per_token", [1, 2])
def test_it_counts_experts_and_norms_and_relative_positions(family: str, residual: Any, experts_per_token: int) -> None:
    parts = {"experts": 4, "experts_per_token": experts_per_token, "residual": residual, "qk_norm": True}
    for position, norm, bias in itertools.product(("alibi", "relative", "none"), ("rms", "layer"), (False, True)):
        trunk = TrunkSpec.model_validate({**parts, "width": 48, "position": position, "norm": norm, "bias": bias})
        spec = ModelSpec(family=family, trunk=trunk)
        assert size_of(spec, SHAPE) == counted(spec, SHAPE)


@pytest.mark.parametrize("family", ["encoder_decoder", "captioner", "masked_autoencoder", "dual_encoder"])
def test_a_family_that_gives_no_arithmetic_is_built_without_memory_and_counted(family: str) -> None:
    shape = SampleShape(vocabulary=300, channels=1, height=8, width=8)
    spec = ModelSpec(family=family, trunk=TrunkSpec(width=48, depth=2, heads=4))
    assert size_of(spec, shape) == counted(spec, shape)
    assert size_of(spec, shape).parameters > 40_000


def test_the_count_can_tell_models_apart() -> None:
    wide = ModelSpec(trunk=TrunkSpec(width=64, heads=4))
    deep = ModelSpec(trunk=TrunkSpec(width=48, heads=4, depth=6))
    assert size_of(wide, SHAPE) != size_of(deep, SHAPE) != counted(wide, SHAPE)

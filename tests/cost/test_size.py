"""A model's size by arithmetic is the size of the model that is built."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from foundation_core.cost.flops import counted
from foundation_core.cost.size import size_of, size_told
from foundation_core.recipe import load_recipe
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


@pytest.mark.parametrize("bias", [False, True])
def test_the_active_parameters_are_those_of_a_model_that_has_only_the_experts_that_a_token_passes(bias: bool) -> None:
    def size(experts: int, each: int) -> Any:
        parts = {"width": 48, "depth": 3, "bias": bias, "experts": experts, "experts_per_token": each}
        return size_of(ModelSpec(family="mixture", trunk=TrunkSpec.model_validate(parts)), SHAPE)

    routed_among_more = 3 * 48 * (4 - 2)  # the router's rows for the two experts that a token does not pass
    assert size(4, 2).active == size(2, 2).parameters + routed_among_more
    assert size(4, 2).active < size(4, 2).parameters
    assert size(4, 4).active == size(4, 4).parameters
    assert size_of(ModelSpec(), SHAPE).active == size_of(ModelSpec(), SHAPE).parameters


def test_the_recipe_of_the_mixture_has_as_many_active_parameters_as_the_quickstart() -> None:
    recipes, shape = Path(__file__).parents[2] / "recipes", SampleShape(vocabulary=4096)
    quickstart, mixture = (
        size_of(load_recipe(recipes / f"{name}.yaml").pretrain.model, shape) for name in ("quickstart", "mixture")
    )
    routers = 3 * 192 * 4
    assert mixture.active == quickstart.parameters + routers
    two = [("pretrain.model.trunk.experts_per_token", "2"), ("pretrain.model.trunk.hidden", "384")]
    assert size_of(load_recipe(recipes / "mixture.yaml", two).pretrain.model, shape).active == mixture.active
    assert size_told(quickstart.parameters, quickstart.active) in (Path(__file__).parents[2] / "README.md").read_text()
    assert size_told(mixture.parameters, mixture.active) in (recipes / "mixture.yaml").read_text()

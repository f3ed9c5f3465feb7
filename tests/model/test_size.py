"""A model's size by arithmetic is the size of the model that is built."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from foundation_core.model.flops import counted
from foundation_core.model.size import size_of
from foundation_core.specs import ModelSpec, TrunkSpec

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
        assert size_of(spec, vocabulary=300) == counted(spec, vocabulary=300)


def test_the_count_can_tell_models_apart() -> None:
    wide = ModelSpec(trunk=TrunkSpec(width=64, heads=4))
    deep = ModelSpec(trunk=TrunkSpec(width=48, heads=4, depth=6))
    assert size_of(wide, 300) != size_of(deep, 300) != counted(wide, 300)

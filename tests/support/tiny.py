"""A decoder small enough for every test, with weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.transformer import Model
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

VOCABULARY = 61
SHAPE = SampleShape(vocabulary=VOCABULARY)


@pytest.fixture
def tiny_decoder() -> Callable[..., Model]:
    """Builds a decoder of vocabulary 61, width 32, 2 blocks, 4 heads, 48 tokens; keywords change its trunk."""

    def make(seed: int = 0, tie_embeddings: bool = True, **trunk: Any) -> Model:
        usual = {"width": 32, "depth": 2, "heads": 4}
        spec = ModelSpec(trunk=TrunkSpec(**{**usual, **trunk}), context_tokens=48, tie_embeddings=tie_embeddings)
        return initialize(build(spec, SHAPE), seed)

    return make
